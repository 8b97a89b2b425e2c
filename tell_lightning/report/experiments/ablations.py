"""TELL compared with other arms at the declared number of examples, and the 2 x 2 design."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tell_lightning.experiment.contrasts import DECLARED_N, FAMILY
from tell_lightning.experiment.statistics import sign_flip
from tell_lightning.report.drawing import Chart, Intervals, Row
from tell_lightning.report.experiments.contents import Key
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.sections import (
    Cell,
    Cells,
    Section,
    Table,
    cell,
    line,
    p_value,
    row,
    score_label,
)

EFFECTS: Mapping[str, str] = {
    "mix": "mixing in general data",
    "anchor": "the anchor",
    "interaction": "the anchor more when mixed",
}
COLUMNS = ("TELL less", "Score, points", "p, sign flips", "p after Holm", "Loss, nats", "Seeds")
DIFFERENCES = (
    f"TELL less each arm at {DECLARED_N} task examples, paired on seeds and rows: to the right of "
    "the line TELL is better. Each faint dot is one seed. p is the exact two-sided sign-flip test "
    f"over seeds; Holm adjusts it within the declared family of {len(FAMILY)}. Anchor off, or on: "
    "the same adapter tested on prompts without the anchor, or with one that it never saw. A "
    "response prefix goes with the anchor, and its easy tokens count in the loss: where a task has "
    "one, losses with and without an anchor cannot be compared."
)
DESIGN = (
    f"Both factors at {DECLARED_N} task examples: parallel lines mean that mixing and anchor add "
    "up, a fan that one needs the other. An effect is the mean of the two differences that it "
    "makes; the last row is how much larger the anchor's is when general data are mixed in."
)


def ablations(estimates: Estimates) -> Section:
    """Return the section of the differences."""
    contents = estimates.contents
    figures, tables = [], []
    for testbed, facts in contents.testbeds.items():
        found = sorted(_differences(estimates, testbed), key=lambda each: each[0].hollow)
        if not found:
            continue
        drawn = [row for row, _ in found]
        declared = sum(not row.hollow for row in drawn)
        if 0 < declared < len(drawn):
            heading = f"Exploratory: fewer than {contents.least_seeds} seeds"
            drawn[declared] = replace(drawn[declared], heading=heading)
        axis = f"TELL less the arm, {score_label(facts.score)}"
        figures.append([Intervals(facts.label, axis, drawn, [0.0])])
        tables.append(Table(facts.label, COLUMNS, [cells for _, cells in found]))
    return Section("ablations", "Anchor and order", [DIFFERENCES], figures, tables)


def factors(estimates: Estimates) -> Section:
    """Return the section of the 2 x 2 design."""
    contents = estimates.contents
    figures, tables = [], []
    for testbed, facts in contents.testbeds.items():
        effects = estimates.effects(testbed)
        if not effects:
            continue
        lines = [
            each
            for name, without, arm in (
                ("mixed with general", "mix_without_anchor", "tell"),
                ("task alone", "sft_without_anchor", "sft"),
            )
            for each in line(
                name,
                arm,
                [
                    (x, estimates.of(Key(testbed, one, DECLARED_N)))
                    for x, one in enumerate((without, arm))
                ],
            )
        ]
        ticks = {0.0: "no anchor", 1.0: "anchor"}
        label = score_label(facts.score)
        figures.append([Chart(facts.label, "", label, lines, ticks=ticks, low=0.0, bars=True)])
        rows: list[Cells] = [
            [
                EFFECTS.get(each.name, each.name),
                cell(estimates.known(each), f"effect/{testbed}/{each.name}", change=True),
                p_value(each.p_value),
                str(each.estimate.seeds),
            ]
            for each in effects
        ]
        columns = ["Effect", "Score, points", "p, sign flips", "Seeds"]
        tables.append(Table(facts.label, columns, rows))
    return Section("factorial", "Mixing and anchor, two by two", [DESIGN], figures, tables)


def _differences(estimates: Estimates, testbed: str) -> Iterator[tuple[Row, Cells]]:
    """Compare TELL with every arm of the testbed, those of the family first.

    After them each trained arm comes again, tested with the other anchor setting.

    Yields:
        The row of the figure, and that of the table.
    """
    contents = estimates.contents
    tell = Key(testbed, "tell", DECLARED_N)
    if tell not in contents.groups:
        return
    family = estimates.family(testbed)
    keys = [key for key in contents.keys(testbed) if key.arm != "tell" and key.n in {0, DECLARED_N}]
    order = {arm: index for index, arm in enumerate(FAMILY)}
    keys.sort(key=lambda key: order.get(key.arm, len(order)))
    trained = [key for key in (tell, *keys) if contents.arms[key.arm].trains]
    for key, swapped in [*((key, False) for key in keys), *((key, True) for key in trained)]:
        label, arm = contents.label(key.arm), key.arm
        score = estimates.contrast(tell, key, "score", "swapped" if swapped else None)
        loss = None if swapped else estimates.contrast(tell, key, "loss")
        if score is None:
            continue
        if swapped:
            without = contents.arms[arm].set.get("data.mixture.anchor") == "none"
            label += ", anchor on" if without else ", anchor off"
            arm += "-swapped"
        adjusted = family.get(arm)
        p = adjusted.p_value if adjusted else sign_flip([*score.seeds])
        place = f"{testbed}/{arm}/{DECLARED_N}"
        yield (
            row(label, key.arm, score, change=True),
            [
                label,
                cell(score, f"contrast/{place}", change=True),
                Cell(p_value(p), f"p/{place}"),
                Cell(p_value(adjusted.p_holm) if adjusted else "", f"holm/{place}"),
                cell(loss, f"contrast-loss/{place}", "loss", change=True),
                str(score.estimate.seeds),
            ],
        )
