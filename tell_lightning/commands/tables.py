"""Scores and plans as tables on the screen."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

SHOWN = {
    "bleu": "{:.1f}",
    "chrf": "{:.1f}",
    "words_recall": "{:.1%}",
    "accuracy": "{:.3f}",
    "balanced_accuracy": "{:.3f}",
    "f1": "{:.3f}",
    "mcc": "{:.3f}",
    "json_valid": "{:.1%}",
    "exact_match": "{:.1%}",
    "stop_rate": "{:.1%}",
}
"""The scores that are shown, with their form; run.json has all."""


def print_rows(rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows of text, the first as the heading; all but the first column to the right."""
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(rows[0]):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    Console(width=None if Console().is_terminal else 110, highlight=False).print(table)


def print_scores(metrics: Mapping[str, Any]) -> None:
    """Print, for each task, its floors, the base before training and the adapter after."""
    split = "test" if metrics.get("test", {}).get("after") else "dev"
    found = metrics.get(split, {})
    tasks = (found.get("after") or {}).get("tasks", {})
    for task, after in tasks.items():
        columns = dict(found["floors"].get(task, {}))
        before = ((found.get("before") or {}).get("tasks") or {}).get(task)
        columns |= {"before": before} if before else {}
        columns |= {"after": after}
        names = [name for name in SHOWN if name in after["values"]]
        rows = [[task, *(column.replace("_", " ") for column in columns)]]
        for name in names:
            cells = (column["values"].get(name) for column in columns.values())
            rows.append([name, *("" if v is None else SHOWN[name].format(v) for v in cells)])
        print_rows(rows, f"{split}, {int(after['values']['rows'])} rows")
