"""Labels one by one: precision and recall before and after, and what is taken for what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tell_lightning.metrics.label_rates import label_details

MOST_IN_MATRIX = 20
"""With more labels than this, the most frequent confusions are listed instead of a matrix."""
MOST_LISTED = 30
"""Confusions in that list."""
UNREADABLE = "no readable label"

Pairs = Sequence[tuple[str, str | None]]
"""Right label and read label of each row; None: without a readable one."""


@dataclass(frozen=True)
class LabelTables:
    """The tables of one task."""

    columns: list[str]
    """Headings behind that of the label."""
    rates: list[tuple[str, list[str]]]
    """Label, and its rows, precision and recall as they are written."""
    who: str
    """Whose confusions are shown: tuned, or base where there are no answers after training."""
    matrix: list[tuple[str, list[int]]]
    """Right label, and its rows by read label, in the order of `read`; empty with many labels."""
    read: list[str]
    """Headings of the matrix."""
    confused: list[tuple[str, str, int]]
    """With many labels: right label, read label, rows, the most frequent first."""
    left_out: int
    """Confusions that the list does not show."""


def label_tables(found: Mapping[str, Pairs]) -> LabelTables | None:
    """Lay out the labels of a task.

    Args:
        found: The labels of the base and of the tuned model, each where there are answers.

    Returns:
        None where the answers are no labels.
    """
    details = {
        who: label_details(*map(list, zip(*pairs, strict=True)))
        for who, pairs in found.items()
        if pairs
    }
    if not details:
        return None
    labels = sorted({label for each in details.values() for label in each["labels"]})
    who, last = list(details.items())[-1]
    counts = {
        (right, read): rows for right, of in last["confusion"].items() for read, rows in of.items()
    } | {(right, UNREADABLE): rows for right, rows in last["unparseable"].items()}
    confused = sorted(
        ((right, read, rows) for (right, read), rows in counts.items() if right != read),
        key=lambda each: (-each[2], each),
    )
    many = len(labels) > MOST_IN_MATRIX
    read = [*labels, UNREADABLE]
    matrix = [(right, [counts.get((right, each), 0) for each in read]) for right in labels]
    return LabelTables(
        columns=[
            "rows",
            *(f"{who}: {rate}" for who in details for rate in ("precision", "recall")),
        ],
        rates=[(label, _written(label, details)) for label in labels],
        who=who,
        matrix=[] if many else matrix,
        read=read,
        confused=confused[:MOST_LISTED] if many else [],
        left_out=max(0, len(confused) - MOST_LISTED),
    )


def _written(label: str, details: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write the rows, precisions and recalls of a label."""
    found = [each["labels"].get(label) for each in details.values()]
    rows = max(each["rows"] for each in found if each)
    rates = [
        f"{each[rate]:.2f}" if each else "" for each in found for rate in ("precision", "recall")
    ]
    return [f"{rows:,}", *rates]
