"""The data-equivalence ratio: figure and table, in task examples and in tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

from tell_lightning.experiment.contrasts import DECLARED_N
from tell_lightning.experiment.equivalence import Equivalence, Ratio
from tell_lightning.report.canvas import number
from tell_lightning.report.drawing import Intervals, Row
from tell_lightning.report.experiments.contents import Contents
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.sections import (
    Cell,
    Cells,
    Section,
    Table,
    style_of,
    with_seeds,
)

DRAWN = ("sft", "sft_equal_steps", "general_only", "general_then_task")
"""Arms whose ratio is drawn; the tables have all."""
COLUMNS = ("Against", "TELL's examples", "Ratio in examples", "Ratio in tokens", "Seeds")
TEXT = (
    "How many task examples another arm needs, for one of TELL's, to score as TELL does; and how "
    "many tokens it trains on, task and general, for one of TELL's: below 1 the general data cost "
    "more than they save. An arm that never gets there within its sizes has a lower bound (≥, "
    "arrow), one that is there at its smallest an upper bound (≤)."
)


def ratios(estimates: Estimates) -> Section:
    """Return the section of the ratios: at the declared number of examples, and of SFT at all."""
    contents = estimates.contents
    rule = _thresholds(contents)
    figures, tables, folded = [], [], []
    for testbed, facts in contents.testbeds.items():
        found = {
            (arm, key.n): ratio
            for arm in _curved(contents, testbed)
            for key in contents.keys(testbed, ["tell"])
            if key.n == DECLARED_N or arm == "sft"
            if (ratio := estimates.ratio(testbed, arm, key.n)) is not None
        }
        declared = {each: ratio for each, ratio in found.items() if each[1] == DECLARED_N}
        rows = [
            row
            for (arm, _), ratio in declared.items()
            if arm in DRAWN
            for row in _rows(estimates, arm, ratio)
        ]
        title = f"{facts.label}, for {DECLARED_N} examples of TELL"
        axis, lines = "times as much for the same score", [1.0, *rule]
        if rows:
            span = (0.5, 12.0)
            figures.append([Intervals(title, axis, rows, lines, logarithmic=True, span=span)])
        tables.append(_table(estimates, testbed, declared))
        folded.append(_table(estimates, testbed, found))
    lines_text = f" Upright lines: 1, and the rule's {' and '.join(map(number, rule))}."
    return Section(
        "der",
        "Data-equivalence ratio",
        [TEXT + (lines_text if rule else "")],
        figures,
        tables,
        folded,
    )


def times(ratio: Ratio) -> str:
    """Write a ratio as a multiple: 5.2x [3.9, 7.5], with the sign of multiplication."""
    return str(ratio).replace(" [", "\N{MULTIPLICATION SIGN} [")


def _thresholds(contents: Contents) -> list[float]:
    """Return the ratios that the rule of the claim names."""
    for study in contents.studies:
        rule: Mapping[str, Any] = study.experiment.rule
        if study.experiment.kind == "tenfold":
            return [float(rule["refuted_below"]), float(rule["reproduced_from"])]
    return []


def _curved(contents: Contents, testbed: str) -> list[str]:
    """Name the arms, TELL left out, with task examples of more than one size."""
    sizes: dict[str, set[int]] = {}
    for key in contents.keys(testbed):
        if key.n and key.arm != "tell":
            sizes.setdefault(key.arm, set()).add(key.n)
    return [arm for arm, found in sizes.items() if len(found) > 1]


def _rows(estimates: Estimates, arm: str, found: Equivalence) -> Iterator[Row]:
    """Yield the rows of an arm: examples and, where they are known, tokens."""
    style, shape = style_of(arm)
    few = estimates.few(found.seeds)
    for what, ratio in (("examples", found.examples), ("tokens", found.tokens)):
        if ratio is None:
            continue
        beyond = "left" if ratio.low.side == "at_most" else ""
        yield Row(
            f"{estimates.contents.label(arm)}, {what}",
            with_seeds(str(ratio), few=few),
            style,
            ratio.value.value,
            (ratio.low.value, ratio.high.value),
            shape=shape,
            hollow=few,
            beyond="right" if ratio.high.side == "at_least" else beyond,
        )


def _table(
    estimates: Estimates, testbed: str, found: Mapping[tuple[str, int], Equivalence]
) -> Table:
    rows: list[Cells] = []
    for (arm, n), ratio in found.items():
        few, place = estimates.few(ratio.seeds), f"{testbed}/{arm}/{n}"
        tokens = with_seeds(str(ratio.tokens), few=few) if ratio.tokens else ""
        rows.append(
            [
                estimates.contents.label(arm),
                number(n),
                Cell(with_seeds(str(ratio.examples), few=few), f"der/{place}"),
                Cell(tokens, f"der-tokens/{place}"),
                number(ratio.seeds),
            ]
        )
    return Table(estimates.contents.testbeds[testbed].label, COLUMNS, rows)
