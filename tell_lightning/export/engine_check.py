"""Check that an engine answers plain prompts as `predict` does, and that the adapter is on.

Log-probabilities of answers, in nats a token, are compared with those of `predict`. Two programs
never agree to the last digit. How much these two differ is measured on the base without adapter, in
the same run and over answers of about the same length; with the adapter it may be twice as much.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tell_lightning.export.engines import Engine
from tell_lightning.metrics.predictions import Prediction, strip_prefix

ROUNDING = 1e-4
"""Nats a token that log-probabilities may always differ by, as the logits of a near tie do."""

LEAST_ALIKE = 0.5
"""Share of answers that must be those of `predict` where an engine rounds more than it does."""


@dataclass(frozen=True)
class Asked:
    """The rows of a task as they are sent, and what `predict` answers."""

    messages: Sequence[Sequence[Mapping[str, str]]]
    predicted: Sequence[Prediction]
    """The answers of base and adapter."""
    of_base: Sequence[Prediction]
    """The answers of the base alone to the same prompts, of at most `base_tokens`."""
    base_tokens: int = field(kw_only=True)
    """Longest answer of the base, in tokens: what `base_tokens` returns."""
    response_prefix: str = ""
    """What answers begin with, and `predict` leaves out."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the requests, such as the task."""
    adapter: str | None = None
    """The name of the adapter, if it is not the one that the engine was started for."""
    others: Sequence[str] = ()
    """The names of the other adapters on the same engine."""


@dataclass(frozen=True)
class EngineCheck:
    """What was found for one task."""

    rows: int
    prompts: int
    """Prompts with as many tokens as those of `predict`, which have the anchor."""
    alike: int
    """Answers that are those of `predict`."""
    near_ties: int
    """Other answers with a token that rounding may decide."""
    changed: int
    """Answers that are not those of the base."""
    difference: float | None
    """How much log-probabilities differ from those of `predict`, in nats a token."""
    noise: float | None
    """The same for the base without adapter: what engine and `predict` differ by in any case."""
    has_base: bool
    """Whether the engine serves the base without adapter, too."""
    own: int | None
    """Answers that no other adapter on the engine gives; None: there is no other."""
    rounds: bool
    """Whether the engine rounds more than `predict`: some other answers are then no fault."""

    @property
    def faults(self) -> list[str]:
        """Say what does not hold."""
        found = []
        if self.prompts < self.rows:
            found.append("prompts have other tokens than those of `predict`: the anchor is lost")
        least = LEAST_ALIKE * self.rows if self.rounds else self.rows
        if self.alike + self.near_ties < least:
            found.append("answers are not those of `predict`")
        if not self.changed:
            found.append("no answer differs from the base's: the adapter is not on")
        if self.own == 0:
            found.append("another adapter gives all of these answers: the right one may not be on")
        if self.has_base and self.difference is not None:
            if self.noise is None:
                found.append(
                    "no answer of the base is that of `predict`: there is no noise to go by"
                )
            elif self.difference > max(2 * self.noise, ROUNDING):
                found.append("log-probabilities differ by more than twice the noise of the base")
        return found

    def cells(self) -> list[str]:
        """Return the column of a table, in the order of `LINES`."""
        differ = self.rows - self.alike
        return [
            f"{self.prompts} of {self.rows}",
            f"{self.alike} of {self.rows}",
            f"{self.near_ties} of {differ}",
            f"{self.changed} of {self.rows}",
            "not asked" if self.own is None else f"{self.own} of {self.rows}",
            "not told" if self.difference is None else f"{self.difference:.1e}",
            "not told" if self.noise is None else f"{self.noise:.1e}",
        ]


LINES = (
    "prompts with the tokens of `predict`",
    "answers of `predict`",
    "others, at near ties",
    "answers that the base does not give",
    "answers that no other adapter gives",
    "log-probabilities: difference, nats a token",
    "the same for the base alone",
)
"""What the cells of a check say."""


def base_tokens(predicted: Sequence[Prediction], max_new_tokens: int) -> int:
    """Return how long answers of the base are to be, so that they compare with the adapter's.

    A base goes on where the adapter stops. One token more than the longest answer of the adapter
    tells the two apart; over hundreds more, engine and `predict` would part ways.

    Args:
        predicted: The answers of base and adapter.
        max_new_tokens: Their longest allowed.
    """
    longest = max(answer.new_tokens + answer.stopped for answer in predicted)
    return min(longest + 1, max_new_tokens)


def check_task(
    engine: Engine, asked: Asked, answered: Callable[[int], None] = lambda _: None
) -> EngineCheck:
    """Ask an engine the rows of a task, and compare.

    Args:
        engine: A running engine.
        asked: The rows and what is expected.
        answered: Called with 1 after each row.
    """
    prompts = alike = near_ties = changed = own = 0
    with_adapter, with_base = _Distance(), _Distance()
    extra = {**asked.extra, **({"model": asked.adapter} if asked.adapter else {})}
    rows = zip(asked.messages, asked.predicted, asked.of_base, strict=True)
    for messages, predicted, of_base in rows:
        answer = engine.ask(messages, **extra)
        text = strip_prefix(answer.text, asked.response_prefix)[0]
        prompts += answer.prompt_tokens == predicted.prompt_tokens
        changed += text != of_base.prediction
        if text == predicted.prediction:
            alike += 1
            with_adapter.add(answer.logprob, predicted)
        else:
            near_ties += predicted.near_ties > 0
        if engine.has_base:
            short = {**asked.extra, "max_tokens": asked.base_tokens}
            plain = engine.ask(messages, base=True, **short)
            if strip_prefix(plain.text, asked.response_prefix)[0] == of_base.prediction:
                with_base.add(plain.logprob, of_base)
        own += all(
            engine.ask(messages, **{**asked.extra, "model": other}).text != answer.text
            for other in asked.others
        )
        answered(1)
    return EngineCheck(
        rows=len(asked.messages),
        prompts=prompts,
        alike=alike,
        near_ties=near_ties,
        changed=changed,
        difference=with_adapter.mean,
        noise=with_base.mean,
        has_base=engine.has_base,
        own=own if asked.others else None,
        rounds=engine.rounds,
    )


class _Distance:
    """How much log-probabilities differ from those of `predict`, in nats a token, over answers."""

    def __init__(self) -> None:
        self._nats, self._tokens = 0.0, 0

    def add(self, told: float | None, predicted: Prediction) -> None:
        """Take the log-probability of an answer with the same tokens, if the engine tells it."""
        if told is not None and predicted.logprob is not None:
            self._nats += abs(told - predicted.logprob)
            self._tokens += predicted.new_tokens + predicted.stopped

    @property
    def mean(self) -> float | None:
        """The mean; None: no answer was compared."""
        return self._nats / self._tokens if self._tokens else None
