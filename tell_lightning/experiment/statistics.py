"""The uncertainty of a score over seeds and test rows: 95 % intervals, differences, p-values.

All arms are tested on the same rows, so that rows are crossed with seeds. A draw resamples both:
the seeds, and the rows, once for all seeds and arms. The draws are always the same; 20,000 of them
take 10 ms for 10 seeds and 128 rows (50 ms for BLEU).

    seeds      0 1 2     draw    0 0 2        rows    a b c     draw    a c c
    score      mean over the drawn seeds of the score of the summed counts of the drawn rows
    contrast   the same draw of seeds and rows for every arm: what all arms share cancels

The plain interval of these draws needs two corrections to hold 95 %. Variance that belongs neither
to a seed nor to a row is counted three times (with the seeds, with the rows, and with both); draws
of seeds alone and of rows alone show how much it is, and the draws are narrowed by that. And there
are few seeds, so that the quantiles are expanded like those of a t interval.

`scipy.stats.bootstrap` draws along one axis and has neither correction, and SciPy has no Holm.

Sources: Owen 2007, doi 10.1214/07-AOAS122 (seeds and rows drawn apart, and what is counted three
times); Hesterberg 2015, arXiv 1411.5279 (expanded percentiles); arXiv 2511.19794 (an interval and
a sign-flip test on the deltas of seeds, a claim only if both); Holm 1979, jstor 4615733.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tell_lightning.errors import TellError
from tell_lightning.experiment.items import SCORES

DRAWS = 20_000
"""Draws of seeds and rows. With 10 seeds an end of the interval is the 0.86 % quantile. Only 17 of
2,000 draws lie beyond it, too few; with 20,000 draws the end varies by 1 % of the width."""
LEVEL = 0.95
EXACT = 2**14
"""The most sign flips that are tried: all of them, up to 14 seeds."""

Numbers = NDArray[np.float64]


def _single(sums: Numbers) -> Numbers:
    return sums[..., 0]


SCORE_OF: Mapping[str, Callable[[Numbers], Numbers]] = {**SCORES, "loss": _single}
"""From sums over rows to a value. A loss is one number, as if of one row."""


class StatisticsError(TellError):
    """Samples that cannot be compared."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What each test row of each seed adds to the score of an arm."""

    statistic: str
    """Name of the score in `SCORE_OF`."""
    seeds: tuple[int, ...]
    counts: Numbers
    """The numbers that each row adds, [seeds, rows, numbers]."""

    @classmethod
    def of_losses(cls, losses: Mapping[int, float]) -> "Samples":
        """Make samples of one number for each seed, without rows."""
        values = np.array(list(losses.values()), dtype=np.float64)
        return cls("loss", tuple(losses), values[:, None, None])

    def scores(self) -> Numbers:
        """Compute the score of each seed on all rows, [seeds]."""
        return SCORE_OF[self.statistic](self.counts.sum(axis=1))

    def by_seed(self) -> dict[int, float]:
        """Compute the score of each seed."""
        return dict(zip(self.seeds, self.scores().tolist(), strict=True))

    def only(self, seeds: Sequence[int]) -> "Samples":
        """Return the samples of these seeds, in this order."""
        places = [self.seeds.index(seed) for seed in seeds]
        return Samples(self.statistic, tuple(seeds), self.counts[places])

    def spread(self, seeds: Sequence[int]) -> "Samples":
        """Return the samples of its one seed for each of these: an untrained arm has no other."""
        return Samples(self.statistic, tuple(seeds), self.counts[[0] * len(seeds)])


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95 % interval."""

    value: float
    low: float
    high: float
    seeds: int
    """How many. With one seed the interval is over test rows alone."""


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arms, paired on seeds and rows."""

    estimate: Estimate
    deltas: Mapping[int, float]
    """By seed, for the seeds that all arms have."""


def point(samples: Samples) -> float:
    """Compute the mean over seeds of the score."""
    return float(samples.scores().mean())


