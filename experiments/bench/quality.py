"""What an order of rows is worth: figures from the order alone, nothing measured.

Enters: orders, int arrays [n, 2] of (source, row) as delivered; source 1 is the task. Leaves: plain
numbers. Needs numpy alone.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Order = NDArray[np.int64]
TASK = 1


def shuffle_quality(order: Order) -> dict[str, float | None]:
    """Measure how well an epoch is mixed.

    Returns:
        first, last: Position of the first and the last task row, 0 to 1 of the epoch.
        gap: Most general rows in a row.
        gap_expected: What a uniformly random order has on average.
        runs_z: Wald-Wolfowitz statistic of task against general; strongly negative: clumps.
        lag_1: Correlation of the row numbers of neighbouring general rows; 0 in a random order, 1
            where they come as they stand in the file.
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
    """Return the mean longest gap of uniform spacings: task rows cut the general ones in parts."""
    parts = task + 1
    return float(general / parts * (1 / np.arange(1, parts + 1)).sum())


def runs_z(flags: NDArray[np.bool_]) -> float:
    """Return the Wald-Wolfowitz statistic: runs against those expected, in standard deviations.

    Source: Wald and Wolfowitz 1940, the normal approximation without correction.
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
    """Count what an epoch holds of each source."""
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
    """Compare what came after a resume with what the uninterrupted epoch had still to come.

    Args:
        epoch: The uninterrupted order.
        seen: Rows delivered before the state was saved.
        resumed: Rows delivered after it was loaded.

    Returns:
        lost: Rows that were still to come and never came, each use counted.
        repeated: Rows that came although they, or this use of them, were not to come any more.
        same_order: Whether both lists are equal.
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
