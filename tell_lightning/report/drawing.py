"""Small figures as SVG that wears the page's colours: charts of lines, intervals, cells and bars.

Enters: named numbers. Leaves: SVG text in which colours are classes of the page's style sheet, so
that one figure is right on light and on dark paper, and in which text is text. That is why these
are not matplotlib's, whose SVG fixes every colour and every font. Each figure carries a title and a
description in words. Milliseconds.

    t1 t2 ...  classes of the tasks, in the plan's order      g1 g2 ...  of the general sources
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from xml.etree import ElementTree as ET

from tell_lightning.report.canvas import (
    Axis,
    add_node,
    cut,
    mark_shape,
    px,
    round_ticks,
    svg_root,
    svg_text,
)

WIDTH, HEIGHT = 440, 264
"""Of a chart, in units that are pixels where the page is wide enough."""
WIDE = 920
"""Of a figure over the page's whole width."""
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    points: list[Point]
    style: str
    """Class with its colour."""
    marked: bool = False
    """Whether every point has a mark: few measurements, not a trace."""


@dataclass(frozen=True)
class Chart:
    """Lines over optimizer steps."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    levels: list[tuple[str, float]] = field(default_factory=list)
    """Named heights: what needs no model."""
    mark: tuple[str, float] | None = None
    """A named place on the x axis."""
    low: float | None = None
    """Where the y axis begins; None: below the lowest point."""
    high: float | None = None
    logarithmic: bool = False


@dataclass(frozen=True)
class Estimate:
    """A score with its interval, one row of an interval figure."""

    label: str
    value: float
    text: str
    bounds: tuple[float, float] | None = None
    style: str = "quiet"


@dataclass(frozen=True)
class Cells:
    """The stream as columns of cells, read downwards and then to the right."""

    title: str
    x_label: str
    y_label: str
    sources: Sequence[int]
    """Index of the source in each cell."""
    styles: Sequence[str]
    """Class of each source."""
    names: Sequence[str]
    rows: int
    per_column: float
    """What a column stands for on the x axis: 1 step, or so many examples."""
    cycles: Sequence[int] = ()
    """Cells before which a cycle begins."""
    done: int | None = None
    """Cells that were trained; None: all."""
    mark: tuple[str, float] | None = None


@dataclass(frozen=True)
class Bars:
    """Shares over the run, one stacked column a stretch."""

    title: str
    x_label: str
    y_label: str
    shares: Sequence[Sequence[float]]
    """For each column the share of each source, 0 to 1."""
    styles: Sequence[str]
    names: Sequence[str]
    length: float
    """Where the x axis ends."""
    level: tuple[str, float] | None = None
    """A height that is dotted; its name stands in the caption."""
    done: float | None = None
    mark: tuple[str, float] | None = None


def chart_svg(chart: Chart) -> str:
    """Draw lines over steps, each named at its end."""
    named = len(chart.lines) > 1
    left, right, top, bottom = 64, 96 if named else 16, 26, 42
    xs = [x for line in chart.lines for x, _ in line.points]
    ys = [y for line in chart.lines for _, y in line.points] + [y for _, y in chart.levels]
    x_axis = Axis(min(0.0, *xs), max(xs), left, WIDTH - right)
    low, high, y_ticks = _y_range(chart, ys)
    y_axis = Axis(low, high, HEIGHT - bottom, top, logarithmic=chart.logarithmic)
    svg = svg_root(WIDTH, HEIGHT, chart.title, describe(chart), "chart")
    _y_ticks(svg, y_axis, y_ticks, left, WIDTH - right)
    _x_ticks(svg, x_axis, HEIGHT - bottom)
    _labels(svg, chart.x_label, chart.y_label, (left, WIDTH - right), HEIGHT, (top, bottom))
    if chart.mark:
        _mark(svg, chart.mark, x_axis, top, HEIGHT - bottom)
    _levels(svg, chart.levels, y_axis, left, WIDTH - right)
    for index, line in enumerate(chart.lines):
        spots = [(x_axis(x), y_axis(y)) for x, y in line.points]
        path = "M" + "L".join(f"{px(x)} {px(y)}" for x, y in spots)
        add_node(svg, "path", d=path, class_=f"line {line.style}")
        if line.marked or len(spots) == 1:
            for spot in spots:
                add_node(svg, "path", d=mark_shape(index, *spot), class_=f"spot {line.style}")
    if named:
        _line_names(svg, chart.lines, y_axis, WIDTH - right + 7, top)
    return svg_text(svg)


def describe(chart: Chart) -> str:
    """Say in words what a chart shows."""
    parts = []
    for line in chart.lines:
        (first_x, first), (last_x, last) = line.points[0], line.points[-1]
        low, high = min(y for _, y in line.points), max(y for _, y in line.points)
        parts.append(
            f"{line.name}: {first:.4g} at {first_x:g}, {last:.4g} at {last_x:g}, "
            f"lowest {low:.4g}, highest {high:.4g}"
        )
    parts += [f"{name}: {value:.4g} throughout" for name, value in chart.levels]
    parts += [f"{chart.mark[0]} at {chart.mark[1]:g}"] if chart.mark else []
    return f"{chart.y_label} over {chart.x_label}. " + "; ".join(parts) + "."


def intervals_svg(title: str, axis: str, estimates: Sequence[Estimate], top_value: float) -> str:
    """Draw estimates with their intervals below each other, from 0 (or lower) to `top_value`."""
    left, right, step, bottom = 126, 66, 26, 40
    height = step * len(estimates) + bottom + 8
    values = [v for each in estimates for v in (each.value, *(each.bounds or ()))]
    x_axis = Axis(min(0.0, *values), max(top_value, *values), left, WIDTH - right)
    told = "; ".join(
        f"{each.label}: {each.text}"
        + (f", 95% interval {each.bounds[0]:.4g} to {each.bounds[1]:.4g}" if each.bounds else "")
        for each in estimates
    )
    svg = svg_root(WIDTH, height, title, f"{axis}. {told}.", "intervals")
    base = height - bottom
    for tick in round_ticks(x_axis.low, x_axis.high, 6):
        x = px(x_axis(tick))
        add_node(svg, "line", x1=x, x2=x, y1=4, y2=base, class_="grid")
        add_node(svg, "text", f"{tick:g}", x=x, y=base + 15, class_="tick middle")
    add_node(svg, "text", axis, x=(left + WIDTH - right) / 2, y=height - 6, class_="label middle")
    for row, each in enumerate(estimates):
        y = 8.0 + step * row + step / 2
        add_node(svg, "text", cut(each.label, 16), x=left - 10, y=y + 4, class_="name end")
        add_node(svg, "text", each.text, x=WIDTH - right + 10, y=y + 4, class_="value")
        if each.bounds:
            x1, x2 = (x_axis(bound) for bound in each.bounds)
            add_node(svg, "path", d=f"M{px(x1)} {y}H{px(x2)}", class_=f"whisker {each.style}")
            for end in (x1, x2):
                add_node(svg, "path", d=f"M{px(end)} {y - 4}v8", class_=f"whisker {each.style}")
        shape = 3 if each.style == "quiet" else 0
        add_node(
            svg, "path", d=mark_shape(shape, x_axis(each.value), y), class_=f"spot {each.style}"
        )
    return svg_text(svg)


def cells_svg(cells: Cells) -> str:
    """Draw the stream cell by cell."""
    left, right, top, bottom = 62, 14, 34, 44
    columns = math.ceil(len(cells.sources) / cells.rows)
    width = (WIDE - left - right) / max(columns, 24)
    height = max(3.0, min(width, 14.0), 180 / cells.rows) if cells.rows > 1 else 24.0
    tall = height * cells.rows
    total = top + tall + bottom
    counts = [sum(source == i for source in cells.sources) for i in range(len(cells.names))]
    told = ", ".join(f"{n:,} of {name}" for n, name in zip(counts, cells.names, strict=True))
    svg = svg_root(
        WIDE, total, cells.title, f"{len(cells.sources):,} slots in order: {told}.", "wide"
    )
    gap_x, gap_y = (min(0.22 * width, 1.2), min(0.22 * height, 1.2))
    for index, style in enumerate(cells.styles):
        path = "".join(
            f"M{px(left + n // cells.rows * width)} {px(top + n % cells.rows * height)}"
            f"h{px(width - gap_x)}v{px(height - gap_y)}h-{px(width - gap_x)}z"
            for n, source in enumerate(cells.sources)
            if source == index
        )
        if path:
            add_node(svg, "path", d=path, class_=f"cells {style}")
    x_axis = Axis(0, columns * cells.per_column, left, left + columns * width)
    _x_ticks(svg, x_axis, top + tall, most=11)
    for row in sorted({0, cells.rows - 1}):
        y = top + row * height + height / 2 + 4
        add_node(svg, "text", str(row + 1), x=left - 7, y=px(y), class_="tick end")
    _labels(svg, cells.x_label, cells.y_label, (left, WIDE - right), total, (top, bottom))
    _cycles(svg, cells, x_axis, top - 9)
    if cells.done is not None and cells.done < len(cells.sources):
        x = left + cells.done / cells.rows * width
        _veil(svg, x, left + columns * width, top, tall)
    if cells.mark:
        _mark(svg, cells.mark, x_axis, top - 12, top + tall)
    return svg_text(svg)


def bars_svg(bars: Bars) -> str:
    """Draw shares as stacked columns over the whole run."""
    left, right, top, bottom, tall = 62, 14, 30, 44, 120
    total = top + tall + bottom
    heights = [sum(column) for column in bars.shares]
    wanted = max(*heights, bars.level[1] if bars.level else 0.0, 0.01)
    high = min(1.0, round_ticks(0.0, 1.15 * wanted, 4)[-1] or 1.0)
    high = high if high >= wanted else min(1.0, 1.15 * wanted)
    mean = [sum(column) / len(column) for column in zip(*bars.shares, strict=True)]
    told = ", ".join(f"{name} {share:.1%}" for name, share in zip(bars.names, mean, strict=True))
    told += f"; all together between {min(heights):.1%} and {max(heights):.1%}"
    svg = svg_root(WIDE, total, bars.title, f"{len(bars.shares)} columns; mean: {told}.", "wide")
    x_axis = Axis(0, bars.length, left, WIDE - right)
    y_axis = Axis(0, high, top + tall, top)
    _y_ticks(svg, y_axis, round_ticks(0.0, high, 4), left, WIDE - right, percent=True)
    width = (WIDE - right - left) / len(bars.shares)
    gap = min(0.22 * width, 1.2)
    paths = ["" for _ in bars.names]
    for column, shares in enumerate(bars.shares):
        below = 0.0
        for index, share in enumerate(shares):
            if share:
                y, foot = y_axis(below + share), y_axis(below)
                x = left + column * width
                paths[index] += f"M{px(x)} {px(y)}h{px(width - gap)}V{px(foot)}H{px(x)}z"
            below += share
    for path, style in zip(paths, bars.styles, strict=True):
        if path:
            add_node(svg, "path", d=path, class_=f"cells {style}")
    _x_ticks(svg, x_axis, top + tall, most=11)
    _labels(svg, bars.x_label, bars.y_label, (left, WIDE - right), total, (top, bottom))
    if bars.level:
        _levels(svg, [("", bars.level[1])], y_axis, left, WIDE - right)
    if bars.done is not None and bars.done < bars.length:
        _veil(svg, x_axis(bars.done), WIDE - right, top, tall)
    if bars.mark:
        _mark(svg, bars.mark, x_axis, top, top + tall)
    return svg_text(svg)


def _y_range(chart: Chart, ys: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return where the y axis begins and ends, and its ticks."""
    low, high = min(ys), max(ys)
    if chart.logarithmic:
        low, high = low / 1.15, high * 1.15
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        factors = (1,) if last - first > 3 else (1, 3) if last - first > 1 else (1, 2, 5)
        ticks = [f * 10.0**e for e in range(first, last + 1) for f in factors]
        return low, high, [tick for tick in ticks if low <= tick <= high]
    low = low if chart.low is None else min(chart.low, low)
    high = high if chart.high is None else max(chart.high, high)
    room = 0.06 * (high - low or abs(high) or 1)
    high = high if chart.high == high else high + room
    low = low if chart.low == low else low - room
    return low, high, round_ticks(low, high, 5)


