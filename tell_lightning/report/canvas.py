"""What every figure is drawn with: an axis, round ticks, marks, and SVG nodes.

Colours are classes of the page's style sheet, so that one figure is right on light and on dark
paper. Numbers enter, nodes and their text leave. Free.
"""

import math
from collections.abc import Mapping
from xml.etree import ElementTree as ET

NAME_LETTERS = 13
"""Letters of a line's name that are written at its end."""


SHAPES = (
    "M{x} {y}m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z",
    "M{x} {y}m-3.3 -3.3h6.6v6.6h-6.6z",
    "M{x} {y}m0 -4.2l4.2 7.4h-8.4z",
    "M{x} {y}m0 -4.4l4.4 4.4l-4.4 4.4l-4.4 -4.4z",
)
"""Circle, square, triangle, diamond: a series is known without its colour."""


class Axis:
    """A value becomes a place."""

    def __init__(
        self, low: float, high: float, start: float, end: float, *, logarithmic: bool = False
    ) -> None:
        """Map low..high to start..end; an empty range is widened."""
        self.low, self.high = low, high if high > low else low + 1
        self.start, self.end, self.logarithmic = start, end, logarithmic

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


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


def svg_root(width: float, height: float, title: str, description: str, class_: str) -> ET.Element:
    """Begin a figure that tells in words what it shows."""
    svg = ET.Element("svg", {"viewBox": f"0 0 {px(width)} {px(height)}", "class": class_})
    svg.set("role", "img")
    svg.set("aria-label", f"{title}. {description}")
    add_node(svg, "desc", description)
    return svg


def mark_shape(index: int, x: float, y: float) -> str:
    """Return the path of a mark; the same index has the same shape."""
    return SHAPES[index % len(SHAPES)].format(x=px(x), y=px(y))


def cut(name: str, letters: int = NAME_LETTERS) -> str:
    """Shorten a name."""
    return name if len(name) <= letters else name[: letters - 1] + "…"


def px(value: float) -> str:
    """Write a place with two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def add_node(
    parent: ET.Element, tag: str, text: str | None = None, **attributes: str | float
) -> ET.Element:
    """Add a node; `class_` becomes `class`, and a fraction is written as a place."""
    named: Mapping[str, str] = {
        name.rstrip("_"): px(value) if isinstance(value, float) else str(value)
        for name, value in attributes.items()
    }
    node = ET.SubElement(parent, tag, dict(named))
    node.text = text
    return node


def svg_text(svg: ET.Element) -> str:
    """Write a figure as text."""
    return ET.tostring(svg, encoding="unicode")
