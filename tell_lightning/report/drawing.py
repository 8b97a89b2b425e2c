"""The figures of both reports: lines, intervals below each other, and blocks over a run.

Each is made of plain values, and has a title and an `svg()`. Charts and intervals are as wide as a
phone, so that they stand beside each other on a desk and below each other on a phone. Blocks are as
wide as the page. Every figure also says in words what it shows, for screen readers.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from tell_lightning.report.canvas import Axis, Canvas, px, track

WIDTH, HEIGHT, WIDE = 360, 264, 920
"""Size of a chart, and width of blocks, in units that are pixels where there is room for them."""
LINE = 13.0
"""From one line of text to the next."""
NAME_LETTERS, LETTER = 14, 6.4
"""Letters of a line's name before it is broken, and the width of one."""
HEADING = 22.0
"""Height of a heading between rows."""
FULL = 24
"""Columns of blocks that fill the width; fewer leave a part of it empty."""


Interval = tuple[float, float]


class Point(NamedTuple):
    """A value at a place of the x axis, with its interval and the single seeds behind it."""

    x: float
    value: float
    interval: Interval | None = None
    seeds: Sequence[float] = ()


@dataclass(frozen=True)
class Line:
    """One line of a chart, with a band where its points have intervals."""

    name: str
    points: Sequence[Point]
    style: str
    """Classes with its colour and stroke."""
    marked: bool = True
    """Whether every point has a mark; a trace of many points has none."""
    shape: int = 0
    """Number of its marks' shape."""
    hollow: bool = False
    """Whether its marks are hollow: few seeds."""

    @property
    def end(self) -> float:
        """The value beside which its name stands."""
        return max(self.points, key=lambda point: point.x).value

    def draw(self, canvas: Canvas, shift: float, *, bars: bool) -> None:
        """Draw the line with its band or bars, its seeds and its marks.

        Args:
            canvas: The figure.
            shift: Pixels by which seeds stand beside their place, and with bars all else.
            bars: Whether intervals are bars.
        """
        points = sorted(self.points, key=lambda point: point.x)
        beside = [canvas.x(point.x) + shift for point in points]
        places = beside if bars else [canvas.x(point.x) for point in points]
        centre = [(x, canvas.y(point.value)) for x, point in zip(places, points, strict=True)]
        self._draw_intervals(canvas, places, points, bars=bars or len(points) == 1)
        canvas.line(f"line {self.style}", *centre)
        for x, point in zip(beside, points, strict=True):
            for value in point.seeds:
                canvas.dot(f"seed {self.style}", x, canvas.y(value))
        for place in centre if self.marked or len(points) == 1 else ():
            self.draw_mark(canvas, *place)

    def draw_mark(self, canvas: Canvas, x: float, y: float) -> None:
        """Draw one of its marks."""
        canvas.mark(self.style, self.shape, x, y, hollow=self.hollow)

    def words(self) -> str:
        """Say its points, or of a long trace the first, the last and the range."""
        told = [f"{_words(point)} at {point.x:g}" for point in self.points]
        if not any(point.interval for point in self.points):
            values = [point.value for point in self.points]
            told = [told[0], told[-1], f"lowest {min(values):.4g}, highest {max(values):.4g}"]
        return f"{self.name}: {', '.join(told)}"

    def _draw_intervals(
        self, canvas: Canvas, places: Sequence[float], points: Sequence[Point], *, bars: bool
    ) -> None:
        known = [
            (x, *each.interval) for x, each in zip(places, points, strict=True) if each.interval
        ]
        lower = [(x, canvas.y(low)) for x, low, _ in known]
        upper = [(x, canvas.y(high)) for x, _, high in known]
        if known and bars:
            canvas.path(f"bar {self.style}", "".join(map(track, zip(lower, upper, strict=True))))
        elif known:
            canvas.path(f"band {self.style}", f"{track([*upper, *reversed(lower)])}z")


@dataclass(frozen=True)
class Level:
    """A height of a chart that does not depend on x, with a band where it has an interval."""

    name: str
    value: float
    style: str = "level"
    interval: Interval | None = None

    @property
    def end(self) -> float:
        """The value beside which its name stands."""
        return self.value

    def draw(self, canvas: Canvas) -> None:
        """Draw the level over the whole width."""
        if self.interval:
            low, high = map(canvas.y, self.interval)
            corners = [(canvas.left, low), (canvas.right, low)]
            corners += [(canvas.right, high), (canvas.left, high)]
            canvas.path(f"band {self.style}", f"{track(corners)}z")
        canvas.across(f"line {self.style}", canvas.y(self.value))

    def draw_mark(self, canvas: Canvas, x: float, y: float) -> None:
        """Draw a piece of the line as its mark."""
        canvas.line(f"line {self.style}", (x - 4, y), (x + 4, y))

    def words(self) -> str:
        """Say its value."""
        return f"{self.name}: {_words(self)}"


@dataclass(frozen=True)
class Chart:
    """Lines over steps, task examples, general rows or a share."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    levels: Sequence[Level] = ()
    ticks: Mapping[float, str] = field(default_factory=dict)
    """Names of places on the x axis, from its beginning to its end; none: round numbers."""
    logarithmic_x: bool = False
    logarithmic_y: bool = False
    """Whether the y axis is logarithmic where the values differ by a factor of 4 or more."""
    low: float | None = None
    """Where the y axis begins, unless a value is lower; None: a little below the lowest."""
    high: float | None = None
    mark: tuple[str, float] | None = None
    """A named place on the x axis."""
    bars: bool = False
    """Intervals as bars beside each other, not as bands: for few places and many lines."""

    def svg(self) -> str:
        """Draw the lines and levels, each with its name at its end."""
        canvas = Canvas(WIDTH, HEIGHT, "chart", self._x_axis(), self._y_axis(), margin=12)
        x_label, y_label = canvas.x.named(self.x_label), canvas.y.named(self.y_label)
        canvas.y_ticks(canvas.y.ticks(5), y_label)
        canvas.x_ticks(self.ticks or canvas.x.ticks(6, whole=True), x_label)
        if self.mark:
            canvas.upright(*self.mark)
        for level in self.levels:
            level.draw(canvas)
        apart, middle = 5.0 if self.bars else 2.2, (len(self.lines) - 1) / 2
        for place, line in enumerate(self.lines):
            line.draw(canvas, apart * (place - middle), bars=self.bars)
        _draw_names(canvas, self._named)
        told = [each.words() for each in self._named]
        told += [f"{self.mark[0]} at {self.mark[1]:g}"] if self.mark else []
        return canvas.svg(self.title, f"{y_label} over {x_label}. {'; '.join(told)}.")

    @property
    def _named(self) -> list[Line | Level]:
        return [*self.lines, *self.levels]

    def _x_axis(self) -> Axis:
        places = [*self.ticks] or [0.0, *(point.x for line in self.lines for point in line.points)]
        letters = max(len(part) for each in self._named for part in _broken(each.name))
        end = WIDTH - 33 - LETTER * letters
        return Axis(min(places), max(places), 56, end, logarithmic=self.logarithmic_x)

    def _y_axis(self) -> Axis:
        values = [
            value for line in self.lines for point in line.points for value in _numbers(point)
        ]
        values += [value for each in self.levels for value in (each.value, *(each.interval or ()))]
        base, top = HEIGHT - 40, 40 if self.mark else 26
        return Axis.over(
            values, base, top, low=self.low, high=self.high, logarithmic=self.logarithmic_y
        )


@dataclass(frozen=True)
class Row:
    """One estimate of an interval figure, with its name and its number above it."""

    label: str
    text: str
    style: str
    value: float
    interval: Interval | None = None
    seeds: Sequence[float] = ()
    shape: int = 0
    hollow: bool = False
    """Whether its mark is hollow and its text soft: few seeds."""
    beyond: str = ""
    """`right` or `left`: the true value lies beyond what was measured, in that direction."""
    heading: str = ""
    """A text above it."""

    def draw(self, canvas: Canvas, top: float) -> None:
        """Draw the row below a place."""
        soft, middle = " soft" if self.hollow else "", top + 24
        canvas.text(f"name{soft}", self.label, canvas.left, top + 14)
        canvas.text(f"value end{soft}", self.text, canvas.right, top + 14)
        for value in self.seeds:
            canvas.dot(f"seed {self.style}", canvas.x(value), middle + 9)
        if self.interval:
            low, high = map(canvas.x, self.interval)
            path = track([(low, middle), (high, middle)])
            for end, direction, turn in ((low, "left", 5), (high, "right", -5)):
                back = turn if self.beyond == direction else 0
                tips = [(end + back, middle - 4), (end, middle), (end + back, middle + 4)]
                path += track(tips)
            canvas.path(f"whisker {self.style}", path)
        canvas.mark(self.style, self.shape, canvas.x(self.value), middle, hollow=self.hollow)


@dataclass(frozen=True)
class Intervals:
    """Estimates below each other on one axis."""

    title: str
    axis: str
    rows: Sequence[Row]
    references: Sequence[float] = ()
    """Values with an upright line."""
    logarithmic: bool = False
    """Whether the axis is logarithmic where the values differ by a factor of 4 or more."""
    span: Sequence[float] = ()
    """Values that the axis shows at the least."""

    def svg(self) -> str:
        """Draw each name and number, and the interval under them."""
        step = 40 if any(row.seeds for row in self.rows) else 34
        base = 2 + step * len(self.rows) + HEADING * sum(bool(row.heading) for row in self.rows)
        values = [value for row in self.rows for value in _numbers(row)]
        values += [*self.references, *self.span]
        x = Axis.over(values, 8, WIDTH - 8, logarithmic=self.logarithmic)
        canvas = Canvas(WIDTH, base + 40, "rows", x, Axis(0, 1, base, 2))
        label = x.named(self.axis)
        canvas.x_ticks(x.ticks(6), label, grid=True)
        top = 2.0
        for row in self.rows:
            if row.heading:
                canvas.text("heading", row.heading, canvas.left, top + 16)
                top += HEADING
            for value in self.references:  # beside the interval, not through its name
                canvas.line("reference", (x(value), top + 18), (x(value), top + step - 2))
            row.draw(canvas, top)
            top += step
        told = "; ".join(f"{row.label}: {row.text}" for row in self.rows)
        return canvas.svg(self.title, f"{label}. {told}.")


class Block(NamedTuple):
    """A rectangle in values of the axes: its lower left corner, and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Blocks:
    """Coloured blocks over a run: its slots one by one, or shares of them."""

    title: str
    words: str
    """What it shows."""
    x_label: str
    y_label: str
    length: float
    """Where the x axis ends."""
    columns: int
    high: float
    """Where the y axis ends; it begins at 0."""
    y_ticks: Mapping[float, str]
    tall: float
    """Pixels of the y axis."""
    blocks: Mapping[str, Sequence[Block]]
    """By class of their source."""
    note: str = ""
    """What stands beside the title."""
    level: float | None = None
    """A height that is dotted."""
    cycles: Sequence[float] = ()
    """Where cycles begin; they are strokes above the blocks."""
    done: float | None = None
    """Where training ended; None: where the axis ends."""
    mark: tuple[str, float] | None = None
    """A named place on the x axis."""

    def svg(self) -> str:
        """Draw the blocks; what was not trained is veiled."""
        top, left = 46.0, 62.0
        base, width = top + self.tall, (WIDE - left - 14) * min(1.0, self.columns / FULL)
        x, y = Axis(0, self.length, left, left + width), Axis(0, self.high, base, top)
        canvas = Canvas(WIDE, base + 44, "wide", x, y)
        canvas.y_ticks(self.y_ticks, self.y_label)
        canvas.x_ticks(x.ticks(11, whole=True), self.x_label)
        for style, blocks in self.blocks.items():
            canvas.path(f"blocks {style}", "".join(_outline(canvas, block) for block in blocks))
        if self.level is not None:
            canvas.across("level", y(self.level))
        for first, last in pairwise([*self.cycles, self.length] if self.cycles else []):
            canvas.line(
                "cycle", (x(first) + 1, top - 6), (max(x(first) + 1.5, x(last) - 1), top - 6)
            )
        if self.done is not None and self.done < self.length:
            start = x(self.done)
            canvas.add("rect", "veil", x=start, y=top, width=x.end - start, height=self.tall)
            if x.end - start > 90:
                canvas.text(
                    "label middle", "not trained", (start + x.end) / 2, (top + base) / 2 + 4
                )
        if self.mark:
            canvas.upright(*self.mark)
        return canvas.svg(self.title, self.words)


