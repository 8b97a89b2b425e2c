"""What `metrics.csv` says, read by whoever shows it: no torch, no Lightning.

Enters: the file, of a run of any status. Leaves: its rows in the order of logging, without what is
empty. The whole file is read; that of a day's run takes a second.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the rows, each with the finite numbers that it holds; none where there is no file.

    A last line that a kill has cut off is left out.

    Args:
        path: The file.

    Returns:
        Value by log key; `step`, which every row has, is the optimizer steps completed by then.
    """
    if not path.is_file():
        return []
    heading, *lines = whole_lines(path.read_text(encoding="utf-8")) or [[]]
    rows = [zip(heading, map(_number, line), strict=True) for line in lines]
    return [{name: value for name, value in row if math.isfinite(value)} for row in rows]


def whole_lines(text: str) -> list[list[str]]:
    r"""Split the file into cells, the heading first; a line that was cut off is left out.

    >>> whole_lines("step,a\n1,0.25\n2,0.5\n3,0.")
    [['step', 'a'], ['1', '0.25'], ['2', '0.5']]
    """
    whole, _, _ = text.rpartition("\n")
    lines = list(csv.reader(whole.splitlines()))
    return [line for line in lines if len(line) == len(lines[0])]


def by_name(log: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[int, float]]]:
    """Sort the rows by log key: the steps completed, and the value then."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in log:
        for name, value in row.items():
            found.setdefault(name, []).append((int(row.get("step", 0)), value))
    return found


def _number(text: str) -> float:
    """Read a number; what is empty, or none, is not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan
