"""How task and general slots interleave over a run, drawn from the plan itself.

`plan.json` holds all that the order depends on but the rows' text: seed, order, and the rows and
slots of each source. So what stands at a position is looked up and never estimated. Where a column
of the shares has more than `MOST` slots, its first ones are counted, and the page says so.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tell_lightning.data.packing import WINDOW
from tell_lightning.data.permutation import ALGORITHM
from tell_lightning.data.plan import Plan, PlanSource
from tell_lightning.report.canvas import round_ticks
from tell_lightning.report.contents import RunContents
from tell_lightning.report.drawing import Block, Blocks

COLUMNS = 250
"""Columns of slots at most."""
ROWS = 64
"""Slots of a column at most."""
READ = 32
"""Slots of a column that is no step."""
STRETCHES = 100
"""Columns of shares."""
MOST = 8_000
"""Slots of such a column that are looked up at most."""
STYLES = {"task": ("t", 6), "general": ("g", 4)}
"""Class and number of colours."""
ORDER = (
    "Which row stands at which position is a pure function of the seed. Each block is one example, "
    "in the order of training"
)


@dataclass(frozen=True)
class PlanFigures:
    """The pictures of a plan, or why there are none."""

    reading: str = ""
    """How to read them."""
    sources: tuple[str, ...] = ()
    figures: tuple[Blocks, ...] = ()
    """The first slots one by one, and the shares over the whole run."""
    notes: tuple[str, ...] = ()


def source_styles(run: RunContents) -> dict[str, str]:
    """Return the class of each source: of the configuration, then of the plan.

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
    notes = []
    batch = int(run.plan["optimizer_batch"]) if run.plan.get("unit") == "examples" else None
    if batch is None:
        notes.append(
            f"Examples are packed into bins within windows of {WINDOW:,} positions; which step "
            "takes which of them depends on their lengths. The x axis is the plan's position."
        )
    slots = _slots(run, plan, positions, batch)
    shares, cut = _shares(run, plan, positions, batch)
    if cut:
        notes.append(f"In each column of the shares its first {MOST:,} slots are counted.")
    step = "a column is one optimizer step"
    how = step if _by_step(batch) else "columns are read downwards, then to the right"
    cycles = "; strokes above are cycles of the plan" if slots.cycles else ""
    names = tuple(source.name for source in plan.sources)
    return PlanFigures(f"{ORDER}: {how}{cycles}.", names, (slots, shares), tuple(notes))


def _plan(saved: Mapping[str, Any]) -> Plan | None:
    """Make the plan of what is saved; None where this version orders otherwise."""
    if saved.get("algorithm") != ALGORITHM:
        return None
    sources = tuple(PlanSource(**source) for source in saved["sources"])
    if not any(source.slots > 0 for source in sources):
        raise ValueError("plan.json: no source has slots")
    return Plan(int(saved["order_seed"]), sources, saved["order"])


def _positions(saved: Mapping[str, Any]) -> int:
    """Count the slots of the run: those that were counted, or more where that was cut short."""
    realised = saved["realised"]
    if realised["complete"] or saved.get("unit") != "examples":
        return int(realised["positions"])
    return int(saved["steps"]) * int(saved["optimizer_batch"])


def _by_step(batch: int | None) -> bool:
    return batch is not None and batch <= ROWS