def interval(samples: Samples, draws: int | None = None, seed: int = 0) -> Estimate:
    """Estimate the mean over seeds of the score.

    Args:
        samples: Samples of one seed or more.
        draws: How often seeds and rows are drawn; None: `DRAWS`.
        seed: Seed of the draws.
    """
    return combine([(1.0, samples)], draws, seed).estimate


def difference(
    first: Samples, second: Samples, draws: int | None = None, seed: int = 0
) -> Contrast:
    """Estimate the first minus the second over the seeds that both have.

    Raises:
        StatisticsError: There is no common seed, or the test rows differ.
    """
    return combine([(1.0, first), (-1.0, second)], draws, seed)


def combine(
    terms: Sequence[tuple[float, Samples]], draws: int | None = None, seed: int = 0
) -> Contrast:
    """Estimate a weighted sum of arms over the seeds that all have.

    Args:
        terms: Weights and arms.
        draws: How often seeds and rows are drawn, the same for all arms; None: `DRAWS`.
        seed: Seed of the draws.

    Raises:
        StatisticsError: There is no common seed, or the test rows differ.
    """
    draws = draws or DRAWS
    arms = paired([samples for _, samples in terms])
    weights = [weight for weight, _ in terms]
    seeds = arms[0].seeds
    deltas = np.tensordot(weights, [arm.scores() for arm in arms], axes=1)
    drawn = np.tensordot(weights, [_on_drawn_rows(arm, draws, seed) for arm in arms], axes=1)
    shares = _times(len(seeds), draws, (seed, 0)) / len(seeds)
    low, high = np.quantile(_means(deltas, drawn, shares), quantiles(len(seeds)))
    estimate = Estimate(float(deltas.mean()), float(low), float(high), len(seeds))
    return Contrast(estimate, dict(zip(seeds, deltas.tolist(), strict=True)))


def paired_deltas(first: Samples, second: Samples) -> dict[int, float]:
    """Subtract the second from the first, for each seed that both have, without an interval."""
    one, two = paired([first, second])
    return dict(zip(one.seeds, (one.scores() - two.scores()).tolist(), strict=True))


