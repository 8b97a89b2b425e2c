"""The numbers of the report: each asked of the statistics once, over the seeds that were run.

The pooled results enter; estimates with intervals, paired contrasts, effects of the factorial and
data-equivalence ratios leave, or None where cells are missing. All of them have the draws of the
verdicts, so that a number is the same wherever it stands. 10 to 50 ms for each new one.
"""

from functools import cache
from typing import Literal, NamedTuple

from tell_lightning.experiment.contrasts import (
    DECLARED_N,
    ContrastRow,
    contrasts,
    factorial,
)
from tell_lightning.experiment.equivalence import Equivalence
from tell_lightning.experiment.evidence import data_equivalence, losses, samples, tokens
from tell_lightning.experiment.statistics import (
    Contrast,
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


class Known(NamedTuple):
    """A mean over seeds, and each seed's number."""

    estimate: Estimate
    seeds: tuple[float, ...]


class Estimates:
    """Asks the statistics, and remembers."""

    def __init__(self, contents: Contents) -> None:
        """Keep the contents, and what is asked of them."""
        self.contents = contents
        self.samples = cache(self._samples)
        self.of = cache(self._of)
        self.contrast = cache(self._contrast)
        self.family = cache(self._family)
        self.effects = cache(self._effects)
        self.ratio = cache(self._ratio)

    def few(self, key: Key) -> bool:
        """Say whether the seeds are too few for evidence; what trains nothing needs but one."""
        seeds = len(self.contents.groups.get(key, {}))
        return seeds < self.contents.least_seeds and self.contents.arms[key.arm].trains

    def tokens(self, key: Key) -> float:
        """Return the tokens that a cell trains on, task and general: the mean over seeds."""
        return tokens(self.contents.results, key.testbed, key.arm, key.n, key.variant)

    def _samples(self, key: Key, what: What) -> Samples | None:
        if key not in self.contents.groups:
            return None
        if what == "score":
            return samples(self.contents.results, *key)
        if what == "swapped":
            return samples(self.contents.results, *key, part="test_anchor_off")
        if what == "loss":
            return losses(self.contents.results, *key)
        found = {
            seed: (result.get("general_loss") or {}).get("after")
            for seed, result in sorted(self.contents.groups[key].items())
        }
        known = {seed: loss for seed, loss in found.items() if loss is not None}
        return Samples.of_losses(known) if known else None

    def _of(self, key: Key, what: What = "score") -> Known | None:
        found = self.samples(key, what)
        if found is None:
            return None
        return Known(interval(found), tuple(found.by_seed().values()))

    def _contrast(
        self, first: Key, second: Key, what: What = "score", other: What | None = None
    ) -> Contrast | None:
        """Take the second from the first, paired on seeds and rows.

        Args:
            first: What was run.
            second: What it is compared with; one that trains nothing stands for every seed.
            what: Which number.
            other: Which number of the second; None: the same.
        """
        one, two = self.samples(first, what), self.samples(second, other or what)
        if one is None or two is None:
            return None
        if not self.contents.arms[second.arm].trains:
            two = two.spread(one.seeds)
        try:
            return combine([(1.0, one), (-1.0, two)])
        except StatisticsError:  # no seed that both have, yet
            return None

    def _family(self, testbed: str, n: int = DECLARED_N) -> dict[str, ContrastRow]:
        """Return the declared contrasts by the arm that TELL is compared with."""
        try:
            rows = contrasts(testbed, self.contents.results, n)
        except StatisticsError:
            return {}
        return {row.name.removeprefix("tell - "): row for row in rows}

    def _effects(self, testbed: str, n: int = DECLARED_N) -> list[ContrastRow]:
        try:
            return factorial(testbed, self.contents.results, n)
        except StatisticsError:  # no seed that all four have, yet
            return []

    def _ratio(self, testbed: str, arm: str, n: int) -> Equivalence | None:
        """Estimate what TELL's n examples are worth to an arm with a curve."""
        try:
            return data_equivalence(self.contents.results, testbed, n, arm)
        except StatisticsError:  # no seed that all of them have, yet
            return None
