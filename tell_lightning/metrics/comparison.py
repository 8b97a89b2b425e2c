"""Is the difference between two sets of answers to the same rows more than chance?

For each score there are its two values, their difference, and the interval and p-value of that.
Rows (documents) are the unit: those of one draw or one trial are the same for both. The interval is
that of the paired bootstrap: both are scored on the same 1,000 draws of the rows. The p-value is
that of approximate randomisation: if the two were alike, it would not matter whose answer is whose.
So the answers are exchanged in a random half of the rows, 10,000 times: how often is the difference
at least as large? Where there are fewer possible exchanges than that, each is tried once. It says
nothing of another seed of training. About seven seconds for 1,000 lines.

    rows       1  2  3  4       first - second
    as it is   A  A  A  A   -   B  B  B  B  =  3.1
    trial 1    A  B  A  B   -   B  A  B  A  = -0.4
    trial 2    B  B  A  A   -   A  A  B  B  =  1.2    ...  p = (trials with 3.1 or more, and 1)
                                                               / (trials and 1)

Source: Noreen 1989; Riezler and Maxwell 2005, https://aclanthology.org/W05-0908.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from tell_lightning.metrics.intervals import (
    QUANTILES,
    SEED,
    Interval,
    Numbers,
    RowSums,
    draws,
)
from tell_lightning.metrics.predictions import MetricError, Prediction
from tell_lightning.metrics.score import row_sums
from tell_lightning.metrics.settings import Scoring

TRIALS = 10_000
TOLERANCE = 1e-9
"""Differences this near to the one that was seen are as large: sums differ in their last digits."""

BLOCK = 256
"""Trials that are summed together."""


@dataclass(frozen=True)
class Comparison:
    """One score of two sets of answers."""

    first: float
    second: float
    interval: Interval
    """Low and high of the 95 % interval of the difference."""
    p_value: float
    """Two-sided: how probable is so large a difference were the two alike."""
    signature: str = ""
    """sacreBLEU's signature, where the score has one."""

    @property
    def difference(self) -> float:
        """The second less the first."""
        return self.second - self.first


def compare(
    scoring: Scoring,
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    trials: int = TRIALS,
) -> dict[str, Comparison]:
    """Compare the scores of two sets of answers.

    Args:
        scoring: How both are scored.
        first: Every row of the set once, in any order.
        second: The same rows and references, in any order.
        trials: Exchanges that are tried; where there are no more than this, all are.

    Returns:
        By score name, those that are a function of sums over rows.

    Raises:
        MetricError: Ids or references differ, or a set that `row_sums` refuses.
    """
    check_pairs(first, second)
    return {
        name: found
        for ours, theirs in zip(row_sums(scoring, first), row_sums(scoring, second), strict=True)
        for name, found in compare_sums(ours, theirs, trials).items()
    }


def compare_sums(first: RowSums, second: RowSums, trials: int = TRIALS) -> dict[str, Comparison]:
    """Compare the scores of two sets of sums, of the same rows in the same order."""
    values, other = first.whole(), second.whole()
    drawn = _differences(first, draws(first.rows), draws(second.rows))
    found = {}
    for name, p_value in p_values(first, second, trials).items():
        low, high = np.quantile(drawn[name], QUANTILES)
        found[name] = Comparison(
            first=values[name],
            second=other[name],
            interval=(float(low), float(high)),
            p_value=p_value,
            signature=first.signatures.get(name, ""),
        )
    return found


def p_values(first: RowSums, second: RowSums, trials: int = TRIALS) -> dict[str, float]:
    """Compute how probable so large a difference is where it does not matter whose answer is whose.

    >>> p_values(RowSums.means({"share": [1, 0, 0]}), RowSums.means({"share": [1, 1, 1]}))
    {'share': 0.5}
    """
    values, other = first.whole(), second.whole()
    exchanged = _differences(first, *_exchanges(first.rows, second.rows, trials))
    itself = 0 if 2 ** len(first.rows) <= trials else 1  # all exchanges hold it already
    found = {}
    for name in (name for name in exchanged if name in values and name in other):
        seen = abs(other[name] - values[name])
        larger = int((np.abs(exchanged[name]) >= seen - TOLERANCE).sum())
        found[name] = (larger + itself) / (len(exchanged[name]) + itself)
    return found


def check_pairs(first: Sequence[Prediction], second: Sequence[Prediction]) -> None:
    """Check that two sets answer the same rows.

    Raises:
        MetricError: An id or a reference that only one of them has.
    """
    ours, theirs = ({p.id: p.reference for p in each} for each in (first, second))
    for here, there, which in ((ours, theirs, "second"), (theirs, ours, "first")):
        lacking = [id for id in here if id not in there]
        if lacking:
            raise MetricError(
                f"compare: both files must hold the same rows, got no {lacking[0]!r} in the "
                f"{which} ({len(lacking)} of {len(here)} rows). Score both on the same rows."
            )
    for id, reference in ours.items():
        if reference != theirs[id]:
            raise MetricError(
                f"compare: both files must hold the same references, got {reference!r:.80} and "
                f"{theirs[id]!r:.80} in row {id!r}. Score both on the same rows."
            )


def _differences(sums: RowSums, ours: Numbers, theirs: Numbers) -> dict[str, Numbers]:
    """Compute the second's scores less the first's, where both have one.

    Args:
        sums: Knows the scores.
        ours: Sums of the first, [draws or trials, numbers].
        theirs: Sums of the second.
    """
    first, second = sums.score(ours), sums.score(theirs)
    differences = {name: second[name] - first[name] for name in first}
    return {name: each[~np.isnan(each)] for name, each in differences.items()}


def _exchanges(ours: Numbers, theirs: Numbers, trials: int) -> tuple[Numbers, Numbers]:
    """Sum the numbers of both after exchanging some of their rows, once for each trial."""
    blocks = [keep @ ours + (1 - keep) @ theirs for keep in _choices(len(ours), trials)]
    first = np.concatenate(blocks)
    return first, ours.sum(axis=0) + theirs.sum(axis=0) - first


def _choices(rows: int, trials: int) -> Iterator[Numbers]:
    """Choose the rows that stay, as ones: all choices where they are few, else by a fixed seed.

    Returns:
        Blocks of trials, [at most BLOCK, rows].
    """
    if 2**rows <= trials:
        yield np.array(list(product((1.0, 0.0), repeat=rows)))
        return
    generator = np.random.default_rng(SEED)
    for start in range(0, trials, BLOCK):
        some = range(min(BLOCK, trials - start))
        yield np.array([generator.integers(2, size=rows) for _ in some], dtype=np.float64)
