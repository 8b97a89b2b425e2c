"""Sections and tables of the report of experiments, and the format of its numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tell_lightning.experiment.statistics import Estimate
from tell_lightning.metrics.score_facts import facts_of
from tell_lightning.report.canvas import MINUS
from tell_lightning.report.drawing import Chart, Intervals, Level, Line, Point, Row
from tell_lightning.report.experiments.estimates import Known, What

FEW_SIGN = "\N{DAGGER}"
"""Behind an estimate of fewer than 5 seeds."""
LOSS_LABEL = "Loss of the test rows, nats per token"
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
"""Classes and shape of an arm's marks, the same in every figure."""


class Cell(NamedTuple):
    """A number of a table."""

    text: str
    path: str = ""
    """Which number it is, so that it is found on the page: what/testbed/arm/n/variant."""


Cells = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers under headings."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Cells]
    note: str = ""
    words: bool = False
    """Whether its cells are sentences rather than numbers."""

    @property
    def cells(self) -> list[list[Cell]]:
        """All cells, row by row."""
        return [
            [Cell(each) if isinstance(each, str) else each for each in row] for row in self.rows
        ]


@dataclass
class Section:
    """A heading and the content below it; empty groups and tables are left out."""

    id: str
    title: str
    texts: Sequence[str] = ()
    figures: Sequence[Sequence[Chart | Intervals]] = ()
    """Groups, shown side by side; the figures of one group stand above each other."""
    tables: Sequence[Table] = ()
    folded: Sequence[Table] = ()
    """Behind a click on the page."""

    def __post_init__(self) -> None:
        """Leave out what is empty."""
        self.figures = [group for group in self.figures if group]
        self.tables = [table for table in self.tables if table.rows]
        self.folded = [table for table in self.folded if table.rows]

    def add(self, other: "Section", name: str) -> None:
        """Append what another section holds, its titles and its other texts behind a name."""
        texts = [behind(name, text) for text in other.texts if text not in self.texts]
        self.texts = [*self.texts, *texts]
        for group in other.figures:
            named = [replace(each, title=behind(name, each.title)) for each in group]
            self.figures = [*self.figures, named]
        self.tables = [*self.tables, *_named(other.tables, name)]
        self.folded = [*self.folded, *_named(other.folded, name)]


def behind(name: str, text: str) -> str:
    """Write a text behind the name of its suite, if it has one.

    >>> behind("real", "Runs"), behind("", "Runs")
    ('real: Runs', 'Runs')
    """
    return f"{name}: {text}" if name else text


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


def with_interval(found: Estimate, what: What = "score", *, change: bool = False) -> str:
    """Write an estimate with its interval."""
    write = points if what == "score" else nats
    first = signed if change and what == "score" else write
    return f"{first(found.value)} [{write(found.low)}, {write(found.high)}]"


def with_seeds(text: str, *, few: bool) -> str:
    """Append the sign to a number that rests on few seeds."""
    return f"{text} {FEW_SIGN}" if few else text


def cell(found: Known | None, path: str, what: What = "score", *, change: bool = False) -> Cell:
    """Make the cell of an estimate, or of a change; empty where there is none."""
    return Cell(_text(found, what, change=change), path) if found else Cell("")


def row(label: str, arm: str, found: Known, what: What = "score", *, change: bool = False) -> Row:
    """Make the row of an estimate in a figure of intervals."""
    style, shape = style_of(arm)
    text, value = _text(found, what, change=change), found.estimate.value
    return Row(label, text, style, value, found.interval, found.seeds, shape, hollow=found.few)


def line(label: str, arm: str, found: Iterable[tuple[float, Known | None]]) -> list[Line]:
    """Make the line of an arm from its places and estimates; none where nothing is known."""
    known = [(x, each) for x, each in found if each is not None]
    spots = [Point(x, each.estimate.value, each.interval, each.seeds) for x, each in known]
    style, shape = style_of(arm)
    few = any(each.few for _, each in known)
    return [Line(label, spots, style, shape=shape, hollow=few)] if spots else []


def level(label: str, arm: str, found: Known | None) -> list[Level]:
    """Make the level of an arm from its estimate; none where nothing is known."""
    if found is None:
        return []
    return [Level(label, found.estimate.value, style_of(arm)[0], found.interval)]


def score_label(score: str) -> str:
    """Name a score with its unit."""
    label = facts_of(score).label
    return f"{label[0].upper()}{label[1:]}, points"


def style_of(arm: str) -> tuple[str, int]:
    """Return the classes and the shape of an arm."""
    return STYLES.get(arm, ("t6 dotted", 1))


def _named(tables: Sequence[Table], name: str) -> list[Table]:
    return [replace(table, title=behind(name, table.title)) for table in tables]


def _text(found: Known, what: What, *, change: bool) -> str:
    return with_seeds(with_interval(found.estimate, what, change=change), few=found.few)
