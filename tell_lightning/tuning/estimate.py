"""How far the mean over rows and trainings would move with others of them. No torch.

A table has a value for each row and each round of trainings (a seed). Rows differ in difficulty;
trainings differ in luck, and all rows that one training answers share its luck:

                row a   row b   row c   row d
    seed 0      [ training 1 ]  [ training 2 ]     fold 0: a, b     fold 1: c, d
    seed 1      [ training 3 ]  [ training 4 ]

So the variance of the mean has two parts: that of rows, from the means of the rows over seeds, and
that of trainings, from the seeds of each fold. What belongs to neither is in both, and taken off
once. The interval is that of a t distribution whose degrees of freedom follow from those of the two
parts, for both are estimated from few numbers. Where all rows seen are alike, that is no proof that
the next one is: two halves of a row are added, one at the largest difference that rows can have in
each direction. A percentile bootstrap has neither: of ten rows it holds the truth 8 times of 10.

Not in the interval: other task rows to train on. Folds share most of their training rows, so that
no estimate of this part from one set of rows is without bias.

Sources: Owen 2007, doi 10.1214/07-AOAS122 (rows and seeds apart); Satterthwaite 1946, doi
10.2307/3002019 (degrees of freedom); Agresti and Min 2005, doi 10.1002/sim.1781 (the halves of
a row); Bengio and Grandvalet 2004, https://www.jmlr.org/papers/v5/grandvalet04a.html (folds).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tell_lightning.experiment.statistics import LEVEL, sign_flip

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over rows and seeds with its 95 % interval."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided, of a mean of 0: the larger one of that of the interval and that of all choices of
    signs of the rows, the seeds of a row together."""
    rows: int
    seeds: int
    of_rows: float
    """The part of the variance that fewer or more rows change."""
    of_runs: float
    """The part of the variance that fewer or more seeds change."""
    runs_freedom: float
    """Degrees of freedom of `of_runs`; 0 where there are no trainings to differ."""

    @property
    def half(self) -> float:
        """Half of the width of the interval."""
        return (self.high - self.low) / 2

    def half_with(self, *, rows: float | None = None, seeds: float | None = None) -> float:
        """Foresee half of the width with other numbers of rows and seeds.

        Args:
            rows: Number of rows, of the same kind; None: as many as there are.
            seeds: Number of seeds, two or more; None: as many as there are.
        """
        rows, seeds = rows or self.rows, seeds or self.seeds
        of_rows = self.of_rows * self.rows / rows
        of_runs = self.of_runs * self.seeds / seeds
        freedom = self.runs_freedom * (seeds - 1) / max(1, self.seeds - 1)
        return _reach(of_rows, rows - 1, of_runs, freedom)


def estimate(
    values: Numbers, runs: NDArray[np.int64], span: float, *, random: bool = True
) -> Estimate:
    """Estimate the mean of a table.

    Args:
        values: What each row adds, [seeds, rows]: two rows or more.
        runs: Which training of its seed answers each row, from 0 on, [rows].
        span: The largest value that a row can have, or difference, in either direction.
        random: Whether trainings differ. Then there must be two seeds or more.
    """
    seeds, rows = values.shape
    assert rows > 1
    assert seeds > 1 or not random
    means = values.mean(axis=0)
    value = float(means.mean())
    squares = float(((means - value) ** 2).sum())
    of_rows = (squares + span**2) / ((rows + 1) * (rows + 2))
    of_runs, freedom, shared = _run_parts(values, runs) if random else (0.0, 0.0, 0.0)
    total = max(of_rows, of_runs, of_rows + of_runs - shared)
    apart = max(0.0, total - of_runs)
    reach = _reach(apart, rows - 1, of_runs, freedom)
    by_interval = _p_value(value, apart, rows - 1, of_runs, freedom)
    return Estimate(
        value=value,
        low=value - reach,
        high=value + reach,
        p=max(by_interval, sign_flip(means.tolist())),
        rows=rows,
        seeds=seeds,
        of_rows=apart,
        of_runs=of_runs,
        runs_freedom=freedom,
    )


def _run_parts(values: Numbers, runs: NDArray[np.int64]) -> tuple[float, float, float]:
    """Split what differs between the seeds of a row.

    Returns:
        The variance of the mean that comes from trainings, its degrees of freedom, and the part of
        it that belongs to single rows.
    """
    seeds, rows = values.shape
    within = (
        np.stack([values[:, runs == run].sum(axis=1) for run in np.unique(runs)], axis=1) / rows
    )
    each = within.var(axis=0, ddof=1) / seeds
    of_runs = float(each.sum())
    freedom = (seeds - 1) * of_runs**2 / float((each**2).sum()) if of_runs else float(seeds - 1)
    left = values - values.mean(axis=0)
    single, count = 0.0, 0
    for run in np.unique(runs):
        own = left[:, runs == run]
        single += float(((own - own.mean(axis=1, keepdims=True)) ** 2).sum())
        count += (seeds - 1) * (own.shape[1] - 1)
    shared = single / count / (seeds * rows) if count else of_runs
    return of_runs, freedom, shared


def _freedom(of_rows: float, rows_freedom: float, of_runs: float, runs_freedom: float) -> float:
    """Compute the degrees of freedom of a sum of two variances, as Satterthwaite does."""
    parts = of_rows**2 / rows_freedom + (of_runs**2 / runs_freedom if of_runs else 0.0)
    return (of_rows + of_runs) ** 2 / parts if parts else rows_freedom


def _reach(of_rows: float, rows_freedom: float, of_runs: float, runs_freedom: float) -> float:
    freedom = _freedom(of_rows, rows_freedom, of_runs, runs_freedom)
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(of_rows + of_runs))


def _p_value(
    value: float, of_rows: float, rows_freedom: float, of_runs: float, runs_freedom: float
) -> float:
    freedom = _freedom(of_rows, rows_freedom, of_runs, runs_freedom)
    deviation = np.sqrt(of_rows + of_runs)
    return float(2 * stats.t.sf(abs(value) / deviation, freedom)) if deviation else 1.0