def _numbers(drawn: Point | Row) -> Iterator[float]:
    """Yield every number that an axis must show."""
    yield from (drawn.value, *(drawn.interval or ()), *drawn.seeds)


def _words(drawn: Point | Level) -> str:
    """Say a value with its interval."""
    text = f"{drawn.value:.4g}"
    return text + (" [{:.4g}, {:.4g}]".format(*drawn.interval) if drawn.interval else "")


def _outline(canvas: Canvas, block: Block) -> str:
    """Return the path of a block."""
    left, top = canvas.x(block.x), canvas.y(block.y + block.height)
    width = px(canvas.x(block.x + block.width) - left)
    return f"M{px(left)} {px(top)}h{width}v{px(canvas.y(block.y) - top)}h-{width}z"


def _broken(name: str) -> list[str]:
    """Break a name into the parts that stand below each other."""
    return textwrap.wrap(name, NAME_LETTERS)


def _draw_names(canvas: Canvas, drawn: Sequence[Line | Level]) -> None:
    """Write each name at the end of its line, moved apart where they would touch."""
    drawn = sorted(drawn, key=lambda each: canvas.y(each.end))
    ends = [canvas.y(each.end) for each in drawn]
    heights = [LINE * len(_broken(each.name)) + 2 for each in drawn]
    tops = [end - height / 2 for end, height in zip(ends, heights, strict=True)]
    for above, below in pairwise(range(len(tops))):
        tops[below] = max(tops[below], tops[above] + heights[above])
    limit = canvas.y.start + 12
    for index in reversed(range(len(tops))):
        tops[index] = limit = min(tops[index], limit - heights[index])
    x = canvas.right + 6
    for each, end, top in zip(drawn, ends, tops, strict=True):
        middle = top + LINE / 2 + 1
        canvas.line("leader", (x - 5, end), (x, middle))
        each.draw_mark(canvas, x + 4, middle)
        for number, part in enumerate(_broken(each.name)):
            canvas.text("name", part, x + 11, middle + 4 + LINE * number)