def _y_ticks(
    svg: ET.Element,
    axis: Axis,
    ticks: Iterable[float],
    left: float,
    right: float,
    *,
    percent: bool = False,
) -> None:
    for tick in ticks:
        y = axis(tick)
        add_node(svg, "line", x1=left, x2=right, y1=px(y), y2=px(y), class_="grid")
        text = f"{100 * tick:g}%" if percent else f"{tick:g}"
        text = text.replace("-", "\N{MINUS SIGN}")
        add_node(svg, "text", text, x=left - 7, y=px(y + 4), class_="tick end")


def _x_ticks(svg: ET.Element, axis: Axis, y: float, *, most: int = 6) -> None:
    add_node(svg, "line", x1=px(axis.start), x2=px(axis.end), y1=px(y), y2=px(y), class_="axis")
    for tick in round_ticks(axis.low, axis.high, most):
        if tick == int(tick):
            x = axis(tick)
            add_node(svg, "line", x1=px(x), x2=px(x), y1=px(y), y2=px(y + 4), class_="axis")
            add_node(svg, "text", f"{tick:,.0f}", x=px(x), y=px(y + 17), class_="tick middle")


def _labels(
    svg: ET.Element,
    x_label: str,
    y_label: str,
    across: tuple[float, float],
    height: float,
    margins: tuple[float, float],
) -> None:
    x = sum(across) / 2
    add_node(svg, "text", x_label, x=px(x), y=px(height - 5), class_="label middle")
    top, bottom = margins
    y = (top + height - bottom) / 2
    add_node(
        svg, "text", y_label, transform=f"translate(11 {px(y)}) rotate(-90)", class_="label middle"
    )


