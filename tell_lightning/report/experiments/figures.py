"""The figures of the experiments: curves with bands and seeds, and intervals below each other.

Enters: named estimates. Leaves: SVG text in the page's colours, drawn for a column that is as wide
as a phone, so that small multiples stand beside each other on a desk and below each other there.
Every line is named at its end; an estimate of few seeds is hollow. Milliseconds.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from xml.etree import ElementTree as ET

from tell_lightning.report.canvas import (
    Axis,
    add_node,
    mark_shape,
    px,
    round_ticks,
    svg_root,
    svg_text,
)

WIDTH, HEIGHT = 360, 264
LINE = 13.0
"""From one line of text to the next."""
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Spot:
    """An estimate at a place of the x axis."""

    x: float
    value: float
    low: float
    high: float
    seeds: Sequence[float] = ()


@dataclass(frozen=True)
class Series:
    """One line with its band, or one height where `flat`."""

    name: str
    style: str
    """Classes with its colour and stroke."""
    mark: int
    """Index of its mark's shape."""
    spots: Sequence[Spot]
    flat: bool = False
    exploratory: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines over task examples, general rows or a share."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    ticks: Mapping[float, str]
    """Names of the places on the x axis."""
    logarithmic_x: bool = True
    logarithmic_y: bool = False
    low: float | None = None
    """Where the y axis begins at the latest."""
    high: float | None = None
    levels: Sequence[tuple[str, float]] = ()
    """Named heights that need no model."""
    bars: bool = False
    """Intervals as bars beside each other instead of bands: for few places and many lines."""


@dataclass(frozen=True)
class Row:
    """One estimate of an interval figure, with its name and its number above it."""

    label: str
    text: str
    style: str
    value: float
    low: float
    high: float
    seeds: Sequence[float] = ()
    mark: int = 0
    exploratory: bool = False
    beyond: str = ""
    """`right` or `left`: the true value lies beyond what was measured, in that direction."""


@dataclass(frozen=True)
class Intervals:
    """Estimates below each other on one axis."""

    title: str
    axis: str
    rows: Sequence[Row]
    references: Sequence[float] = ()
    """Values with an upright line."""
    logarithmic: bool = False
    span: tuple[float, float] | None = None
    """The least that the axis shows."""
    headings: Mapping[int, str] = field(default_factory=dict)
    """Texts above a row, by its index."""


def panel_svg(panel: Panel) -> str:
    """Draw lines with bands, each named at its end."""
    left, right, top, bottom = 40, 102, 26, 40
    if not panel.series:
        return ""
    y_axis, y_ticks = _heights(panel, HEIGHT - bottom, top)
    places = sorted(panel.ticks)
    x_axis = Axis(
        places[0], places[-1], left + 12, WIDTH - right - 10, logarithmic=panel.logarithmic_x
    )
    svg = svg_root(WIDTH, HEIGHT, panel.title, _words(panel), "panel")
    edge = WIDTH - right
    for tick in y_ticks:
        y = px(y_axis(tick))
        add_node(svg, "line", x1=left, x2=edge, y1=y, y2=y, class_="grid")
        add_node(svg, "text", number(tick), x=left - 6, y=px(y_axis(tick) + 4), class_="tick end")
    base = HEIGHT - bottom
    add_node(svg, "line", x1=left, x2=edge, y1=base, y2=base, class_="axis")
    for tick, name in panel.ticks.items():
        x = px(x_axis(tick))
        add_node(svg, "line", x1=x, x2=x, y1=base, y2=base + 4, class_="axis")
        short = name.replace(",000", "k") if len(places) > 4 else name
        add_node(svg, "text", short, x=x, y=base + 17, class_="tick middle")
    add_node(svg, "text", panel.y_label, x=0, y=12, class_="label")
    middle = (left + edge) / 2
    add_node(svg, "text", panel.x_label, x=middle, y=HEIGHT - 4, class_="label middle")
    for name, value in panel.levels:
        y = px(y_axis(value))
        add_node(svg, "line", x1=left, x2=edge, y1=y, y2=y, class_="level")
        add_node(svg, "text", name, x=edge - 3, y=px(y_axis(value) - 4), class_="level-name end")
    for index, series in enumerate(panel.series):
        apart = 5.0 if panel.bars else 2.2
        shift = apart * (index - (len(panel.series) - 1) / 2) if not series.flat else 0.0
        _series(svg, series, x_axis, y_axis, shift, (left, edge), bars=panel.bars)
    _names(svg, panel.series, y_axis, edge + 6, (top, base))
    return svg_text(svg)


def intervals_svg(figure: Intervals) -> str:
    """Draw estimates below each other: name and number, and the interval under them."""
    if not figure.rows:
        return ""
    left, right, top, step, bottom = 8, 8, 2, 40, 40
    heads = 22
    height = top + step * len(figure.rows) + heads * len(figure.headings) + bottom
    finite = [v for row in figure.rows for v in (row.value, row.low, row.high, *row.seeds)]
    finite = [v for v in (*finite, *figure.references, *(figure.span or ())) if math.isfinite(v)]
    low, high = min(finite), max(finite)
    if figure.logarithmic:
        low, high = low / 1.3, high * 1.3
        ticks = _decades(low, high)
    else:
        room = 0.03 * (high - low or 1)
        low, high = low - room, high + room
        ticks = round_ticks(low, high, 6)
    axis = Axis(low, high, left, WIDTH - right, logarithmic=figure.logarithmic)
    svg = svg_root(WIDTH, height, figure.title, _told(figure), "rows")
    base = height - bottom
    for tick in ticks:
        x = px(axis(tick))
        add_node(svg, "line", x1=x, x2=x, y1=top, y2=base, class_="grid")
        add_node(svg, "text", number(tick), x=x, y=base + 15, class_="tick middle")
    add_node(svg, "line", x1=left, x2=WIDTH - right, y1=base, y2=base, class_="axis")
    add_node(svg, "text", figure.axis, x=WIDTH / 2, y=height - 5, class_="label middle")
    y = float(top)
    for index, row in enumerate(figure.rows):
        if index in figure.headings:
            add_node(svg, "text", figure.headings[index], x=left, y=y + 16, class_="heading")
            y += heads
        for value in figure.references:  # beside the interval, not through its name
            place = {"x1": px(axis(value)), "x2": px(axis(value))}
            add_node(svg, "line", **place, y1=y + 18, y2=y + step - 2, class_="reference")
        _row(svg, row, axis, y, (left, WIDTH - right))
        y += step
    return svg_text(svg)


def number(value: float) -> str:
    """Write a number of an axis.

    >>> number(2.5), number(3000)
    ('2.5', '3,000')
    """
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", MINUS)


def _heights(panel: Panel, base: float, top: float) -> tuple[Axis, list[float]]:
    ys = [v for line in panel.series for s in line.spots for v in (s.value, s.low, s.high)]
    ys += [v for line in panel.series for s in line.spots for v in s.seeds]
    ys = [v for v in (*ys, *(value for _, value in panel.levels)) if math.isfinite(v)]
    low, high = min(ys), max(ys)
    if panel.logarithmic_y and low > 0 and high > 4 * low:
        low, high = low / 1.12, high * 1.12
        return Axis(low, high, base, top, logarithmic=True), _decades(low, high)
    room = 0.06 * (high - low or abs(high) or 1)
    wanted = (
        low - room if panel.low is None or low < panel.low else panel.low,
        high + room if panel.high is None or high > panel.high else panel.high,
    )
    return Axis(*wanted, base, top), round_ticks(*wanted, 5)


