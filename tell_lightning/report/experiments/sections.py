"""What a report is made of, before it is Markdown or a page, and how it writes its numbers.

Estimates enter, cells of tables with their text leave. Free.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tell_lightning.experiment.statistics import Contrast, Estimate
from tell_lightning.metrics.score_facts import facts_of
from tell_lightning.report.experiments.figures import MINUS

FEW_SIGN = "\N{DAGGER}"
"""Behind an estimate of fewer than 5 seeds."""
STYLES: Mapping[str, tuple[str, int]] = {
    "tell": ("t1 strong", 0),
    "sft": ("t2 strong", 1),
    "sft_equal_steps": ("t2 dashed", 3),
    "mix_without_anchor": ("t3", 2),
    "general_then_task": ("t4", 3),
    "arbitrary_anchor": ("t5", 1),
    "general_only": ("g2", 2),
    "base": ("g1", 3),
    "sft_without_anchor": ("t2 dotted", 2),
}
"""Classes and mark of an arm, the same in every figure."""


@dataclass(frozen=True)
class Cell:
    """One text of a table."""

    text: str
    path: str = ""
    """Which number it is, so that it is found on the page: what/testbed/arm/n/variant."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    words: bool = False
    """Whether its cells are texts rather than numbers."""


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption."""

    caption: str
    note: str
    svg: str


@dataclass(frozen=True)
class Section:
    """One heading with what stands below it."""

    id: str
    title: str
    texts: Sequence[str] = ()
    figures: Sequence[Sequence[Figure]] = ()
    """Groups; the figures of one stand above each other, groups side by side."""
    tables: Sequence[Table] = ()
    folded: Sequence[Table] = ()
    """Behind a click on the page."""


def style_of(arm: str) -> tuple[str, int]:
    """Return the classes and the mark of an arm."""
    return STYLES.get(arm, ("t6 dotted", 1))


def points(value: float) -> str:
    """Write points from 0 to 100.

    >>> points(3.14159)
    '3.1'
    """
    text = f"{value:.1f}"
    return ("0.0" if text == "-0.0" else text).replace("-", MINUS)


def signed(value: float) -> str:
    """Write a difference of points."""
    text = points(value)
    return text if text.startswith(MINUS) or text == "0.0" else f"+{text}"


def nats(value: float) -> str:
    """Write nats per token."""
    return f"{value:.3f}".replace("-", MINUS)


def p_value(value: float | None) -> str:
    """Write a p-value.

    >>> p_value(0.00195), p_value(0.0001), p_value(None)
    ('0.002', '< 0.001', '')
    """
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def with_interval(found: Estimate, what: str = "score", *, change: bool = False) -> str:
    """Write an estimate with its interval."""
    first = signed if change else points
    write, begin = (nats, nats) if what != "score" else (points, first)
    return f"{begin(found.value)} [{write(found.low)}, {write(found.high)}]"


def estimate_cell(
    found: Estimate | None, path: str, what: str = "score", *, few: bool = False
) -> Cell:
    """Make the cell of an estimate; empty where there is none."""
    if found is None:
        return Cell("")
    return Cell(with_interval(found, what) + (f" {FEW_SIGN}" if few else ""), path)


def contrast_cell(
    found: Contrast | None, path: str, what: str = "score", *, few: bool = False
) -> Cell:
    """Make the cell of a difference; empty where there is none."""
    if found is None:
        return Cell("")
    text = with_interval(found.estimate, what, change=True)
    return Cell(text + (f" {FEW_SIGN}" if few else ""), path)


def score_label(score: str) -> str:
    """Name a score with its unit."""
    label = facts_of(score).label
    return f"{label[0].upper()}{label[1:]}, points"


def plain(texts: Iterable[str]) -> tuple[Cell, ...]:
    """Make cells of texts."""
    return tuple(Cell(text) for text in texts)
