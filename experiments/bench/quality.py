"""Measure the quality of an order of rows: how well it is mixed, and what a resume loses.

An order is an int array [n, 2] of (source, row) in order of delivery; source 1 is the task. Needs
only numpy.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Order = NDArray[np.int64]
TASK = 1


def shuffle_quality(order: Order) -> dict[str, float | None]:
    """Measure how well an epoch is mixed.

    Returns:
        first, last: Positions of the first and the last task row, as shares of the epoch.
        gap: Largest number of successive general rows.
        gap_expected: Mean of `gap` over uniformly random orders.
        runs_z: Wald-Wolfowitz statistic of task against general; strongly negative: clumps.
        lag_1: Correlation of the row numbers of neighbouring general rows; 0 in a random order, 1
            in the order of the file.
    """
    task = order[:, 0] == TASK
    where = np.flatnonzero(task)
    if len(where) == 0:
        return dict.fromkeys(("first", "last", "gap", "gap_expected", "runs_z", "lag_1"))
    edges = np.concatenate([[-1], where, [len(task)]])
    return {
        "first": float(where[0] / len(task)),
        "last": float(where[-1] / len(task)),
        "gap": int(np.diff(edges).max()) - 1,
        "gap_expected": expected_gap(len(task) - len(where), len(where)),
        "runs_z": runs_z(task),
        "lag_1": lag_1(order[~task, 1]),
    }


def expected_gap(general: int, task: int) -> float:
    """Return the mean longest gap if `task` rows divide `general` rows at random."""
    parts = task + 1
    return float(general / parts * (1 / np.arange(1, parts + 1)).sum())


def runs_z(flags: NDArray[np.bool_]) -> float:
    """Return the Wald-Wolfowitz statistic: runs minus expected runs, in standard deviations.

    Source: Wald and Wolfowitz 1940, normal approximation without correction.
    """
    n, ones = len(flags), int(flags.sum())
    pairs = 2 * ones * (n - ones)
    runs = 1 + int((flags[1:] != flags[:-1]).sum())
    mean = pairs / n + 1
    variance = pairs * (pairs - n) / (n**2 * (n - 1))
    return float((runs - mean) / variance**0.5) if variance > 0 else 0.0


def lag_1(rows: NDArray[np.int64]) -> float:
    """Return the correlation of each row number with the next."""
    if len(rows) < 3:
        return 0.0
    return float(np.corrcoef(rows[:-1], rows[1:])[0, 1])


def coverage(order: Order, general_rows: int, task_rows: int) -> dict[str, Any]:
    """Count the rows of each source in an epoch."""
    uses = {
        source: np.bincount(order[order[:, 0] == source, 1], minlength=size)
        for source, size in ((0, general_rows), (TASK, task_rows))
    }
    return {
        "rows": len(order),
        "task": int(uses[TASK].sum()),
        "task_uses": [int(uses[TASK].min()), int(uses[TASK].max())],
        "general_missing": int((uses[0] == 0).sum()),
        "general_repeated": int((uses[0] - 1).clip(0).sum()),
    }


def compare_resume(epoch: Order, seen: int, resumed: Order) -> dict[str, Any]:
    """Compare the rows after a resume with the rest of the uninterrupted epoch.

    Args:
        epoch: The uninterrupted order.
        seen: Number of rows delivered before the state was saved.
        resumed: Order of the rows delivered after the state was loaded.

    Returns:
        lost: Number of rows of the rest that never came; each use of a row counts.
        repeated: Number of rows that came but are not in the rest.
        same_order: Whether both orders are equal.
    """
    rest = epoch[seen:]
    keys, which = np.unique(np.concatenate([rest, resumed]), axis=0, return_inverse=True)
    which = which.reshape(-1)
    wanted = np.bincount(which[: len(rest)], minlength=len(keys))
    came = np.bincount(which[len(rest) :], minlength=len(keys))
    return {
        "lost": int((wanted - came).clip(0).sum()),
        "repeated": int((came - wanted).clip(0).sum()),
        "same_order": bool(np.array_equal(rest, resumed)),
    }