def _decades(low: float, high: float) -> list[float]:
    """Return round numbers of a logarithmic axis, at most seven if they are not decades."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**power for power in powers for f in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 7:
            break
    return ticks


def _series(
    svg: ET.Element,
    series: Series,
    x_axis: Axis,
    y_axis: Axis,
    shift: float,
    edges: tuple[float, float],
    *,
    bars: bool,
) -> None:
    style = series.style
    if series.flat:
        spot = series.spots[0]
        y, up, down = y_axis(spot.value), y_axis(spot.high), y_axis(spot.low)
        box = {"x": px(edges[0]), "width": px(edges[1] - edges[0])}
        add_node(svg, "rect", y=px(up), height=px(down - up), **box, class_=f"band {style}")
        add_node(svg, "path", d=f"M{px(edges[0])} {px(y)}H{px(edges[1])}", class_=f"line {style}")
        return
    spots = sorted(series.spots, key=lambda spot: spot.x)
    xs = [x_axis(spot.x) + (shift if bars else 0.0) for spot in spots]
    if len(spots) > 1 and not bars:
        upper = [f"{px(x)} {px(y_axis(s.high))}" for x, s in zip(xs, spots, strict=True)]
        lower = [f"{px(x)} {px(y_axis(s.low))}" for x, s in zip(xs, spots, strict=True)]
        band = "M" + "L".join(upper + lower[::-1]) + "z"
        add_node(svg, "path", d=band, class_=f"band {style}")
    if len(spots) > 1:
        line = "M" + "L".join(
            f"{px(x)} {px(y_axis(s.value))}" for x, s in zip(xs, spots, strict=True)
        )
        add_node(svg, "path", d=line, class_=f"line {style}")
    if len(spots) == 1 or bars:
        path = "".join(
            f"M{px(x)} {px(y_axis(spot.low))}V{px(y_axis(spot.high))}"
            for x, spot in zip(xs, spots, strict=True)
        )
        add_node(svg, "path", d=path, class_=f"bar {style}")
    for x, spot in zip(xs, spots, strict=True):
        for value in spot.seeds:
            place = {"cx": px(x if bars else x + shift), "cy": px(y_axis(value))}
            add_node(svg, "circle", **place, r="1.7", class_=f"seed {style}")
    hollow = " hollow" if series.exploratory else ""
    for x, spot in zip(xs, spots, strict=True):
        path = mark_shape(series.mark, x, y_axis(spot.value))
        add_node(svg, "path", d=path, class_=f"spot {style}{hollow}")


def _names(
    svg: ET.Element, lines: Sequence[Series], axis: Axis, x: float, edges: tuple[float, float]
) -> None:
    """Write each name at its line's end, moved apart where they would touch."""
    named = [
        (axis(max(line.spots, key=lambda spot: spot.x).value), index, textwrap.wrap(line.name, 14))
        for index, line in enumerate(lines)
    ]
    named.sort(key=lambda each: (each[0], each[1]))
    heights = [LINE * len(words) + 2 for _, _, words in named]
    tops = [y - height / 2 for (y, _, _), height in zip(named, heights, strict=True)]
    for earlier, later in pairwise(range(len(tops))):
        tops[later] = max(tops[later], tops[earlier] + heights[earlier])
    limit = edges[1] + 12
    for index in reversed(range(len(tops))):
        tops[index] = min(tops[index], limit - heights[index])
        limit = tops[index]
    for top, (y, index, words) in zip(tops, named, strict=True):
        line = lines[index]
        hollow = " hollow" if line.exploratory else ""
        middle = top + LINE / 2 + 1
        add_node(svg, "path", d=f"M{px(x - 5)} {px(y)}L{px(x)} {px(middle)}", class_="leader")
        if line.flat:
            add_node(svg, "path", d=f"M{px(x)} {px(middle)}h8", class_=f"line {line.style}")
        else:
            mark = mark_shape(line.mark, x + 4, middle)
            add_node(svg, "path", d=mark, class_=f"spot {line.style}{hollow}")
        for number_, part in enumerate(words):
            y_text = px(middle + 4 + LINE * number_)
            add_node(svg, "text", part, x=px(x + 11), y=y_text, class_="name")


def _row(svg: ET.Element, row: Row, axis: Axis, y: float, edges: tuple[float, float]) -> None:
    quiet = " soft" if row.exploratory else ""
    add_node(svg, "text", row.label, x=edges[0], y=px(y + 14), class_=f"name{quiet}")
    add_node(svg, "text", row.text, x=edges[1], y=px(y + 14), class_=f"value end{quiet}")
    middle = y + 24
    for value in row.seeds:
        place = {"cx": px(axis(value)), "cy": px(middle + 9)}
        add_node(svg, "circle", **place, r="1.9", class_=f"seed {row.style}")
    low = axis(row.low) if math.isfinite(row.low) else edges[0]
    high = axis(row.high) if math.isfinite(row.high) else edges[1]
    add_node(svg, "path", d=f"M{px(low)} {px(middle)}H{px(high)}", class_=f"whisker {row.style}")
    for end, direction in ((low, "left"), (high, "right")):
        if row.beyond == direction:
            turn = 5 if direction == "left" else -5
            path = f"M{px(end + turn)} {px(middle - 4)}L{px(end)} {px(middle)}l{turn} 4"
        else:
            path = f"M{px(end)} {px(middle - 4)}v8"
        add_node(svg, "path", d=path, class_=f"whisker {row.style}")
    if math.isfinite(row.value):
        hollow = " hollow" if row.exploratory else ""
        path = mark_shape(row.mark, axis(row.value), middle)
        add_node(svg, "path", d=path, class_=f"spot {row.style}{hollow}")


def _words(panel: Panel) -> str:
    parts = []
    for line in panel.series:
        told = ", ".join(
            f"{spot.value:.4g} [{spot.low:.4g}, {spot.high:.4g}]"
            + ("" if line.flat else f" at {spot.x:g}")
            for spot in line.spots
        )
        parts.append(f"{line.name}: {told}")
    return f"{panel.y_label} over {panel.x_label}. " + "; ".join(parts) + "."


def _told(figure: Intervals) -> str:
    return f"{figure.axis}. " + "; ".join(f"{row.label}: {row.text}" for row in figure.rows) + "."
