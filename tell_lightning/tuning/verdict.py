"""Tuned TELL against tuned SFT: is there a difference, and is it worth its price? No torch.

A search takes the best of many candidates by their scores, so the score of the best is too good:
part of it is the luck of its seed, part that of the rows it was chosen by. The verdict's estimate
has neither. Each arm's configuration for a fold is chosen by the rows of the other folds, trained
anew with other seeds, and scored on the rows of the fold:

    rows        fold 0   fold 1   fold 2   fold 3   fold 4
    chosen by   1 2 3 4  0 2 3 4  0 1 3 4  0 1 2 4  0 1 2 3     for each arm
    trained on  1 2 3 4  0 2 3 4  0 1 3 4  0 1 2 4  0 1 2 3     with new seeds, alike for all arms
    scored on   0        1        2        3        4           together all rows, once for a seed

With a dev set its parts take the place of folds, and the training rows are always the same. With a
test set all rows choose, and are trained on, and the test rows are scored.

What is left of the search in the estimate: the sampler has seen the scores of all folds when it
proposed candidates, and the rows of a fold were among the training rows by which the other folds
compared candidates. Learning rate, steps and share can hardly tell the label of a row. Where they
could, because a setting is a choice of columns, 24 candidates of one arm against one of the other
gave 4 points on labels that are noise, and a verdict in 2 of 60 studies. The arms of a search have
as many candidates as each other: 8 against 8 gave 2.2 points with a standard error of 1.4. Only a
search for each fold would be free of it.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tell_lightning.metrics.predictions import MetricError
from tell_lightning.tuning.budget import LEAST_SEEDS
from tell_lightning.tuning.estimate import Estimate, Numbers, estimate
from tell_lightning.tuning.fits import Request
from tell_lightning.tuning.ground import Ground, Part, choose
from tell_lightning.tuning.records import Record, ranked
from tell_lightning.tuning.scores import Row, in_order, label, row_values
from tell_lightning.tuning.sentence import (
    MARGIN,
    NAMES,
    Outcome,
    decide,
    duration,
    sentence_of,
)

READ = 0.05
"""Rounds that take less than this share of the expected time were only read: they are kept."""
RIVALS = {"base": "base with the anchor", "few_shot": "few-shot prompt"}
GIVEN = {"data": {"mixture": {"anchor": "given"}}}
"""What the base is scored with."""

RunFits = Callable[[Sequence[Request]], Sequence[Mapping[str, Any]]]
Choice = Mapping[Part, Record]
"""The trial that is trained anew for each part."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What the verdict may use."""

    run_fits: RunFits
    """Does fits and returns their results in the same order."""
    seconds_left: Callable[[], float]
    """Says how long it may still take."""
    seeds: int
    """Most seeds."""
    seed: int
    """The seed of the trials, which is not used again."""
    test_scoring: float = 0.0
    """Seconds of one scoring of the test rows, as far as it is known."""
    workers: int = 1
    """Fits at a time."""
    say: Callable[[str], None] = lambda line: None
    """Prints a line."""


