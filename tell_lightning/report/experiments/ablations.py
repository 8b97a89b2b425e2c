"""What TELL is compared with at the declared number of examples, and the 2 x 2 design.

Estimates enter; for each testbed the differences with every seed, and how mixing and anchor act
alone and together, leave.
"""

from collections.abc import Mapping

from tell_lightning.experiment.contrasts import DECLARED_N, FAMILY
from tell_lightning.experiment.statistics import sign_flip
from tell_lightning.report.experiments.contents import Contents, Key
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.figures import (
    Intervals,
    Panel,
    Row,
    Series,
    Spot,
    intervals_svg,
    panel_svg,
)
from tell_lightning.report.experiments.sections import (
    FEW_SIGN,
    Cell,
    Figure,
    Section,
    Table,
    contrast_cell,
    p_value,
    score_label,
    style_of,
    with_interval,
)

EFFECTS: Mapping[str, str] = {
    "mix": "mixing in general data",
    "anchor": "the anchor",
    "interaction": "the anchor more when mixed",
}


def ablations(contents: Contents, estimates: Estimates) -> Section:
    """Return the section of the differences."""
    figures, tables = [], []
    for testbed, facts in contents.testbeds.items():
        rows, lines = _differences(estimates, testbed)
        if not rows:
            continue
        declared = sum(row.exploratory is False for row in rows)
        headings = {}
        if 0 < declared < len(rows):
            headings = {declared: f"Exploratory: fewer than {contents.least_seeds} seeds"}
        axis = f"TELL less the arm, {score_label(facts.score)}"
        figure = Intervals(f"{facts.label}: {axis}", axis, rows, [0.0], headings=headings)
        figures.append([Figure(facts.label, "", intervals_svg(figure))])
        columns = [
            "TELL less",
            "Score, points",
            "p, sign flips",
            "p after Holm",
            "Loss, nats",
            "Seeds",
        ]
        tables.append(Table(facts.label, columns, lines))
    return Section(
        "ablations",
        "Anchor and order",
        [
            f"TELL less each arm at {DECLARED_N} task examples, paired on seeds and rows: to the "
            "right of the line TELL is better. Each faint dot is one seed. p is the exact "
            "two-sided sign-flip test over seeds; Holm adjusts it within the declared family of "
            f"{len(FAMILY)}. Anchor off, or on: the same adapter tested on prompts without "
            "the anchor, or with one that it never saw. A response prefix goes with the anchor, "
            "and its easy tokens count in the loss: where a task has one, losses with and "
            "without an anchor cannot be compared.",
        ],
        figures,
        tables,
    )


def factors(contents: Contents, estimates: Estimates) -> Section:
    """Return the section of the 2 x 2 design."""
    figures, tables = [], []
    for testbed, facts in contents.testbeds.items():
        effects = estimates.effects(testbed, DECLARED_N)
        if not effects:
            continue
        few = any(each.estimate.seeds < contents.least_seeds for each in effects)
        pairs = (("mix_without_anchor", "tell"), ("sft_without_anchor", "sft"))
        series = []
        for (without, with_anchor), name in zip(
            pairs, ("mixed with general", "task alone"), strict=True
        ):
            spots = []
            for x, arm in ((0.0, without), (1.0, with_anchor)):
                known = estimates.of(Key(testbed, arm, DECLARED_N))
                assert known is not None  # an effect needs all four
                at = known.estimate
                spots.append(Spot(x, at.value, at.low, at.high, known.seeds))
            style, mark = style_of(with_anchor)
            series.append(Series(name, style, mark, spots, exploratory=few))
        label = score_label(facts.score)
        ticks = {0.0: "no anchor", 1.0: "anchor"}
        panel = Panel(
            f"{facts.label}: {label}",
            "",
            label,
            series,
            ticks,
            logarithmic_x=False,
            low=0.0,
            bars=True,
        )
        figures.append([Figure(facts.label, "", panel_svg(panel))])
        tables.append(
            Table(
                facts.label,
                ["Effect", "Score, points", "p, sign flips", "Seeds"],
                [
                    [
                        Cell(EFFECTS.get(each.name, each.name)),
                        Cell(
                            with_interval(each.estimate, change=True)
                            + (f" {FEW_SIGN}" if few else ""),
                            f"effect/{testbed}/{each.name}",
                        ),
                        Cell(p_value(each.p_value)),
                        Cell(str(each.estimate.seeds)),
                    ]
                    for each in effects
                ],
            )
        )
    return Section(
        "factorial",
        "Mixing and anchor, two by two",
        [
            f"Both factors at {DECLARED_N} task examples: parallel lines mean that mixing and "
            "anchor add up, a fan that one needs the other. An effect is the mean of the two "
            "differences that it makes; the last row is how much larger the anchor's is when "
            "general data are mixed in.",
        ],
        figures,
        tables,
    )


def _differences(estimates: Estimates, testbed: str) -> tuple[list[Row], list[list[Cell]]]:
    """Compare TELL with every arm of the testbed, those of the family first."""
    contents = estimates.contents
    tell = Key(testbed, "tell", DECLARED_N)
    if tell not in contents.groups:
        return [], []
    family = estimates.family(testbed, DECLARED_N)
    keys = [key for key in contents.keys(testbed) if key.arm != "tell" and key.n in {0, DECLARED_N}]
    order = {arm: index for index, arm in enumerate(FAMILY)}
    keys.sort(key=lambda key: order.get(key.arm, len(order)))
    rows, lines = [], []
    trained = [key for key in (tell, *keys) if contents.arms[key.arm].trains]
    for key, swapped in [*((key, False) for key in keys), *((key, True) for key in trained)]:
        label, arm = contents.label(key.arm), key.arm
        score = estimates.contrast(tell, key, "score", "swapped" if swapped else None)
        loss = None if swapped else estimates.contrast(tell, key, "loss")
        if swapped:
            given = contents.arms[arm].set.get("data.mixture.anchor") == "none"
            label += ", anchor on" if given else ", anchor off"
            arm += "-swapped"
        if score is None:
            continue
        style, mark = style_of(key.arm)
        at = score.estimate
        few = at.seeds < contents.least_seeds
        text = with_interval(at, change=True)
        rows.append(
            Row(
                label,
                text,
                style,
                at.value,
                at.low,
                at.high,
                tuple(score.deltas.values()),
                mark,
                exploratory=few,
            )
        )
        adjusted = family.get(arm)
        p = adjusted.p_value if adjusted else sign_flip([*score.deltas.values()])
        place = f"{testbed}/{arm}/{DECLARED_N}"
        lines.append(
            [
                Cell(label),
                contrast_cell(score, f"contrast/{place}", few=few),
                Cell(p_value(p), f"p/{place}"),
                Cell(p_value(adjusted.p_holm) if adjusted else "", f"holm/{place}"),
                contrast_cell(loss, f"contrast-loss/{place}", "loss", few=few),
                Cell(str(at.seeds)),
            ]
        )
    # Those of few seeds go last, the order kept.
    places = sorted(range(len(rows)), key=lambda place: rows[place].exploratory)
    return [rows[place] for place in places], [lines[place] for place in places]
