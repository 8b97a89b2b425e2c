"""The parts of a figure: SVG nodes, axes with round ticks, marks and labels.

Not matplotlib's, because its figures make the pages twice as large (1,007 KiB instead of 444), a
run's report 0.8 s slower and text on phones too small (each node has its own font and size), and
need as much code: names at the ends of lines are placed by hand there, too.

Colours, fonts and strokes are classes of the page's style sheet, so that one figure is right on
light and dark pages and on a phone. Text stays text.
"""

import math
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree as ET

MINUS = "\N{MINUS SIGN}"
MOST_LOG_TICKS = 7
SHAPES = (
    "m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z",
    "m-3.3 -3.3h6.6v6.6h-6.6z",
    "m0 -4.2l4.2 7.4h-8.4z",
    "m0 -4.4l4.4 4.4l-4.4 4.4l-4.4 -4.4z",
)
"""Circle, square, triangle, diamond: lines differ by more than their colour."""


class Axis:
    """Maps values to places in pixels."""

    def __init__(
        self, low: float, high: float, start: float, end: float, *, logarithmic: bool = False
    ) -> None:
        """Map low..high to start..end; an empty range is widened."""
        self.low, self.high = low, high if high > low else low + 1
        self.start, self.end, self.logarithmic = start, end, logarithmic

    @classmethod
    def over(
        cls,
        values: Iterable[float],
        start: float,
        end: float,
        *,
        low: float | None = None,
        high: float | None = None,
        logarithmic: bool = False,
    ) -> "Axis":
        """Map all values, with some room beyond them.

        Args:
            values: What is drawn; what is not finite is left out.
            start: Place of the lowest value, in pixels.
            end: Place of the highest.
            low: Value at which the axis begins, unless a value lies below it.
            high: Value at which it ends, unless a value lies above it.
            logarithmic: Whether a logarithmic scale is taken where values are positive and differ
                by a factor of 4 or more.
        """
        finite = [value for value in values if math.isfinite(value)]
        least, most = min(finite), max(finite)
        if logarithmic and most > 4 * least > 0:
            return cls(least / 1.15, most * 1.15, start, end, logarithmic=True)
        room = 0.06 * (most - least or abs(most) or 1)
        first = least - room if low is None or least < low else low
        last = most + room if high is None or most > high else high
        return cls(first, last, start, end)

    def __call__(self, value: float) -> float:
        """Return the place of a value; one outside, or none at all (NaN), is put on the edge."""
        low, high = self.low, self.high
        value = min(high, max(low, value))
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int, *, whole: bool = False) -> dict[float, str]:
        """Return round values and how they are written, about `most` of them, or whole ones."""
        if self.logarithmic:
            values = log_ticks(self.low, self.high)
        else:
            values = round_ticks(self.low, self.high, most)
        return {value: number(value) for value in values if not whole or value == int(value)}

    def named(self, label: str) -> str:
        """Say beside the axis's label that it is logarithmic."""
        return f"{label}, log scale" if self.logarithmic else label


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from low to high, about as many as wanted.

    >>> round_ticks(0, 47, 5)
    [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    rough = (high - low or 1) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 12) + 0.0 for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers of a logarithmic axis, at most seven unless they are decades.

    >>> log_ticks(0.8, 30)
    [1.0, 2.0, 5.0, 10.0, 20.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= MOST_LOG_TICKS:
            break
    return ticks


def number(value: float) -> str:
    """Write a number of an axis.

    >>> number(2.5), number(3000)
    ('2.5', '3,000')
    """
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", MINUS)


def px(value: float) -> str:
    """Write a place with two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def track(points: Iterable[tuple[float, float]]) -> str:
    """Return the path through some places."""
    return "M" + "L".join(f"{px(x)} {px(y)}" for x, y in points)


class Canvas:
    """A figure that is being drawn, with its two axes."""

    def __init__(
        self, width: float, height: float, class_: str, x: Axis, y: Axis, margin: float = 0
    ) -> None:
        """Begin a figure.

        Args:
            width: Of the figure in pixels.
            height: Of the figure.
            class_: Class of the SVG node.
            x: Maps values to places from the left to the right.
            y: Maps values to places from the bottom of the plot to its top.
            margin: Pixels by which the plot is wider than the x axis, on both sides.
        """
        self.height, self.x, self.y = height, x, y
        self.left, self.right = x.start - margin, x.end + margin
        self._root = ET.Element("svg", {"viewBox": f"0 0 {px(width)} {px(height)}"})
        self._root.attrib |= {"class": class_, "role": "img"}

    def add(self, tag: str, class_: str, text: str | None = None, **places: float) -> None:
        """Add a node; what is not class or text is a place or a length in pixels."""
        written = {name: px(value) for name, value in places.items()}
        ET.SubElement(self._root, tag, {**written, "class": class_}).text = text

    def text(self, class_: str, text: str, x: float, y: float) -> None:
        """Write a text; `middle` or `end` in its class say which part of it is at the place."""
        self.add("text", class_, text, x=x, y=y)

    def path(self, class_: str, path: str) -> None:
        """Draw a path."""
        ET.SubElement(self._root, "path", {"d": path, "class": class_})

    def line(self, class_: str, *points: tuple[float, float]) -> None:
        """Draw a line through some places."""
        self.path(class_, track(points))

    def across(self, class_: str, y: float) -> None:
        """Draw a line over the whole width of the plot."""
        self.line(class_, (self.left, y), (self.right, y))

    def dot(self, class_: str, x: float, y: float) -> None:
        """Draw a small dot: one seed."""
        self.add("circle", class_, cx=x, cy=y, r=1.8)

    def mark(self, style: str, shape: int, x: float, y: float, *, hollow: bool) -> None:
        """Draw a mark; the same number has the same shape."""
        path = f"M{px(x)} {px(y)}{SHAPES[shape % len(SHAPES)]}"
        self.path(f"spot {style} hollow" if hollow else f"spot {style}", path)

    def x_ticks(self, ticks: Mapping[float, str], label: str, *, grid: bool = False) -> None:
        """Draw the x axis below the plot, with ticks or upright lines, and its label."""
        base = self.y.start
        for value, text in ticks.items():
            x = self.x(value)
            self.line("grid" if grid else "axis", (x, self.y.end if grid else base + 4), (x, base))
            self.text("tick middle", text, x, base + 17)
        self.across("axis", base)
        self.text("label middle", label, (self.left + self.right) / 2, self.height - 4)

    def y_ticks(self, ticks: Mapping[float, str], label: str) -> None:
        """Draw a line across the plot for each tick; the label stands over the plot's corner."""
        for value, text in ticks.items():
            y = self.y(value)
            self.across("grid", y)
            self.text("tick end", text, self.left - 6, y + 4)
        self.text("label", label, 0, 12)

    def upright(self, name: str, value: float) -> None:
        """Draw a dotted upright line; its name is above it, moved where it would leave the plot."""
        x, half = self.x(value), 3.1 * len(name)
        side = "end" if x + half > self.right + 8 else "start" if x - half < 0 else "middle"
        self.line("mark", (x, self.y.end - 9), (x, self.y.start))
        self.text(f"mark-name {side}", name, x, self.y.end - 12)

    def svg(self, title: str, words: str) -> str:
        """Return the figure as text; a screen reader reads its title and what it shows in words."""
        self._root.set("aria-label", f"{title}. {words}")
        return ET.tostring(self._root, encoding="unicode")