def sign_flip(deltas: Sequence[float]) -> float:
    """Test whether paired deltas lie around zero: the exact two-sided p-value.

    If the two arms were alike, each seed's delta could as well have the other sign. The p-value is
    the share of all choices of signs whose mean is as far from zero. With three seeds it is at
    least 0.25.

    >>> sign_flip([1.0, 2.0, 0.5, 1.5, 1.0])
    0.0625
    """
    if len(deltas) < 2:
        return 1.0  # both signs are equally far from zero
    found = stats.permutation_test(
        (np.asarray(deltas, dtype=np.float64),),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=EXACT,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of one family, so that the level holds for the family as a whole.

    Args:
        p_values: The declared family; None is a contrast that was not measured. It counts as
            failed, so that nobody can leave out the contrasts that would fail.

    >>> holm([0.01, 0.04, 0.03, None])
    [0.04, 0.09, 0.09, None]
    """
    size = len(p_values)
    order = sorted(range(size), key=lambda index: _or_one(p_values[index]))
    adjusted: list[float | None] = [None] * size
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (size - rank) * _or_one(p_values[index])))
        adjusted[index] = None if p_values[index] is None else largest
    return adjusted


def paired(arms: Sequence[Samples]) -> list[Samples]:
    """Return the arms with the seeds that all of them have, in the order of the first.

    Raises:
        StatisticsError: There is no common seed, or the test rows differ.
    """
    common = [seed for seed in arms[0].seeds if all(seed in arm.seeds for arm in arms)]
    if not common:
        raise StatisticsError(
            "statistics: compared arms must have a seed in common, got "
            f"{' and '.join(str(list(arm.seeds)) for arm in arms)}. Run both with the same seeds."
        )
    check_rows(arms)
    return [arm.only(common) for arm in arms]


def check_rows(arms: Sequence[Samples]) -> None:
    """Check that arms were tested alike.

    Raises:
        StatisticsError: The scores or the numbers of rows differ.
    """
    forms = {(arm.statistic, *arm.counts.shape[1:]) for arm in arms}
    if len(forms) > 1:
        found = " and ".join(f"{name} of {rows} rows" for name, rows, _ in sorted(forms))
        raise StatisticsError(
            f"statistics: compared arms must have the same score of the same test rows, got "
            f"{found}. Run both on the same test rows."
        )


def drawn_means(
    samples: Samples, pool: Sequence[int], draws: int | None = None, seed: int = 0
) -> Numbers:
    """Compute the mean over drawn seeds of the score on drawn rows, [draws].

    Args:
        samples: An arm with some seeds of the pool.
        pool: The seeds that are drawn from; those that the arm lacks do not count for it.
        draws: How often seeds and rows are drawn; None: `DRAWS`.
        seed: Seed of the draws.
    """
    draws = draws or DRAWS
    places = [pool.index(each) for each in samples.seeds]
    times = _times(len(pool), draws, (seed, 0))[:, places]
    # A draw that has none of the arm's seeds takes all of them.
    times = np.where(times.any(axis=1, keepdims=True), times, 1.0)
    shares = times / times.sum(axis=1, keepdims=True)
    return _means(samples.scores(), _on_drawn_rows(samples, draws, seed), shares)


def quantiles(seeds: int) -> tuple[float, float]:
    """Choose the quantiles of the draws that bound 95 %.

    With 10 seeds the plain 2.5 % and 97.5 % quantiles hold the truth in about 90 of 100
    experiments. They are expanded: the t quantile replaces the normal one, and the spread of the
    seeds that of the draws, which is smaller by sqrt((seeds - 1) / seeds).

    >>> [round(share, 4) for share in quantiles(10)]
    [0.0086, 0.9914]
    """
    tail = (1 - LEVEL) / 2
    if seeds > 1:
        reach = np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(1 - tail, seeds - 1)
        tail = float(stats.norm.sf(reach))
    return tail, 1 - tail


def _on_drawn_rows(samples: Samples, draws: int, seed: int) -> Numbers:
    """Compute the score of each seed on each draw of the rows, [draws, seeds]."""
    seeds, rows, numbers = samples.counts.shape
    flat = samples.counts.transpose(1, 0, 2).reshape(rows, seeds * numbers)
    sums = _times(rows, draws, (seed, 1)) @ flat
    return SCORE_OF[samples.statistic](sums.reshape(draws, seeds, numbers))


def _means(whole: Numbers, drawn: Numbers, shares: Numbers) -> Numbers:
    """Average over drawn seeds, and remove from the spread what is counted three times.

    Let A, B and E be the variance of the mean that comes from seeds, from rows and from neither.
    Draws of seeds have the variance A + E, draws of rows B + E, draws of both A + B + 3 E. It
    should be A + B + E.

    Args:
        whole: Scores by seed on all rows, [seeds].
        drawn: Scores by seed on drawn rows, [draws, seeds].
        shares: How much each seed counts in each draw, [draws, seeds].
    """
    means: Numbers = (drawn * shares).sum(axis=1)
    both, of_seeds, of_rows = means.var(), (shares @ whole).var(), drawn.mean(axis=1).var()
    if both == 0:
        return means
    right = max(of_seeds, of_rows, 2 * (of_seeds + of_rows) - both)
    narrowed: Numbers = means.mean() + (means - means.mean()) * np.sqrt(min(1.0, right / both))
    return narrowed


@lru_cache(maxsize=16)
def _times(size: int, draws: int, stream: tuple[int, int]) -> Numbers:
    """Draw with replacement; return how often each of `size` is in each draw, [draws, size]."""
    generator = np.random.default_rng([*stream, size])
    return generator.multinomial(size, np.full(size, 1 / size), size=draws).astype(np.float64)


def _or_one(p_value: float | None) -> float:
    return 1.0 if p_value is None else p_value