def _slots(run: RunContents, plan: Plan, positions: int, batch: int | None) -> Blocks:
    """Return the first slots one by one.

    Args:
        run: The run.
        plan: Its plan.
        positions: Slots of the run.
        batch: Slots of a step, which is a column if it is not too tall; None where steps take as
            many as fit.
    """
    by_step = _by_step(batch)
    rows = batch if batch is not None and by_step else READ
    unit = rows if by_step else 1  # slots of a unit of the x axis
    count = min(positions, rows * COLUMNS)
    columns = math.ceil(count / rows)
    title = f"The first {count:,} slots, one by one"
    if count == positions:
        title = "Every slot of the run"
    elif by_step:
        title = f"The first {columns:,} steps, slot by slot"
    styles = source_styles(run)
    names = [source.name for source in plan.sources]
    order = [names[source] for source in plan.at(range(count)).sources.tolist()]
    blocks: dict[str, list[Block]] = defaultdict(list)
    for position, name in enumerate(order):
        column, row = divmod(position, rows)
        blocks[styles[name]].append(Block(column * rows / unit, rows - 1 - row, rows / unit, 1))
    counts = Counter(order)
    told = ", ".join(f"{counts[name]:,} of {name}" for name in names)
    starts = range(0, count, plan.cycle) if plan.cycle < count else ()
    return Blocks(
        title,
        words=f"{count:,} slots in order: {told}.",
        x_label="optimizer step" if by_step else "position in the plan",
        y_label="slot of the step" if by_step else "slot",
        length=columns * rows / unit,
        columns=columns,
        high=rows,
        y_ticks={rows - 0.5: "1", 0.5: str(rows)},
        tall=180 if rows > 1 else 24,
        blocks=blocks,
        cycles=[start / unit for start in starts],
        done=None if batch is None else run.trained_steps * batch / unit,
        mark=_kept(run, columns) if by_step else None,
    )


def _shares(run: RunContents, plan: Plan, positions: int, batch: int | None) -> tuple[Blocks, bool]:
    """Return the shares of the tasks' sources (of all, where there is no task) over the run.

    Returns:
        The figure, and whether only the first slots of its columns are counted.
    """
    unit = batch or 1
    tasks = [index for index, source in enumerate(plan.sources) if source.kind == "task"]
    shown = tasks or list(range(len(plan.sources)))
    units, length = math.ceil(positions / unit), positions / unit
    columns = min(STRETCHES, max(1, units))
    edges = [min(positions, round(units * i / columns) * unit) for i in range(columns + 1)]
    shares, cut = [], False
    for first, last in pairwise(edges):
        looked_at = range(first, min(last, first + MOST))
        cut = cut or looked_at.stop < last
        counts = np.bincount(plan.at(looked_at).sources, minlength=len(plan.sources))
        shares.append(counts[shown] / len(looked_at))
    tops = np.cumsum(shares, axis=1)
    width = length / columns
    blocks: dict[str, list[Block]] = defaultdict(list)
    styles = source_styles(run)
    names = [plan.sources[index].name for index in shown]
    for place, name in enumerate(names):
        blocks[styles[name]] += [
            Block(column * width, tops[column, place] - share[place], width, share[place])
            for column, share in enumerate(shares)
            if share[place]
        ]
    level = plan.task_share if 0 < plan.task_share < 1 else None
    heights = tops[:, -1].tolist()
    high = min(1.0, 1.15 * max(*heights, level or 0.0, 0.01))
    told = ", ".join(
        f"{name} {share:.1%}" for name, share in zip(names, np.mean(shares, axis=0), strict=True)
    )
    figure = Blocks(
        f"{'Task' if tasks else 'General'} slots over the whole run",
        note="" if level is None else f"dotted: task share of a cycle, {level:.1%}",
        words=f"{columns} columns; mean: {told}; all together between {min(heights):.1%} and "
        f"{max(heights):.1%}.",
        x_label="optimizer step" if batch else "position in the plan",
        y_label="share of slots",
        length=length,
        columns=columns,
        high=high,
        y_ticks={tick: f"{100 * tick:g}%" for tick in round_ticks(0, high, 4)},
        tall=120,
        blocks=blocks,
        level=level,
        done=float(run.trained_steps) if batch else None,
        mark=_kept(run, length) if batch else None,
    )
    return figure, cut


def _kept(run: RunContents, steps: float) -> tuple[str, float] | None:
    """Name the step of the adapter that was kept, if it is one of the first so many."""
    if run.selected_step is None or run.selected_step > steps:
        return None
    return "adapter kept", float(run.selected_step)
