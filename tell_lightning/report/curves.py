"""What is drawn over optimizer steps: losses, dev scores, learning rate.

The points are those of `metrics.csv`; the baselines and the step that was kept come from
`run.json`. A chart without a point is left out.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tell_lightning.metrics.kinds.registry import display_of, primary_of
from tell_lightning.metrics.score_facts import ScoreFacts, facts_of
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


def primary(run: RunContents, task: str) -> tuple[str, ScoreFacts]:
    """Name the score that stands for a task, and what is known of it."""
    for split in ("test", "dev"):
        for moment in ("after", "before"):
            state = (run.metrics.get(split) or {}).get(moment) or {}
            if scores := (state.get("tasks") or {}).get(task):
                name = str(scores["primary"])
                return name, facts_of(name, display_of(scores).facts)
    name = primary_of(run.scoring(task))
    return name, facts_of(name)


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
    name, facts = primary(run, task)
    key = f"val/{task}/{name}"
    points = [Point(step, row[key]) for step, row in dev if math.isfinite(row.get(key, math.nan))]
    found: Mapping[str, Any] = ((run.metrics.get("dev") or {}).get("floors") or {}).get(task) or {}
    levels: dict[float, str] = {}
    for baseline, scores in found.items():  # two of one height share a line
        value, called = scores["values"].get(name), baseline.replace("_", " ")
        if value is not None:
            levels[value] = f"{levels[value]}, {called}" if value in levels else called
    scale, top = scale_of(facts)
    return Chart(
        f"{task}: {facts.label} on dev",
        STEPS,
        f"{facts.label}, {scale}" if scale else facts.label,
        [Line(task, points, styles.get(task, "ink"))],
        [Level(called, value) for value, called in levels.items()],
        mark=mark,
        low=0,
        high=1 if top == 1 and facts.better == "higher" else None,
    )


def _choice_chart(
    dev: Iterable[tuple[int, Mapping[str, float]]], mark: tuple[str, float] | None
) -> Chart:
    """Return what the adapter is chosen by, where that is not the score of the only task."""
    points = [Point(step, row["val/score"]) for step, row in dev if "val/score" in row]
    title = "Dev score, mean of the tasks"
    line = Line("score", points, "ink")
    return Chart(title, STEPS, "score, 0 to 1", [line], mark=mark, low=0, high=1)
