"""One change at a time around the centre: amount of general data, task share, parts, bases.

The variants of the pooled results enter, grouped by the beginning of their names (`share_0.05`,
`share_0.2` are one dial). Where a dial is a number, leverage and loss are drawn against it; where
it is a name, each setting has its interval.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tell_lightning.experiment.contrasts import DECLARED_N
from tell_lightning.experiment.statistics import Estimate
from tell_lightning.report.experiments.contents import Contents, Key
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.figures import (
    Intervals,
    Panel,
    Row,
    Series,
    Spot,
    intervals_svg,
    number,
    panel_svg,
)
from tell_lightning.report.experiments.sections import (
    FEW_SIGN,
    Cell,
    Figure,
    Section,
    Table,
    contrast_cell,
    estimate_cell,
    score_label,
    style_of,
    with_interval,
)

LABELS = {
    "first": "general rows",
    "general": "general rows",
    "kind": "kind of general data",
    "share": "task share",
    "parts": "parts of the composition in the general data",
    "base": "base",
    "prior": "prior of the test rows",
    "steps": "optimizer steps",
    "lr": "learning rate",
}
"""What a dial is called, by the beginning of its variants' names."""
CENTRE = "centre"
"""What is run without a variant."""
GENERAL = "data.general."
MIXTURE = (GENERAL, "data.mixture.")
"""Keys that change nothing for an arm that trains on the task alone."""
LOSS = "Loss of the test rows, nats per token"


def dials(contents: Contents, estimates: Estimates) -> list[Section]:
    """Return one section a dial."""
    found: dict[str, dict[str, list[Key]]] = {}
    names = sorted({key.variant for key in contents.groups if key.variant})
    starts = Counter(name.partition("_")[0] for name in names)
    for key in contents.groups:
        if key.variant:
            start = key.variant.partition("_")[0]
            dial = start if starts[start] > 1 or start in LABELS else key.variant
            settings = contents.settings.get(key.variant, {})
            if start not in LABELS and all(name.startswith(GENERAL) for name in settings):
                dial = "kind"
            found.setdefault(dial, {}).setdefault(key.testbed, []).append(key)
    order = {name: index for index, name in enumerate(LABELS)}
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    return [_section(contents, estimates, name, found[name]) for name in names]


def scale(contents: Contents, variants: Sequence[str]) -> dict[str, float] | None:
    """Read the number that each variant sets, or that its name ends with; None: names."""
    settings = {name: contents.settings.get(name, {}) for name in variants}
    keys = {key for values in settings.values() for key in values}
    numeric = [
        key
        for key in sorted(keys)
        if all(_is_number(values.get(key)) for values in settings.values())
        and len({values[key] for values in settings.values()}) == len(settings)
    ]
    if len(numeric) == 1:
        return {name: float(values[numeric[0]]) for name, values in settings.items()}
    try:
        return {name: float(name.rpartition("_")[2]) for name in variants}
    except ValueError:
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _section(
    contents: Contents, estimates: Estimates, dial: str, by_testbed: Mapping[str, Sequence[Key]]
) -> Section:
    label = LABELS.get(dial, dial.replace("_", " "))
    figures, tables = [], []
    numeric = False
    for testbed in contents.testbeds:
        keys = list(by_testbed.get(testbed, ()))
        if not keys:
            continue
        variants = [name for name in contents.settings if any(key.variant == name for key in keys)]
        places = scale(contents, variants)
        if places is not None:
            variants.sort(key=lambda name: places[name])
            numeric = True
        arms = [arm for arm in contents.arms if any(key.arm == arm for key in keys)]
        keys.sort(key=lambda key: (arms.index(key.arm), key.n, variants.index(str(key.variant))))
        for n in dict.fromkeys(key.n for key in keys if key.n or len({k.n for k in keys}) == 1):
            shown = [key for key in keys if key.n in {0, n}]
            if places is not None and len(places) > 1:
                lines = _lines(estimates, testbed, n, label, places, shown)
                figures += [[figure] for figure in lines]
            else:
                figures.append(_names(estimates, testbed, n, variants, shown))
        tables.append(_table(estimates, testbed, keys))
    text = (
        "Leverage is the arm less SFT of the same task examples: the line at 0 is SFT."
        if numeric
        else "Each setting with its arms; the centre is what is run everywhere else."
    )
    return Section(
        f"dial-{dial}",
        f"{label[0].upper()}{label[1:]}",
        [text],
        [group for group in figures if group],
        tables,
    )


def _reference(contents: Contents, key: Key) -> Key | None:
    """Find SFT of the same task examples: of the same variant, or untouched by it."""
    same = Key(key.testbed, "sft", key.n, key.variant)
    if same in contents.groups:
        return same
    settings = contents.settings.get(key.variant or "", {})
    plain = Key(key.testbed, "sft", key.n)
    if plain in contents.groups and all(name.startswith(MIXTURE) for name in settings):
        return plain
    return None


