"""How task and general slots interleave over a run, drawn from the plan itself.

Enters: `plan.json`, which holds all that the order depends on but the rows' text: seed, order, and
rows and slots of each source. Leaves: the first slots one by one, and the shares over the whole
run. What stands at a position is looked up in the plan, never estimated; a column that holds more
slots than `MOST` is told by its first ones, and the figure says so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tell_lightning.data.packing import WINDOW
from tell_lightning.data.permutation import ALGORITHM
from tell_lightning.data.plan import Plan, PlanSource
from tell_lightning.report.contents import RunContents
from tell_lightning.report.drawing import Bars, Cells

COLUMNS = 250
"""Columns of cells at most."""
ROWS = 64
"""Cells of a column at most."""
STRETCHES = 100
"""Columns of shares."""
MOST = 8_000
"""Slots of such a column that are looked up at most."""
STYLES = {"task": ("t", 6), "general": ("g", 4)}
"""Class and number of colours."""


@dataclass(frozen=True)
class PlanFigures:
    """The pictures of a plan, or why there are none."""

    cells: Cells | None = None
    bars: Bars | None = None
    notes: tuple[str, ...] = ()


def source_styles(run: RunContents) -> dict[str, str]:
    """Return the class of each source: of the plan where there is one, else of the configuration.

    A name keeps its colour all over the page.
    """
    data = run.config.get("data") or {}
    kinds = [(name, "task") for name in data.get("tasks") or {}]
    kinds += [(name, "general") for name in data.get("general") or {}]
    kinds += [(s["name"], s["kind"]) for s in run.plan.get("sources", [])]
    styles: dict[str, str] = {}
    counts = {"task": 0, "general": 0}
    for name, kind in kinds:
        if name not in styles:
            letter, number = STYLES[kind]
            styles[name] = f"{letter}{counts[kind] % number + 1}"
            counts[kind] += 1
    return styles


def plan_figures(run: RunContents) -> PlanFigures:
    """Draw the plan of a run."""
    plan = _plan(run.plan)
    if plan is None:
        why = "there is no plan.json"
        if run.plan:
            why = f"plan.json is of order {run.plan.get('algorithm')}, this version has {ALGORITHM}"
        return PlanFigures(notes=(f"The order cannot be drawn: {why}.",))
    positions = _positions(run.plan)
    batch = int(run.plan["optimizer_batch"])
    packed = run.plan.get("unit") != "examples"
    notes = []
    if packed:
        notes.append(
            f"Examples are packed into bins within windows of {WINDOW:,} positions; which step "
            "takes which of them depends on their lengths. The x axis is the plan's position."
        )
    by_step = not packed and batch <= ROWS
    trained = None if packed else run.trained_steps * batch
    cells = _cells(run, plan, positions, batch if by_step else 32, trained, by_step=by_step)
    bars, cut = _bars(run, plan, positions, None if packed else batch)
    if cut:
        notes.append(f"Each column of the shares is told by its first {MOST:,} slots.")
    return PlanFigures(cells, bars, tuple(notes))


def _plan(saved: Mapping[str, Any]) -> Plan | None:
    """Make the plan of what is saved; None where this version orders otherwise."""
    if saved.get("algorithm") != ALGORITHM:
        return None
    sources = tuple(PlanSource(**source) for source in saved["sources"])
    return Plan(int(saved["order_seed"]), sources, saved["order"])


def _positions(saved: Mapping[str, Any]) -> int:
    """Count the slots of the run: those that were counted, or more where that was cut short."""
    realised = saved["realised"]
    if realised["complete"] or saved.get("unit") != "examples":
        return int(realised["positions"])
    return int(saved["steps"]) * int(saved["optimizer_batch"])


def _cells(
    run: RunContents,
    plan: Plan,
    positions: int,
    rows: int,
    trained: int | None,
    *,
    by_step: bool,
) -> Cells:
    count = min(positions, rows * COLUMNS)
    whole = count == positions
    columns = math.ceil(count / rows)
    title = f"The first {columns:,} steps, slot by slot"
    if whole:
        title = "Every slot of the run"
    elif not by_step:
        title = f"The first {count:,} slots, one by one"
    styles = source_styles(run)
    mark = None
    if by_step and run.selected_step is not None and run.selected_step <= columns:
        mark = ("adapter kept", float(run.selected_step))
    return Cells(
        title=title,
        x_label="optimizer step" if by_step else "position in the plan",
        y_label="slot of the step" if by_step else "slot",
        sources=plan.at(range(count)).sources.tolist(),
        styles=[styles[source.name] for source in plan.sources],
        names=[source.name for source in plan.sources],
        rows=rows,
        per_column=1 if by_step else rows,
        cycles=range(0, count, plan.cycle) if plan.cycle < count else (),
        done=trained,
        mark=mark,
    )


def _bars(run: RunContents, plan: Plan, positions: int, batch: int | None) -> tuple[Bars, bool]:
    """Return the shares of the tasks' sources (of all, where there is no task) over the run.

    Args:
        run: The run.
        plan: Its plan.
        positions: Slots of the run.
        batch: Slots of a step; None where steps take as many as fit.

    Returns:
        The figure, and whether a column is told by its first slots alone.
    """
    styles = source_styles(run)
    per_x = batch or 1
    tasks = [i for i, source in enumerate(plan.sources) if source.kind == "task"]
    shown = tasks or list(range(len(plan.sources)))
    columns = min(STRETCHES, max(1, math.ceil(positions / per_x)))
    units = math.ceil(positions / per_x)  # whole steps in each column, where there are steps
    edges = [min(positions, round(units * i / columns) * per_x) for i in range(columns + 1)]
    shares, cut = [], False
    for first, last in pairwise(edges):
        looked_at = range(first, min(last, first + MOST))
        cut = cut or looked_at.stop < last
        counts = np.bincount(plan.at(looked_at).sources, minlength=len(plan.sources))
        shares.append([float(counts[index]) / len(looked_at) for index in shown])
    level = ("task share of a cycle", plan.task_share) if 0 < plan.task_share < 1 else None
    mark = None
    if batch and run.selected_step is not None:
        mark = ("adapter kept", float(run.selected_step))
    of = "Task slots" if tasks else "General slots"
    return (
        Bars(
            title=f"{of} over the whole run",
            x_label="optimizer step" if batch else "position in the plan",
            y_label="share of slots",
            shares=shares,
            styles=[styles[plan.sources[index].name] for index in shown],
            names=[plan.sources[index].name for index in shown],
            length=positions / per_x,
            level=level,
            done=float(run.trained_steps) if batch else None,
            mark=mark,
        ),
        cut,
    )
