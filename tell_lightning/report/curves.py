"""What is drawn over optimizer steps: losses, dev scores, learning rate.

Enters: `metrics.csv`, and of `run.json` the floors and the step that was kept. Leaves: charts that
have a point or more.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tell_lightning.metrics.score import PRIMARY
from tell_lightning.metrics.score_facts import facts_of
from tell_lightning.report.contents import RunContents, completed, is_training
from tell_lightning.report.drawing import Chart, Level, Line, Point
from tell_lightning.report.forms import scale_of
from tell_lightning.report.plan_figures import source_styles

STEPS = "optimizer steps"
NATS = "nats per label token"
LOSSES = "Loss of dev and held-out rows"


def charts(run: RunContents) -> list[Chart]:
    """Return the charts of a run, those that have something to show."""
    styles = source_styles(run)
    selected = run.selected_step
    mark = None if selected is None else ("adapter kept", float(selected))
    train = [row for row in run.log if is_training(row)]
    dev = dev_scorings(run)
    losses = _lines(((completed(r), r) for r in train), "train/loss/", styles, marked=False)
    held_out = _lines(dev, "val/loss/", styles, marked=True)
    rates = [Point(completed(row), row["train/lr"]) for row in train if "train/lr" in row]
    rate = Line("rate", rates, "ink", marked=False)
    found = [
        Chart("Training loss per source", STEPS, NATS, losses, logarithmic_y=True, mark=mark),
        Chart(LOSSES, STEPS, NATS, held_out, logarithmic_y=True, mark=mark),
        *(_task_chart(run, task, dev, styles, mark) for task in run.tasks),
        *([_choice_chart(dev, mark)] if len(run.tasks) > 1 else []),
        Chart("Learning rate", STEPS, "learning rate", [rate], mark=mark, low=0),
    ]
    return [chart for chart in found if any(line.points for line in chart.lines)]


def dev_scorings(run: RunContents) -> list[tuple[int, Mapping[str, float]]]:
    """Return every scoring on dev: completed steps and what was logged then."""
    return [
        (completed(row), row) for row in run.log if any(name.startswith("val/") for name in row)
    ]


def primary(run: RunContents, task: str) -> str:
    """Name the score that stands for a task."""
    for split in ("test", "dev"):
        for moment in ("after", "before"):
            state = (run.metrics.get(split) or {}).get(moment) or {}
            if task in (state.get("tasks") or {}):
                return str(state["tasks"][task]["primary"])
    return PRIMARY[run.scoring(task).kind]


def _lines(
    rows: Iterable[tuple[int, Mapping[str, float]]],
    start: str,
    styles: Mapping[str, str],
    *,
    marked: bool,
) -> list[Line]:
    points: dict[str, list[Point]] = {}
    for step, row in rows:
        for name, value in row.items():
            if name.startswith(start) and math.isfinite(value):
                points.setdefault(name.removeprefix(start), []).append(Point(step, value))
    order = {name: index for index, name in enumerate(styles)}
    names = sorted(points, key=lambda name: order.get(name, len(order)))
    return [
        Line(name, points[name], styles.get(name, "ink"), marked, shape)
        for shape, name in enumerate(names)
    ]


def _task_chart(
    run: RunContents,
    task: str,
    dev: Iterable[tuple[int, Mapping[str, float]]],
    styles: Mapping[str, str],
    mark: tuple[str, float] | None,
) -> Chart:
    name = primary(run, task)
    label = facts_of(name).label
    key = f"val/{task}/{name}"
    points = [Point(step, row[key]) for step, row in dev if math.isfinite(row.get(key, math.nan))]
    floors: Mapping[str, Any] = ((run.metrics.get("dev") or {}).get("floors") or {}).get(task) or {}
    levels: dict[float, str] = {}
    for floor, scores in floors.items():  # two floors of one height share a line
        value, called = scores["values"].get(name), floor.replace("_", " ")
        if value is not None:
            levels[value] = f"{levels[value]}, {called}" if value in levels else called
    scale, top = scale_of(facts_of(name))
    return Chart(
        f"{task}: {label} on dev",
        STEPS,
        f"{label}, {scale}" if scale else label,
        [Line(task, points, styles.get(task, "ink"))],
        [Level(called, value) for value, called in levels.items()],
        mark=mark,
        low=0,
        high=1 if top == 1 else None,
    )


def _choice_chart(
    dev: Iterable[tuple[int, Mapping[str, float]]], mark: tuple[str, float] | None
) -> Chart:
    """Return what the adapter is chosen by, where that is not the score of the only task."""
    points = [Point(step, row["val/score"]) for step, row in dev if "val/score" in row]
    title = "Dev score, mean of the tasks"
    line = Line("score", points, "ink")
    return Chart(title, STEPS, "score, 0 to 1", [line], mark=mark, low=0, high=1)