def _mark(svg: ET.Element, mark: tuple[str, float], axis: Axis, top: float, bottom: float) -> None:
    """Draw a named upright line; the name stands above it, or beside it at the edges."""
    name, value = mark
    x = axis(value)
    add_node(svg, "line", x1=px(x), x2=px(x), y1=px(top), y2=px(bottom), class_="mark")
    half = 3.1 * len(name)
    side = "end" if x + half > axis.end + 8 else "start" if x - half < axis.start else "middle"
    add_node(svg, "text", name, x=px(x), y=px(top - 7), class_=f"mark-name {side}")


def _levels(
    svg: ET.Element, levels: Sequence[tuple[str, float]], axis: Axis, left: float, right: float
) -> None:
    taken: list[float] = []
    for _, value in levels:
        y = axis(value)
        add_node(svg, "line", x1=left, x2=right, y1=px(y), y2=px(y), class_="level")
    for name, value in sorted(levels, key=lambda level: level[1]):
        place = axis(value) - 4
        while any(abs(place - other) < 12 for other in taken):
            place -= 12
        taken.append(place)
        add_node(svg, "text", name, x=right - 3, y=px(place), class_="level-name end")


def _line_names(svg: ET.Element, lines: Sequence[Line], axis: Axis, x: float, top: float) -> None:
    """Write each name at the end of its line, moved apart where they would touch."""
    gap = 14.0
    ends = sorted((axis(line.points[-1][1]), index) for index, line in enumerate(lines))
    places = [y for y, _ in ends]
    for earlier, later in pairwise(range(len(places))):
        places[later] = max(places[later], places[earlier] + gap)
    over = places[-1] - axis.start
    if over > 0:
        places[-1] -= over
        for later, earlier in pairwise(reversed(range(len(places)))):
            places[earlier] = max(top, min(places[earlier], places[later] - gap))
    for place, (_, index) in zip(places, ends, strict=True):
        line = lines[index]
        add_node(svg, "path", d=mark_shape(index, x + 3, place), class_=f"spot {line.style}")
        add_node(svg, "text", cut(line.name), x=x + 11, y=px(place + 4), class_="name")


def _cycles(svg: ET.Element, cells: Cells, axis: Axis, y: float) -> None:
    """Draw each cycle as a stroke above its cells, with gaps between them."""
    if not cells.cycles:
        return
    ends = [*cells.cycles[1:], len(cells.sources)]
    scale = (axis.end - axis.start) / (len(cells.sources) / cells.rows)
    path = ""
    for first, last in zip(cells.cycles, ends, strict=True):
        x1 = axis.start + first / cells.rows * scale
        x2 = axis.start + last / cells.rows * scale
        path += f"M{px(x1 + 1)} {px(y)}H{px(max(x1 + 1.5, x2 - 1))}"
    add_node(svg, "path", d=path, class_="cycle")


def _veil(svg: ET.Element, start: float, end: float, top: float, tall: float) -> None:
    """Cover what was planned and not trained."""
    box = {"x": px(start), "y": px(top - 1), "width": px(end - start), "height": px(tall + 1)}
    add_node(svg, "rect", **box, class_="veil")
    if end - start > 90:
        middle = {"x": px((start + end) / 2), "y": px(top + tall / 2 + 4)}
        add_node(svg, "text", "not trained", **middle, class_="label middle")
