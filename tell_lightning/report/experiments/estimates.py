"""The numbers of the report: means over seeds, paired differences, effects and ratios.

The statistics and their draws are those of the verdicts, so that a number is the same wherever it
stands. If cells are missing, the number is None. A new number takes 10 to 50 ms; it is kept.
"""

from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple, ParamSpec, TypeVar

from tell_lightning.experiment.contrasts import (
    DECLARED_N,
    ContrastRow,
    contrasts,
    factorial,
)
from tell_lightning.experiment.equivalence import Equivalence
from tell_lightning.experiment.evidence import data_equivalence, losses, samples
from tell_lightning.experiment.statistics import (
    Estimate,
    Samples,
    StatisticsError,
    combine,
    interval,
)
from tell_lightning.report.experiments.contents import Contents, Key

What = Literal["score", "loss", "general", "swapped"]
"""The testbed's score; the loss of the test rows; that of held-out general rows; the score with
the anchor taken off, or put on where training had none."""
P = ParamSpec("P")
T = TypeVar("T")


class Known(NamedTuple):
    """A mean over seeds, or the mean of a paired difference."""

    estimate: Estimate
    seeds: tuple[float, ...]
    """The value of each seed."""
    few: bool
    """Whether the seeds are too few for evidence."""

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the interval."""
        return self.estimate.low, self.estimate.high


class Estimates:
    """Computes numbers with the statistics, each number once."""

    def __init__(self, contents: Contents) -> None:
        """Ask about the results of some experiments."""
        self.contents = contents
        self.samples = cache(self._samples)
        self.of = cache(self._of)
        self.contrast = cache(self._contrast)
        self.ratio = cache(self._ratio)

    def family(self, testbed: str) -> dict[str, ContrastRow]:
        """Return the declared contrasts by the arm that TELL is compared with."""
        rows = _or_none(contrasts, testbed, self.contents.results, DECLARED_N) or []
        return {row.name.removeprefix("tell - "): row for row in rows}

    def effects(self, testbed: str) -> list[ContrastRow]:
        """Return the effects of the 2 x 2 design; none where no seed has all four arms."""
        return _or_none(factorial, testbed, self.contents.results, DECLARED_N) or []

    def known(self, effect: ContrastRow) -> Known:
        """Add to an effect whether its seeds are few."""
        return Known(effect.estimate, (*effect.deltas.values(),), self.few(effect.estimate.seeds))

    def few(self, seeds: int) -> bool:
        """Say whether seeds are too few for evidence."""
        return seeds < self.contents.least_seeds

    def _ratio(self, testbed: str, arm: str, n: int) -> Equivalence | None:
        """Estimate what TELL's n examples are worth to an arm with a curve."""
        return _or_none(data_equivalence, self.contents.results, testbed, n, arm)

    def _samples(self, key: Key, what: What) -> Samples | None:
        """Collect a number of every seed; rows stay apart where they are known."""
        if key not in self.contents.groups:
            return None
        if what == "loss":
            return losses(self.contents.results, *key)
        if what != "general":
            part: Literal["test", "test_anchor_off"]
            part = "test_anchor_off" if what == "swapped" else "test"
            return samples(self.contents.results, *key, part=part)
        found = {
            seed: (result.get("general_loss") or {}).get("after")
            for seed, result in sorted(self.contents.groups[key].items())
        }
        known = {seed: loss for seed, loss in found.items() if loss is not None}
        return Samples.of_losses(known) if known else None

    def _of(self, key: Key, what: What = "score") -> Known | None:
        """Estimate the mean over seeds. An arm that trains nothing needs only one seed."""
        found = self.samples(key, what)
        if found is None:
            return None
        few = self.few(len(self.contents.groups[key])) and self.contents.arms[key.arm].trains
        return Known(interval(found), (*found.by_seed().values(),), few)

    def _contrast(
        self, first: Key, second: Key, what: What = "score", other: What | None = None
    ) -> Known | None:
        """Subtract the second from the first, paired on seeds and rows.

        Args:
            first: The runs of one arm.
            second: The runs to subtract; if this arm trains nothing, its one seed is used for all.
            what: The number to compare.
            other: The number of the second; None: the same.
        """
        one, two = self.samples(first, what), self.samples(second, other or what)
        if one is None or two is None:
            return None
        if not self.contents.arms[second.arm].trains:
            two = two.spread(one.seeds)
        found = _or_none(combine, [(1.0, one), (-1.0, two)])
        if found is None:
            return None
        return Known(found.estimate, (*found.deltas.values(),), self.few(found.estimate.seeds))


def _or_none(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call a function; return None if no seed has everything that the number needs."""
    try:
        return function(*args, **kwargs)
    except StatisticsError:
        return None