def _lines(
    estimates: Estimates,
    testbed: str,
    n: int,
    label: str,
    places: Mapping[str, float],
    keys: Sequence[Key],
) -> list[Figure]:
    """Draw leverage and loss against the number that the dial sets."""
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    logarithmic = min(places.values()) > 0
    ticks = {value: number(value) for value in places.values()}
    x_label = f"{label}{', log scale' if logarithmic else ''}"
    leverage, losses = [], []
    for arm in dict.fromkeys(key.arm for key in keys):
        own = [key for key in keys if key.arm == arm]
        few = any(estimates.few(key) for key in own)
        style, mark = style_of(arm)
        name = contents.label(arm)
        spots, falls = [], []
        for key in own:
            x = places[str(key.variant)]
            other = _reference(contents, key._replace(n=n))
            found = estimates.contrast(key, other) if other and arm != "sft" else None
            if found is not None:
                spots.append(_spot(x, found.estimate, tuple(found.deltas.values())))
            loss = estimates.of(key, "loss")
            if loss is not None:
                falls.append(_spot(x, loss.estimate, loss.seeds))
        if spots:
            leverage.append(Series(name, style, mark, spots, exploratory=few))
        if falls:
            losses.append(Series(name, style, mark, falls, exploratory=few))
    flat = estimates.of(Key(testbed, "sft", n), "loss")
    if flat is not None and not any(key.arm == "sft" for key in keys):
        style, mark = style_of("sft")
        sft = contents.label("sft")
        losses.append(Series(sft, style, mark, [_spot(0, flat.estimate, flat.seeds)], flat=True))
    title = f"{facts.label}, {number(n)} task examples"
    y_label = f"Leverage, {_unit(facts.score)}"
    panels = [
        Panel(
            f"{title}: {y_label}",
            x_label,
            y_label,
            leverage,
            ticks,
            logarithmic_x=logarithmic,
            levels=[("SFT", 0.0)],
        ),
        Panel(
            f"{title}: {LOSS}",
            x_label,
            LOSS,
            losses,
            ticks,
            logarithmic_x=logarithmic,
            logarithmic_y=True,
        ),
    ]
    captions = (f"{title}: leverage", f"{title}: loss")
    return [
        Figure(caption, "", panel_svg(panel))
        for caption, panel in zip(captions, panels, strict=True)
        if panel.series
    ]


def _unit(score: str) -> str:
    """Name a score's points."""
    return score_label(score).replace(", points", " points")


def _spot(x: float, found: Estimate, seeds: Sequence[float]) -> Spot:
    return Spot(float(x), found.value, found.low, found.high, seeds)


def _names(
    estimates: Estimates, testbed: str, n: int, variants: Sequence[str], keys: Sequence[Key]
) -> list[Figure]:
    """Draw the score of each setting and arm."""
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    rows: list[Row] = []
    headings: dict[int, str] = {}
    for variant in (None, *variants):
        own = [key for key in keys if key.variant == variant]
        if variant is None:
            arms = dict.fromkeys((key.arm, key.n) for key in keys)
            own = [Key(testbed, arm, size) for arm, size in arms]
        drawn = [row for key in own if (row := _row(estimates, key)) is not None]
        if drawn:
            headings[len(rows)] = variant.replace("_", " ") if variant else CENTRE
            rows += drawn
    title = f"{facts.label}, {number(n)} task examples" if n else facts.label
    axis = score_label(facts.score)
    figure = Intervals(f"{title}: {axis}", axis, rows, span=(0.0, 100.0), headings=headings)
    return [Figure(title, "", intervals_svg(figure))] if rows else []


def _row(estimates: Estimates, key: Key) -> Row | None:
    found = estimates.of(key)
    if found is None:
        return None
    style, mark = style_of(key.arm)
    few = estimates.few(key)
    at = found.estimate
    text = with_interval(at) + (f" {FEW_SIGN}" if few else "")
    label = estimates.contents.label(key.arm)
    bounds = (at.value, at.low, at.high)
    return Row(label, text, style, *bounds, found.seeds, mark, exploratory=few)


def _table(estimates: Estimates, testbed: str, keys: Sequence[Key]) -> Table:
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    rows = []
    for key in keys:
        few = estimates.few(key)
        score, loss = estimates.of(key), estimates.of(key, "loss")
        other = _reference(contents, key._replace(n=key.n or DECLARED_N))
        other = other if key.arm != "sft" else None
        leverage = estimates.contrast(key, other) if other else None
        place = f"{testbed}/{key.arm}/{key.n}/{key.variant}"
        rows.append(
            [
                Cell(str(key.variant).replace("_", " ")),
                Cell(contents.label(key.arm)),
                Cell(number(key.n) if key.n else "none"),
                estimate_cell(score.estimate if score else None, f"score/{place}", few=few),
                contrast_cell(leverage, f"leverage/{place}", few=few),
                estimate_cell(loss.estimate if loss else None, f"loss/{place}", "loss", few=few),
                Cell(str(len(contents.groups[key]))),
            ]
        )
    columns = [
        "Setting",
        "Arm",
        "Task examples",
        "Score, points",
        "Leverage",
        "Loss, nats",
        "Seeds",
    ]
    return Table(f"{facts.label}: {score_label(facts.score)}", columns, rows)
