"""Scores and plans as tables on the screen: a terminal's width, or 100 columns in a pipe."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table

from tell_lightning.metrics.intervals import RESAMPLES
from tell_lightning.metrics.score import PRIMARY

WIDTH = 100
"""Columns of a table that does not go to a terminal."""
FORMS = {
    "bleu": ("BLEU", "{:.1f}", 1),
    "chrf": ("chrF", "{:.1f}", 1),
    "words_recall": ("listed words, %", "{:.1f}", 100),
    "balanced_accuracy": ("balanced accuracy", "{:.2f}", 1),
    "f1": ("F1", "{:.2f}", 1),
    "mcc": ("MCC", "{:.2f}", 1),
    "json_valid": ("valid JSON, %", "{:.0f}", 100),
    "exact_match": ("exact match, %", "{:.1f}", 100),
    "stop_rate": ("stopped, %", "{:.0f}", 100),
}
"""Heading, form and factor of the scores that are shown."""
SHOWN = {
    "bleu": ("bleu", "chrf", "words_recall", "stop_rate"),
    "balanced_accuracy": ("balanced_accuracy", "f1", "mcc", "json_valid"),
    "exact_match": ("exact_match", "words_recall", "stop_rate"),
}
"""What is shown of a task by its primary score; run.json has all."""
assert set(SHOWN) == set(PRIMARY.values())


def print_rows(rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows of text, the first as the heading; all but the first column to the right."""
    _console().print(_table(rows, title, "right"))


def print_scores(metrics: Mapping[str, Any]) -> None:
    """Print for each task its floors, the base before training and the adapter after.

    Args:
        metrics: What `run.json` holds of them; of test where it was scored, else of dev.
    """
    split = "test" if metrics.get("test", {}).get("after") else "dev"
    found = metrics.get(split, {})
    after = (found.get("after") or {}).get("tasks", {})
    before = (found.get("before") or {}).get("tasks", {})
    for task, scores in after.items():
        lines = {name.replace("_", " "): s for name, s in found["floors"].get(task, {}).items()}
        lines |= {"before (adapter off)": before[task]} if task in before else {}
        lines |= {"after": scores}
        names = [name for name in SHOWN[scores["primary"]] if name in scores["values"]]
        columns = [["", *lines], *(_column(name, list(lines.values())) for name in names)]
        _print_fitted(columns, f"{task}: {int(scores['values']['rows'])} {split} rows")
    print()
    for line in _notes(after):
        print(line)


def print_next(folder: Path, task: str | None) -> None:
    """Print the run's folder and a command to go on with.

    Args:
        folder: The run's folder, with its adapter.
        task: Whose anchor the command puts on; None where the run knows no task.
    """
    print(f"Run: {folder}, with run.json and adapter/")
    if task is None:
        return
    print("Next, answers to the lines that you type:")
    print(f"  python -m tell_lightning predict --run {folder} --task {task} --input -")


def print_cost(record: Mapping[str, Any]) -> None:
    """Print time, speed and memory of a run in one line.

    Args:
        record: What `run.json` holds.
    """
    seconds = record["seconds"]
    print(
        f"Took {seconds['total']:.0f} s, {seconds['training']:.0f} s of it training and scoring "
        f"dev: {record['steps']:,} steps, {record['tokens_per_second']:,.0f} tokens/s, "
        f"peak memory {record['peak_memory_bytes'] / 2**30:.2f} GiB."
    )


def _notes(tasks: Mapping[str, Any]) -> Iterator[str]:
    """Say what stands in brackets, and how BLEU and chrF were computed."""
    if any(scores.get("intervals") for scores in tasks.values()):
        yield f"[low, high]: 95% interval, from {RESAMPLES:,} draws of the test rows."
    if any("words_recall" in scores["values"] for scores in tasks.values()):
        yield "listed words: share of those in a row's scoring.words_field that its answer holds."
    signatures = {
        (FORMS[name][0], text)
        for scores in tasks.values()
        for name, text in scores["signatures"].items()
        if name in FORMS
    }
    yield from (f"{name}: {text}" for name, text in sorted(signatures))


def _column(name: str, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write a score of each line below its heading, the numbers below each other."""
    heading, form, factor = FORMS[name]
    values = [
        form.format(line["values"][name] * factor) if name in line["values"] else ""
        for line in lines
    ]
    wide = max(map(len, values))
    pairs = zip(values, lines, strict=True)
    return [heading, *(f"{value:>{wide}}{_interval(line, name)}" for value, line in pairs)]


def _interval(line: Mapping[str, Any], name: str) -> str:
    """Write the interval of a score behind it; nothing where there is none."""
    if name not in line.get("intervals", {}):
        return ""
    _, form, factor = FORMS[name]
    low, high = (form.format(bound * factor) for bound in line["intervals"][name])
    return f" [{low}, {high}]"


def _print_fitted(columns: Sequence[Sequence[str]], title: str) -> None:
    """Print columns of scores; where the width does not do, intervals go below their scores."""
    console = _console()
    rows = list(zip(*columns, strict=True))
    table = _table(rows, title, "left")
    if (
        Measurement.get(console, console.options.update_width(10 * WIDTH), table).maximum
        > console.width
    ):
        table = _table([[cell.replace(" [", "\n[") for cell in row] for row in rows], title, "left")
    console.print()
    console.print(table)


def _table(rows: Sequence[Sequence[str]], title: str, justify: JustifyMethod) -> Table:
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for index, name in enumerate(rows[0]):
        table.add_column(name, justify="left" if index == 0 else justify, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _console() -> Console:
    """Make a console that takes brackets as they are."""
    width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)