@dataclass
class _Rounds:
    """The trainings of all arms, once for each seed."""

    results: list[Mapping[str, Mapping[str, Any]]] = field(default_factory=list)
    """By name of the choice, for each seed."""
    reasons: list[str] = field(default_factory=list)
    """Why a seed is missing."""
    seconds: float = 0.0
    """Of a round, as long as it is expected to take or has taken."""
    fits: int = 1
    """Of a round."""
    asked: int = 0
    """Rounds that were trained, with those that failed."""

    @classmethod
    def of(cls, ground: Ground, chosen: Mapping[str, Choice], means: Means) -> "_Rounds":
        """Say what rounds will take."""
        scoring = means.test_scoring if ground.has_test else 0.0
        costs = {
            _name(ground, arm, part, record): scoring + record["seconds"] / len(record["folds"])
            for arm, choice in chosen.items()
            for part, record in choice.items()
        }
        fits = max(1, len(costs))
        return cls(seconds=sum(costs.values()) / min(means.workers, fits), fits=fits)

    def add(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the results of a round, unless one has failed."""
        self.asked += 1
        reason = next((of["reason"] for of in found.values() if of["reason"]), None)
        if reason is None:
            self.results.append(found)
        else:
            self.reasons.append(reason)


def verdict(ground: Ground, records: Sequence[Record], means: Means) -> dict[str, Any]:
    """Compare the tuned arms, the base and the few-shot prompt.

    Args:
        ground: On which rows.
        records: The trials.
        means: What it may use.

    Returns:
        Plain values: `sentence` and `outcome`, the `difference` of TELL and SFT (None where it is
        not known), `arms` and `rivals` with their scores, losses and prices, and how it was done.
    """
    try:
        return _compared(ground, records, means)
    except MetricError as error:  # a class of the user's that needs more of a row than is kept
        return {
            "sentence": f"undecided: the answers that are kept cannot be scored again: {error}",
            "outcome": "undecided",
            "measure": "score",
            "difference": None,
            "arms": [],
            "rivals": [],
            "rows": 0,
            "on": ground.words,
            "seeds": 0,
            "missing_seeds": [],
            "margin": MARGIN,
            "minutes_a_seed": None,
        }


def _compared(ground: Ground, records: Sequence[Record], means: Means) -> dict[str, Any]:
    chosen = {
        arm: {part: choose(ground, own, part) for part in ground.parts}
        for arm in NAMES
        if (own := ranked(records, arm))
    }
    # The arms first: the rivals are for comparison, and more seeds make the interval narrower.
    rounds = _Rounds.of(ground, chosen, means)
    _train(rounds, ground, chosen, means, min(LEAST_SEEDS, means.seeds))
    rivals = _rivals(ground, means)
    _train(rounds, ground, chosen, means, means.seeds)
    tables = {arm: _table(ground, choice, arm, rounds) for arm, choice in chosen.items()}
    arms = [_arm(ground, arm, chosen[arm], tables[arm], rounds) for arm in chosen]
    over = {
        arm: _difference(tables[arm], tables["sft"])
        for arm in ("tell", "mixture")
        if arm in tables and "sft" in tables and tables[arm].is_enough
    }
    for each in arms:
        found = over.get(each["name"])
        each["over_sft"] = _plain(found) if found else None
    minutes = {each["name"]: each["minutes"] for each in arms}
    outcome, sentence = _judged(ground, chosen, over.get("tell"), minutes, rounds)
    return {
        "sentence": sentence,
        "outcome": outcome,
        "measure": label(ground.scorings),
        "difference": _plain(over["tell"]) if "tell" in over else None,
        "arms": arms,
        "rivals": rivals,
        "rows": len(next(iter(tables.values())).runs) if rounds.results and tables else 0,
        "on": ground.words,
        "seeds": len(rounds.results),
        "missing_seeds": rounds.reasons,
        "margin": MARGIN,
        "minutes_a_seed": round(rounds.seconds / 60, 2),
    }


# Fits


def _rivals(ground: Ground, means: Means) -> list[dict[str, Any]]:
    """Score the base and the few-shot prompt on all rows."""
    places = list(dict.fromkeys(ground.fold(part) for part in ground.parts))
    kinds: tuple[Literal["base", "few_shot"], ...] = ("base", "few_shot")
    asked = [
        Request(f"{kind.replace('_', '-')}-{_place(fold)}", GIVEN, fold, means.seed, kind=kind)
        for kind in kinds
        for fold in places
    ]
    if means.seconds_left() > 0:
        results = list(means.run_fits(asked))
    else:
        results = [{"reason": "no time was left"} for _ in asked]
    rivals = []
    for number, kind in enumerate(kinds):
        own = results[number * len(places) : (number + 1) * len(places)]
        rivals.append({"name": kind, "label": RIVALS[kind], **_rival(ground, own)})
    return rivals


def _rival(ground: Ground, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    reason = next((each["reason"] for each in results if each["reason"]), None)
    rows = [row for each in results for row in each.get("rows") or ()]
    if reason or not rows:
        return {"score": None, "reason": reason or "no answers", "loss": None, "minutes": None}
    values = row_values(ground.scorings, rows)[None]
    found = None
    if values.shape[1] > 1:
        runs = np.zeros(values.shape[1], dtype=np.int64)
        found = estimate(values, runs, _span(values), random=False)
    examples = [each["examples"] for each in results if each.get("examples")]
    return {
        "score": _score(values, found),
        "reason": None,
        "loss": _mean(each.get("loss") for each in results),
        "minutes": round(sum(each["seconds"] for each in results) / 60, 3),
        **({"examples": min(min(each.values()) for each in examples)} if examples else {}),
    }


def _train(
    rounds: _Rounds, ground: Ground, chosen: Mapping[str, Choice], means: Means, most: int
) -> None:
    """Train the chosen configurations until there are so many seeds, or the time is over."""
    while chosen and rounds.asked < most:
        least = max(1, LEAST_SEEDS - rounds.asked)
        left = means.seconds_left()
        if left < least * rounds.seconds:
            break
        # Some rounds together, where one alone would leave processes idle.
        count = min(max(least, means.workers // rounds.fits), most - rounds.asked)
        if math.isfinite(left) and rounds.seconds:
            count = max(least, min(count, int(left / rounds.seconds)))
        started = time.monotonic()
        numbers = range(rounds.asked, rounds.asked + count)
        asked = [_requests(ground, chosen, number, means.seed) for number in numbers]
        results = iter(means.run_fits([request for each in asked for request in each.values()]))
        for each in asked:
            rounds.add({name: next(results) for name in each})
        taken = (time.monotonic() - started) / count
        if taken > READ * rounds.seconds:
            rounds.seconds = taken
        done = len(rounds.results)
        means.say(f"Verdict: {done} of at most {means.seeds} seeds of {len(chosen)} arms done.")


def _requests(
    ground: Ground, chosen: Mapping[str, Choice], number: int, seed: int
) -> dict[str, Request]:
    """Ask for the trainings of a round, by the names of their choices.

    Each fold has a seed of its own, the same for all arms: trainings of a round share no luck.
    """
    found: dict[str, Request] = {}
    for arm, choice in chosen.items():
        for part, record in choice.items():
            name = _name(ground, arm, part, record)
            own = seed + 1 + number * len(ground.parts) + (ground.fold(part) or 0)
            found[name] = Request(
                f"{name}-seed{own}",
                record["settings"],
                ground.fold(part),
                own,
                before=number == 0 and not found,
            )
    return found


def _name(ground: Ground, arm: str, part: Part, record: Record) -> str:
    return f"{arm}-trial{record['number']}-{_place(ground.fold(part))}"


def _place(fold: int | None) -> str:
    return "test" if fold is None else f"fold{fold}"


# Numbers


@dataclass(frozen=True, eq=False)
class _Table:
    """What each row adds to the score of an arm."""

    values: Numbers
    """[seeds, rows]."""
    runs: Sequence[str]
    """Which training of a seed answers each row, [rows]."""

    @property
    def is_enough(self) -> bool:
        """Whether seeds and rows are enough for an interval."""
        return len(self.values) >= LEAST_SEEDS and len(self.runs) > 1


def _table(ground: Ground, choice: Choice, arm: str, rounds: _Rounds) -> _Table:
    runs: list[str] = []
    values = []
    for found in rounds.results:
        rows: list[Row] = []
        for part, record in choice.items():
            name, fold = _name(ground, arm, part, record), ground.fold(part)
            own = [row for row in found[name]["rows"] if ground.part_of(fold, row) == part]
            rows += [{**row, "run": name} for row in own]
        values.append(row_values(ground.scorings, rows))
        runs = [row["run"] for row in in_order(rows)]
    return _Table(np.array(values), runs)


def _difference(first: _Table, second: _Table) -> Estimate:
    pairs = list(zip(first.runs, second.runs, strict=True))
    span = _span(np.concatenate([first.values, second.values]))
    return estimate(first.values - second.values, _numbered(pairs), span)


def _arm(
    ground: Ground, arm: str, choice: Choice, table: _Table, rounds: _Rounds
) -> dict[str, Any]:
    names = {_name(ground, arm, part, record) for part, record in choice.items()}
    fits = [found[name] for found in rounds.results for name in names]
    found = None
    if table.is_enough:
        found = estimate(table.values, _numbered(table.runs), _span(table.values))
    losses = {
        when: _mean((each.get("general_loss") or {}).get(when) for each in fits)
        for when in ("before", "after")
    }
    trained = [record["seconds"] / len(record["folds"]) for record in choice.values()]
    seconds = [each["seconds"] for each in fits] or trained
    numbers = sorted({record["number"] for record in choice.values()})
    return {
        "name": arm,
        "label": NAMES[arm],
        "score": _score(table.values, found) if rounds.results else None,
        "loss": _mean(each.get("loss") for each in fits),
        "general_loss": losses,
        "probe": _probe(fits),
        "minutes": round(sum(seconds) / len(seconds) / 60, 3),
        "tokens": _mean(sum(each["tokens"].values()) for each in fits),
        "steps": _mean(each["steps"] for each in fits),
        "trials": numbers,
    }


def _probe(fits: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Average the chat probe after training; None where it was not asked for."""
    found = [after for each in fits if (after := (each.get("probe") or {}).get("after"))]
    return {name: _mean(each[name] for each in found) for name in found[0]} if found else None


def _judged(
    ground: Ground,
    chosen: Mapping[str, Choice],
    difference: Estimate | None,
    minutes: Mapping[str, float],
    rounds: _Rounds,
) -> tuple[Outcome, str]:
    for arm in ("tell", "sft"):
        if arm not in chosen:
            return "undecided", f"undecided: no trial of {NAMES[arm]} was completed"
    if difference is None:
        if rounds.reasons:
            return "undecided", f"undecided: trainings failed: {rounds.reasons[0].splitlines()[0]}"
        if len(rounds.results) >= LEAST_SEEDS:
            return "undecided", "undecided: one row cannot tell two arms apart; add rows"
        need = duration(LEAST_SEEDS * rounds.seconds)
        return "undecided", (
            f"undecided: the budget is too small for {LEAST_SEEDS} seeds of each arm, which take "
            f"about {need}; the same command with more minutes goes on"
        )
    measure = label(ground.scorings)
    return decide(difference), sentence_of(difference, measure, minutes, rounds.seconds)


def _numbered(names: Sequence[Any]) -> NDArray[np.int64]:
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] for name in names], dtype=np.int64)


def _span(values: Numbers) -> float:
    """Return how far rows lie apart; where all are alike, the whole scale."""
    return float(np.ptp(values)) or 100.0


def _score(values: Numbers, found: Estimate | None) -> dict[str, float | None]:
    """Return a score with its interval, which ends where the scale does."""
    value = round(float(values.mean()), 3)
    if found is None:
        return {"value": value, "low": None, "high": None}
    low, high = max(0.0, found.low), min(100.0, found.high)
    return {"value": value, "low": round(low, 3), "high": round(high, 3)}


def _plain(found: Estimate) -> dict[str, Any]:
    return {name: round(value, 5) for name, value in asdict(found).items()}


def _mean(values: Any) -> float | None:
    known = [float(value) for value in values if value is not None]
    return round(sum(known) / len(known), 5) if known else None
