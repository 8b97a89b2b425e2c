"""Check that an engine answers plain prompts as `predict` does, and that the adapter is on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tell_lightning.export.engines import Engine
from tell_lightning.metrics.predictions import Prediction, strip_prefix

ROUNDING = 1e-3
"""Nats that the log-probability of an answer may differ by for no other reason than rounding."""

LEAST_ALIKE = 0.5
"""Share of answers that must be those of `predict` where an engine rounds more than it does."""


@dataclass(frozen=True)
class Asked:
    """The rows of a task as they are sent, and what `predict` answers."""

    messages: Sequence[Sequence[Mapping[str, str]]]
    predicted: Sequence[Prediction]
    """The answers of base and adapter."""
    of_base: Sequence[Prediction]
    """The answers of the base alone, to the same prompts."""
    response_prefix: str = ""
    """What answers begin with, and `predict` leaves out."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the requests, such as the task."""


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
    """Mean difference of an answer's log-probability from that of `predict`, in nats."""
    noise: float | None
    """The same for the base without adapter: what engine and `predict` differ by in any case."""
    rounds: bool = False
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
        bound = None if self.noise is None else max(2 * self.noise, ROUNDING)
        if bound is not None and (self.difference or 0.0) > bound:
            found.append("log-probabilities differ by more than twice the noise of the base")
        return found

    def cells(self) -> list[str]:
        """Return the column of a table, in the order of `LINES`."""
        differ = self.rows - self.alike
        ties = f", {self.near_ties} of {differ} others at near ties" if differ else ""
        return [
            f"{self.prompts} of {self.rows}",
            f"{self.alike} of {self.rows}{ties}",
            f"{self.changed} of {self.rows}",
            "not told" if self.difference is None else f"{self.difference:.1e}",
            "not told" if self.noise is None else f"{self.noise:.1e}",
        ]


LINES = (
    "prompts with the tokens of `predict`",
    "answers of `predict`",
    "answers that the base does not give",
    "log-probability of an answer: difference, nats",
    "the same for the base alone",
)
"""What the cells of a check say."""


def check_task(
    engine: Engine, asked: Asked, answered: Callable[[int], None] = lambda _: None
) -> EngineCheck:
    """Ask an engine the rows of a task, and compare.

    Args:
        engine: A running engine.
        asked: The rows and what is expected.
        answered: Called with 1 after each row.
    """
    prompts = alike = near_ties = changed = 0
    differences: list[float] = []
    noises: list[float] = []
    rows = zip(asked.messages, asked.predicted, asked.of_base, strict=True)
    for messages, predicted, of_base in rows:
        answer = engine.ask(messages, **asked.extra)
        text = strip_prefix(answer.text, asked.response_prefix)[0]
        prompts += answer.prompt_tokens == predicted.prompt_tokens
        changed += text != of_base.prediction
        if text == predicted.prediction:
            alike += 1
            differences += _difference(answer.logprob, predicted)
        else:
            near_ties += predicted.near_ties > 0
        if engine.has_base:
            plain = engine.ask(messages, base=True, **asked.extra)
            if strip_prefix(plain.text, asked.response_prefix)[0] == of_base.prediction:
                noises += _difference(plain.logprob, of_base)
        answered(1)
    difference, noise = (sum(some) / len(some) if some else None for some in (differences, noises))
    return EngineCheck(
        len(asked.messages),
        prompts,
        alike,
        near_ties,
        changed,
        difference,
        noise,
        engine.rounds,
    )


def _difference(told: float | None, predicted: Prediction) -> list[float]:
    if told is None or predicted.logprob is None:
        return []
    return [abs(told - predicted.logprob)]
