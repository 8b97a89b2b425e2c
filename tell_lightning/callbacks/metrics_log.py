"""Read `metrics.csv`, also while its run is going on. Needs neither torch nor Lightning."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the rows in the order of logging. An incomplete last line is left out.

    Returns:
        The finite numbers of each row by log key; no rows if the file does not exist. Every row has
        `step`, the number of optimizer steps completed.
    """
    if not path.is_file():
        return []
    heading, *lines = complete_lines(path.read_text(encoding="utf-8")) or [[]]
    rows = [zip(heading, map(_number, line), strict=True) for line in lines]
    return [{name: value for name, value in row if math.isfinite(value)} for row in rows]


def complete_lines(text: str) -> list[list[str]]:
    r"""Split the file into lines of fields, the heading first. An incomplete line is left out.

    >>> complete_lines("step,a\n1,0.25\n2,0.5\n3,0.")
    [['step', 'a'], ['1', '0.25'], ['2', '0.5']]
    """
    whole, _, _ = text.rpartition("\n")
    lines = list(csv.reader(whole.splitlines()))
    return [line for line in lines if len(line) == len(lines[0])]


def by_name(log: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[int, float]]]:
    """Return the history of each log key as pairs of step and value."""
    history: dict[str, list[tuple[int, float]]] = {}
    for row in log:
        for name, value in row.items():
            history.setdefault(name, []).append((int(row.get("step", 0)), value))
    return history


def _number(text: str) -> float:
    """Read a number; NaN if the text is empty or no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan
