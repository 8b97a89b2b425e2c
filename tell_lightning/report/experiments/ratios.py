"""The data-equivalence ratio: figure and table, in task examples and in tokens.

Estimates enter; for each testbed one figure at the declared number of examples and a table of all
leave.
"""

from collections.abc import Mapping
from typing import Any

from tell_lightning.experiment.contrasts import DECLARED_N
from tell_lightning.experiment.equivalence import Bound, Equivalence, Ratio
from tell_lightning.report.experiments.contents import Contents
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.figures import Intervals, Row, intervals_svg, number
from tell_lightning.report.experiments.sections import (
    FEW_SIGN,
    Cell,
    Figure,
    Section,
    Table,
    style_of,
)

DRAWN = ("sft", "sft_equal_steps", "general_only", "general_then_task")
"""Arms whose ratio is drawn; the tables have all."""
AXIS = "times as much for the same score, log scale"


def ratios(contents: Contents, estimates: Estimates) -> Section:
    """Return the section of the ratios."""
    rule = _thresholds(contents)
    figures, tables, folded = [], [], []
    for testbed, facts in contents.testbeds.items():
        sizes = [key.n for key in contents.keys(testbed, ["tell"])]
        arms = [arm for arm in _curved(contents, testbed) if arm != "tell"]
        found = {
            (arm, n): ratio
            for arm in arms
            for n in sizes
            if (n == DECLARED_N or arm == "sft")
            and (ratio := estimates.ratio(testbed, arm, n)) is not None
        }
        if not found:
            continue
        rows = [
            row
            for (arm, n), ratio in found.items()
            if n == DECLARED_N and arm in DRAWN
            for row in _rows(contents, arm, ratio)
        ]
        title = f"{facts.label}, for {DECLARED_N} examples of TELL"
        figure = Intervals(title, AXIS, rows, [1.0, *rule], logarithmic=True, span=(0.5, 12.0))
        if rows:
            figures.append([Figure(title, "", intervals_svg(figure))])
        declared = {each: ratio for each, ratio in found.items() if each[1] == DECLARED_N}
        tables.append(_table(contents, testbed, declared))
        folded.append(_table(contents, testbed, found))
    lines = " and ".join(number(each) for each in rule)
    return Section(
        "der",
        "Data-equivalence ratio",
        [
            "How many task examples another arm needs, for one of TELL's, to score as TELL does; "
            "and how many tokens it trains on, task and general, for one of TELL's: below 1 the "
            "general data cost more than they save. An arm that never gets there within its sizes "
            "has a lower bound (≥, arrow), one that is there at its smallest an upper bound (≤)."
            + (f" Upright lines: 1, and the rule's {lines}." if rule else ""),
        ],
        figures,
        [table for table in tables if table.rows],
        [table for table in folded if table.rows],
    )


def _thresholds(contents: Contents) -> list[float]:
    for study in contents.studies:
        rule: Mapping[str, Any] = study.experiment.rule
        if study.experiment.kind == "tenfold":
            return [float(rule["refuted_below"]), float(rule["reproduced_from"])]
    return []


def _curved(contents: Contents, testbed: str) -> list[str]:
    sizes: dict[str, set[int]] = {}
    for key in contents.keys(testbed):
        if key.n:
            sizes.setdefault(key.arm, set()).add(key.n)
    return [arm for arm, found in sizes.items() if len(found) > 1]


def _rows(contents: Contents, arm: str, found: Equivalence) -> list[Row]:
    style, mark = style_of(arm)
    label = contents.label(arm)
    few = found.seeds < contents.least_seeds
    rows = [_row(f"{label}, examples", found.examples, style, mark, few=few)]
    if found.tokens:
        rows.append(_row(f"{label}, tokens", found.tokens, style, mark, few=few))
    return rows


def _row(label: str, ratio: Ratio, style: str, mark: int, *, few: bool) -> Row:
    beyond = "right" if ratio.high.side == "at_least" else ""
    beyond = "left" if ratio.low.side == "at_most" and not beyond else beyond
    text = written(ratio) + (f" {FEW_SIGN}" if few else "")
    bounds = (ratio.value.value, ratio.low.value, ratio.high.value)
    return Row(label, text, style, *bounds, mark=mark, exploratory=few, beyond=beyond)


def written(ratio: Ratio) -> str:
    """Write a ratio with its interval."""
    return f"{bound(ratio.value)} [{bound(ratio.low)}, {bound(ratio.high)}]"


def times(ratio: Ratio) -> str:
    """Write a ratio as a multiple: 5.2x [3.9, 7.5], with the sign of multiplication."""
    first, rest = written(ratio).split(" [")
    return f"{first}\N{MULTIPLICATION SIGN} [{rest}"


def bound(found: Bound) -> str:
    """Write a ratio or what bounds it.

    >>> bound(Bound(30.0, "at_least"))
    '≥ 30'
    """
    return str(found).replace(">=", "≥").replace("<=", "≤")


def _table(contents: Contents, testbed: str, found: Mapping[tuple[str, int], Equivalence]) -> Table:
    rows = []
    for (arm, n), ratio in found.items():
        few = f" {FEW_SIGN}" if ratio.seeds < contents.least_seeds else ""
        place = f"{testbed}/{arm}/{n}"
        rows.append(
            [
                Cell(contents.label(arm)),
                Cell(number(n)),
                Cell(written(ratio.examples) + few, f"der/{place}"),
                Cell(written(ratio.tokens) + few if ratio.tokens else "", f"der-tokens/{place}"),
                Cell(number(ratio.seeds)),
            ]
        )
    columns = ["Against", "TELL's examples", "Ratio in examples", "Ratio in tokens", "Seeds"]
    return Table(contents.testbeds[testbed].label, columns, rows)
