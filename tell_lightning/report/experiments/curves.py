"""Score and loss against the number of task examples, arm by arm.

Estimates enter; for each testbed two panels and their tables leave. An arm of three sizes or more
is a curve; what was measured at fewer has panels of its own, beside TELL.
"""

from collections.abc import Mapping, Sequence

from tell_lightning.report.experiments.contents import Contents, Key
from tell_lightning.report.experiments.estimates import Estimates, What
from tell_lightning.report.experiments.figures import Panel, Series, Spot, number, panel_svg
from tell_lightning.report.experiments.sections import (
    Cell,
    Figure,
    Section,
    Table,
    contrast_cell,
    estimate_cell,
    points,
    score_label,
    style_of,
)

X_LABEL = "task examples, log scale"
LOSS_LABEL = "Loss of the test rows, nats per token"
CURVE = 3
"""Sizes that make a curve."""


def curves(contents: Contents, estimates: Estimates) -> Section:
    """Return the section of the learning curves."""
    long, short, tables, folded = [], [], [], []
    for testbed in contents.testbeds:
        sizes = _sizes(contents, testbed)
        lines = [arm for arm, found in sizes.items() if len(found) >= CURVE]
        flat = [arm for arm, found in sizes.items() if found == [0]]
        long.append(_pair(estimates, testbed, lines, flat, sizes))
        few = [arm for arm, found in sizes.items() if 1 < len(found) < CURVE]
        if few and "tell" in sizes:
            span = sorted(n for arm in few for n in sizes[arm])
            near = {"tell": [n for n in sizes["tell"] if span[0] <= n <= span[-1]]}
            short.append(_pair(estimates, testbed, ["tell", *few], [], {**sizes, **near}))
        tables.append(_leverage(estimates, testbed))
        folded += [_table(estimates, testbed, what) for what in ("score", "loss")]
    return Section(
        "curves",
        "Score against task examples",
        [
            "Lines are means over seeds, bands and brackets 95% intervals over seeds and test "
            "rows, each faint dot one seed. Below each score is the loss of the same answers: "
            "where a score jumps and the loss does not, the jump is that of the score.",
        ],
        [group for group in (*long, *short) if group],
        [table for table in tables if table],
        [table for table in folded if table],
    )


def _sizes(contents: Contents, testbed: str) -> dict[str, list[int]]:
    sizes: dict[str, list[int]] = {}
    for key in contents.keys(testbed):
        sizes.setdefault(key.arm, []).append(key.n)
    return sizes


def _pair(
    estimates: Estimates,
    testbed: str,
    lines: Sequence[str],
    flat: Sequence[str],
    sizes: Mapping[str, Sequence[int]],
) -> list[Figure]:
    """Draw score and loss of some arms, those of `flat` at one height."""
    facts = estimates.contents.testbeds[testbed]
    ticks = {float(n): number(n) for arm in lines for n in sizes[arm]}
    if not ticks:
        return []
    figures = []
    kind = "" if flat or len(lines) == len(sizes) else ", few sizes"
    both: tuple[tuple[What, str], ...] = (
        ("score", score_label(facts.score)),
        ("loss", LOSS_LABEL),
    )
    for what, y_label in both:
        series = [
            _series(estimates, [Key(testbed, arm, n) for n in sizes[arm]], what, flat=level)
            for arms, level in ((lines, False), (flat, True))
            for arm in arms
        ]
        panel = Panel(
            f"{facts.label}: {y_label}",
            X_LABEL,
            y_label,
            [line for line in series if line is not None],
            ticks,
            logarithmic_y=what == "loss",
            low=0.0 if what == "score" else None,
            bars=len(ticks) <= CURVE and len(lines) > 2,
            levels=[("no skill", facts.chance)] if what == "score" and facts.chance else [],
        )
        if panel.series:
            figures.append(Figure(f"{facts.label}{kind}: {what}", "", panel_svg(panel)))
    return figures


def _series(estimates: Estimates, keys: Sequence[Key], what: What, *, flat: bool) -> Series | None:
    """Make the line of an arm; None where nothing was measured."""
    known = [(key, estimates.of(key, what)) for key in keys]
    spots = [
        Spot(
            float(key.n), found.estimate.value, found.estimate.low, found.estimate.high, found.seeds
        )
        for key, found in known
        if found is not None
    ]
    if not spots:
        return None
    arm = keys[0].arm
    style, mark = style_of(arm)
    few = any(estimates.few(key) for key in keys)
    label = estimates.contents.label(arm)
    return Series(label, style, mark, spots, flat=flat, exploratory=few)


def _leverage(estimates: Estimates, testbed: str) -> Table | None:
    """List what TELL adds to SFT of the same task examples."""
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    rows = []
    for key in contents.keys(testbed, ["tell"]):
        other = Key(testbed, "sft", key.n)
        score = estimates.contrast(key, other)
        if score is None:
            continue
        loss = estimates.contrast(key, other, "loss")
        few = estimates.few(key) or estimates.few(other)
        place = f"{testbed}/tell/{key.n}"
        each = [
            estimate_cell(
                found.estimate if found else None,
                f"score/{testbed}/{one.arm}/{key.n}",
                few=estimates.few(one),
            )
            for one in (key, other)
            for found in (estimates.of(one),)
        ]
        rows.append(
            [
                Cell(number(key.n)),
                *each,
                contrast_cell(score, f"leverage/{place}", few=few),
                contrast_cell(loss, f"leverage-loss/{place}", "loss", few=few),
            ]
        )
    if not rows:
        return None
    columns = ["Task examples", "TELL", "SFT", "Leverage: TELL less SFT", "Loss, TELL less SFT"]
    return Table(f"{facts.label}: {score_label(facts.score)}", columns, rows)


def _table(estimates: Estimates, testbed: str, what: What) -> Table | None:
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    keys = contents.keys(testbed)
    sizes = sorted({key.n for key in keys})
    rows = []
    for arm in dict.fromkeys(key.arm for key in keys):
        cells = [Cell(contents.label(arm))]
        for n in sizes:
            key = Key(testbed, arm, n)
            found = estimates.of(key, what)
            path = f"{what}/{testbed}/{arm}/{n}"
            few = estimates.few(key)
            cells.append(estimate_cell(found.estimate if found else None, path, what, few=few))
        rows.append(cells)
    label = score_label(facts.score) if what == "score" else LOSS_LABEL
    note = f"Without any skill: {points(facts.chance)}." if what == "score" else ""
    columns = ["Arm", *(f"n = {number(n)}" if n else "no examples" for n in sizes)]
    return Table(f"{facts.label}: {label}, each arm", columns, rows, note) if rows else None
