"""Score and loss against the number of task examples, arm by arm.

An arm of three sizes or more is a curve; one of fewer has charts of its own, beside TELL.
"""

from collections.abc import Mapping, Sequence

from tell_lightning.report.canvas import number
from tell_lightning.report.drawing import Chart, Level
from tell_lightning.report.experiments.contents import Key
from tell_lightning.report.experiments.estimates import Estimates, What
from tell_lightning.report.experiments.sections import (
    LOSS_LABEL,
    Cells,
    Section,
    Table,
    cell,
    level,
    line,
    points,
    score_label,
)

BOTH: tuple[What, What] = ("score", "loss")
CURVE = 3
"""Sizes that make a curve."""
TEXT = (
    "Lines are means over seeds, bands and brackets 95% intervals over seeds and test rows, each "
    "faint dot one seed. Below each score is the loss of the same answers: where a score jumps and "
    "the loss does not, the jump is that of the score."
)


def curves(estimates: Estimates) -> Section:
    """Return the section of the learning curves."""
    contents = estimates.contents
    long, short, tables, folded = [], [], [], []
    for testbed in contents.testbeds:
        sizes: dict[str, list[int]] = {}
        for key in contents.keys(testbed):
            sizes.setdefault(key.arm, []).append(key.n)
        lines = {arm: found for arm, found in sizes.items() if len(found) >= CURVE}
        flat = [arm for arm, found in sizes.items() if found == [0]]
        long.append(_charts(estimates, testbed, "", lines, flat))
        few = {arm: found for arm, found in sizes.items() if 1 < len(found) < CURVE}
        if few and "tell" in sizes:
            span = sorted(n for found in few.values() for n in found)
            near = [n for n in sizes["tell"] if span[0] <= n <= span[-1]]
            short.append(_charts(estimates, testbed, ", few sizes", {"tell": near, **few}, []))
        tables.append(_leverage(estimates, testbed))
        folded += [_table(estimates, testbed, what) for what in BOTH]
    return Section(
        "curves",
        "Score against task examples",
        [TEXT],
        [*long, *short],
        tables,
        folded,
    )


def _charts(
    estimates: Estimates,
    testbed: str,
    kind: str,
    lines: Mapping[str, Sequence[int]],
    flat: Sequence[str],
) -> list[Chart]:
    """Draw score and loss of some arms with their sizes, those of `flat` at one height."""
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    ticks = {float(n): number(n).replace(",000", "k") for ns in lines.values() for n in ns}
    charts = []
    for what in BOTH:
        drawn = [
            each
            for arm, ns in lines.items()
            for each in line(
                contents.label(arm),
                arm,
                [(n, estimates.of(Key(testbed, arm, n), what)) for n in ns],
            )
        ]
        levels = [
            each
            for arm in flat
            for each in level(contents.label(arm), arm, estimates.of(Key(testbed, arm, 0), what))
        ]
        if what == "score" and facts.chance:
            levels.append(Level("no skill", facts.chance))
        chart = Chart(
            f"{facts.label}{kind}: {what}",
            "task examples",
            score_label(facts.score) if what == "score" else LOSS_LABEL,
            drawn,
            levels,
            ticks,
            logarithmic_x=True,
            logarithmic_y=what == "loss",
            low=0.0 if what == "score" else None,
            bars=len(ticks) <= CURVE and len(lines) > 2,
        )
        charts += [chart] if drawn else []
    return charts


def _leverage(estimates: Estimates, testbed: str) -> Table:
    """List what TELL adds to SFT of the same task examples."""
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    rows: list[Cells] = []
    for key in contents.keys(testbed, ["tell"]):
        other = key._replace(arm="sft")
        gain, place = estimates.contrast(key, other), f"{testbed}/tell/{key.n}"
        if gain is not None:
            loss = estimates.contrast(key, other, "loss")
            rows.append(
                [
                    number(key.n),
                    cell(estimates.of(key), f"score/{testbed}/tell/{key.n}"),
                    cell(estimates.of(other), f"score/{testbed}/sft/{key.n}"),
                    cell(gain, f"leverage/{place}", change=True),
                    cell(loss, f"leverage-loss/{place}", "loss"),
                ]
            )
    columns = ["Task examples", "TELL", "SFT", "Leverage: TELL less SFT", "Loss, TELL less SFT"]
    return Table(f"{facts.label}: {score_label(facts.score)}", columns, rows)


def _table(estimates: Estimates, testbed: str, what: What) -> Table:
    """List every arm at every size."""
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    keys = contents.keys(testbed)
    sizes = sorted({key.n for key in keys})
    rows: list[Cells] = [
        [
            contents.label(arm),
            *(
                cell(estimates.of(Key(testbed, arm, n), what), f"{what}/{testbed}/{arm}/{n}", what)
                for n in sizes
            ),
        ]
        for arm in dict.fromkeys(key.arm for key in keys)
    ]
    label = score_label(facts.score) if what == "score" else LOSS_LABEL
    note = f"Without any skill: {points(facts.chance)}." if what == "score" else ""
    columns = ["Arm", *(f"n = {number(n)}" if n else "no examples" for n in sizes)]
    return Table(f"{facts.label}: {label}, each arm", columns, rows, note)
