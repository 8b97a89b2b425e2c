"""Tables of scores and plans on the screen: as wide as the terminal, or 100 columns in a pipe."""

import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table

from tell_lightning.metrics.intervals import RESAMPLES
from tell_lightning.metrics.kinds.registry import Display, display_of
from tell_lightning.metrics.score_facts import LOSS as LOSS_FACTS
from tell_lightning.metrics.score_facts import PROBE, ScoreFacts

WIDTH = 100
"""Width of a table that does not go to a terminal, in columns."""
SWAPPED = {"anchor off": "without", "anchor on": "with"}
"""Lines of a table for the test rows with a swapped anchor."""
PROBED = "probe/"
"""How the names of what is measured of chat prompts begin among the scores of a table."""
LOSS = "loss/"
"""How the names of losses begin among the scores of a table."""


def print_rows(rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows of text, the first as the heading; all columns but the first are right-aligned."""
    _console().print(_table(rows, title, "right"))


def print_scores(metrics: Mapping[str, Any]) -> None:
    """Print a table for each task: baselines, the base before training, the adapter after it.

    The last columns are the loss of the task's rows, and the loss of each general source's held-out
    rows, which shows what was forgotten.

    Args:
        metrics: The metrics of `run.json`. The test scores are shown if there are any, else dev.
    """
    split = "test" if metrics.get("test", {}).get("after") else "dev"
    found = metrics.get(split, {})
    moments = {"before": found.get("before"), "after": found.get("after")}
    for line, other in SWAPPED.items():
        moments[line] = metrics.get(f"{split}_{other}_anchor", {}).get("after")
    after = (found.get("after") or {}).get("tasks", {})
    general = _general_sources(moments)
    for task, scores in after.items():
        lines = {name.replace("_", " "): s for name, s in found["floors"].get(task, {}).items()}
        lines |= {
            name: _with_losses(moment, task, general)
            for name, moment in moments.items()
            if moment and task in moment["tasks"]
        }
        losses = [f"{LOSS}{name}" for name in (task, *general)]
        losses += [f"{PROBED}{name}" for name in ("loss", "unchanged")]
        display = display_of(scores)
        names = [name for name in (*display.table, *losses) if name in lines["after"]["values"]]
        scored = list(lines.values())
        columns = [["", *lines], *(_column(name, task, display, scored) for name in names)]
        _print_fitted(columns, f"{task}: {int(scores['values']['rows'])} {split} rows")
    print()
    for line in _notes(moments, general):
        print(line)


def print_next(folder: Path, task: str | None) -> None:
    """Print the run's folder and a command to go on with.

    Args:
        folder: The run's folder, with its adapter.
        task: The task whose anchor the command uses; None if the run has no task.
    """
    print(f"Run: {folder}, with run.json and adapter/")
    if task is None:
        return
    print("Next, answers to the lines that you type:")
    options = shlex.join(["--run", str(folder), "--task", task, "--input", "-"])
    print(f"  python -m tell_lightning predict {options}")


def print_cost(record: Mapping[str, Any]) -> None:
    """Print time, speed and memory of a run in one line.

    Args:
        record: The content of `run.json`.
    """
    seconds = record["seconds"]
    print(
        f"Took {seconds['total']:.0f} s: set-up {seconds['setup']:.0f}, training "
        f"{seconds['training']:.0f}, scoring {seconds['scoring']:.0f}; {record['steps']:,} steps, "
        f"{record['tokens_per_second']:,.0f} tokens/s, peak memory "
        f"{record['peak_memory_bytes'] / 2**30:.2f} GiB."
    )


def _general_sources(moments: Mapping[str, Any]) -> list[str]:
    """Return the names that have a loss and are no tasks."""
    found = [moment for moment in moments.values() if moment]
    names = dict.fromkeys(name for moment in found for name in moment["loss_nats_per_token"])
    return [name for name in names if not any(name in moment["tasks"] for moment in found)]


def _with_losses(moment: Mapping[str, Any], task: str, general: Sequence[str]) -> dict[str, Any]:
    """Add the losses of a task and of the general sources, and the probe, to its scores."""
    scores, losses = moment["tasks"][task], moment["loss_nats_per_token"]
    more = {f"{LOSS}{name}": losses[name] for name in (task, *general) if name in losses}
    more |= {f"{PROBED}{name}": value for name, value in (moment.get("probe") or {}).items()}
    return {**scores, "values": {**scores["values"], **more}}


def _heading(name: str, task: str, facts: ScoreFacts) -> str:
    """Return the heading of a score or loss, with its unit, which the numbers omit."""
    if name.startswith(LOSS):
        source = name.removeprefix(LOSS)
        return facts.label if source == task else f"{facts.label}: {source}"
    return f"{facts.label}, {facts.unit}" if facts.unit else facts.label


def _notes(moments: Mapping[str, Any], general: Sequence[str]) -> Iterator[str]:
    """Explain the lines and columns, and how BLEU and chrF were computed."""
    tasks = (moments["after"] or {}).get("tasks", {})
    if moments["before"]:
        yield "before: the base with the same prompts."
    for line, other in SWAPPED.items():
        if moments[line]:
            few = _fewer(moments[line]["tasks"], tasks)
            yield f"{line}: after training, the prompts {other} the anchor{few}."
    if any(scores.get("intervals") for scores in tasks.values()):
        yield f"[low, high]: 95% interval, from {RESAMPLES:,} draws of the test rows."
    if any("words_recall" in scores["values"] for scores in tasks.values()):
        yield "listed words: share of those in a row's scoring.words_field that its answer holds."
    if (moments["after"] or {}).get("loss_nats_per_token"):
        yield "loss: nats a token of the answers that the rows give."
    if general:
        names = ", ".join(f"loss: {name}" for name in general)
        yield f"{names}: of general rows never trained on; where it rises, something is forgotten."
    if rows := ((moments["after"] or {}).get("probe") or {}).get("rows"):
        yield (
            f"chat: {rows:.0f} short prompts that no training source holds; the loss of the base's "
            "own greedy answers, and the share of them that is kept word for word."
        )
    shown = [(scores, display_of(scores)) for scores in tasks.values()]
    for scores, display in shown:
        primary = display.facts_of(scores["primary"])
        if scores.get("intervals") and scores["primary"] not in scores["intervals"]:
            yield f"{primary.label}: no interval, for it is no sum or mean over rows."
        if "f1" in scores["values"] and display.positive is not None:
            yield f"{display.facts_of('f1').label}: of the label {display.positive}."
        if primary.better == "lower":
            yield f"{primary.label}: lower is better."
    signatures = {
        (display.facts_of(name).label, text)
        for scores, display in shown
        for name, text in scores["signatures"].items()
        if name in display.table
    }
    yield from (f"{name}: {text}" for name, text in sorted(signatures))


def _fewer(tasks: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """Say how many rows were scored, if they are fewer than the others."""
    rows = {name: int(scores["values"]["rows"]) for name, scores in tasks.items()}
    fewer = [n for name, n in rows.items() if name in others and n < others[name]["values"]["rows"]]
    return f" (the first {max(fewer):,} rows)" if fewer else ""


def _column(
    name: str, task: str, display: Display, lines: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return a column: the heading, then the score of each line, aligned."""
    facts = LOSS_FACTS if name.startswith(LOSS) else display.facts_of(name)
    facts = PROBE.get(name.removeprefix(PROBED), facts) if name.startswith(PROBED) else facts
    heading = _heading(name, task, facts)
    values = [
        facts.written(line["values"][name]) if name in line["values"] else "" for line in lines
    ]
    wide = max(map(len, values))
    pairs = zip(values, lines, strict=True)
    cells = [f"{value:>{wide}}{_interval(line, name, facts)}" for value, line in pairs]
    return [_narrow(heading, max(map(len, cells))), *cells]


def _narrow(heading: str, width: int) -> str:
    """Wrap a heading between words if the numbers below it are narrower."""
    words = heading.split()
    return "\n".join(textwrap.wrap(heading, max([width, *map(len, words)]), break_long_words=False))


def _interval(line: Mapping[str, Any], name: str, facts: ScoreFacts) -> str:
    """Return the interval of a score as text; empty if it has none."""
    if name not in line.get("intervals", {}):
        return ""
    low, high = map(facts.written, line["intervals"][name])
    return f" [{low}, {high}]"


def _print_fitted(columns: Sequence[Sequence[str]], title: str) -> None:
    """Print columns of scores; if they are too wide, intervals go below their scores."""
    console = _console()
    rows = list(zip(*columns, strict=True))
    table = _table(rows, title, "left")
    if (
        Measurement.get(console, console.options.update_width(10 * WIDTH), table).maximum
        > console.width
    ):
        table = _table(list(zip(*map(_folded, columns), strict=True)), title, "left")
        table.padding = (0, 1, 0, 0)
    console.print()
    console.print(table)


def _folded(column: Sequence[str]) -> list[str]:
    """Put intervals below their scores, and break the heading anew for the narrower column."""
    heading, *cells = (cell.replace(" [", "\n[") for cell in column)
    widest = max(len(line) for cell in cells for line in cell.split("\n"))
    return [_narrow(heading, widest), *cells]


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
    """Return a console that prints brackets unchanged."""
    width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)
