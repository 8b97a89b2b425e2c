"""One change at a time around the centre: amount of general data, task share, parts, bases.

The variants of an experiment are grouped by the beginning of their names: `share_0.05` and
`share_0.2` belong to one dial. Where a dial is a number, leverage and loss are drawn against it;
where it is a name, each setting has its interval.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tell_lightning.experiment.contrasts import DECLARED_N
from tell_lightning.report.canvas import number
from tell_lightning.report.drawing import Chart, Intervals, Level, Row
from tell_lightning.report.experiments.contents import Contents, Key
from tell_lightning.report.experiments.estimates import Estimates, Known
from tell_lightning.report.experiments.sections import (
    LOSS_LABEL,
    Cells,
    Section,
    Table,
    cell,
    level,
    line,
    row,
    score_label,
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
"""The label of a dial, by the beginning of its variants' names."""
CENTRE = "centre"
"""The label of the runs without a variant."""
GENERAL = "data.general."
MIXTURE = (GENERAL, "data.mixture.")
"""Keys without an effect on an arm that trains on the task alone."""
COLUMNS = ("Setting", "Arm", "Task examples", "Score, points", "Leverage", "Loss, nats", "Seeds")
NUMBERS = "Leverage is the arm less SFT of the same task examples: the line at 0 is SFT."
NAMES = "Each setting with its arms; the centre is what is run everywhere else."


def dials(estimates: Estimates) -> list[Section]:
    """Return one section for each dial."""
    contents = estimates.contents
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
    return [_section(estimates, name, found[name]) for name in names]


def scale(contents: Contents, variants: Sequence[str]) -> dict[str, float] | None:
    """Return the number that each variant sets, or that ends its name; None if there is none."""
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


def _section(estimates: Estimates, dial: str, by_testbed: Mapping[str, list[Key]]) -> Section:
    contents = estimates.contents
    label = LABELS.get(dial, dial.replace("_", " "))
    figures: list[Sequence[Chart | Intervals]] = []
    tables, text = [], NAMES
    for testbed in contents.testbeds:
        keys = by_testbed.get(testbed, [])
        if not keys:
            continue
        variants = [name for name in contents.settings if any(key.variant == name for key in keys)]
        places = scale(contents, variants)
        if places is not None:
            variants.sort(key=lambda name: places[name])
            text = NUMBERS
        arms = [*contents.arms]
        keys.sort(key=lambda key: (arms.index(key.arm), key.n, variants.index(str(key.variant))))
        sizes = dict.fromkeys(key.n for key in keys)
        for n in [n for n in sizes if n] or sizes:
            own = [key for key in keys if key.n in {0, n}]
            if places is not None and len(places) > 1:
                figures.append(_lines(estimates, testbed, n, label, places, own))
            else:
                figures.append(_intervals(estimates, testbed, n, variants, own))
        tables.append(_table(estimates, testbed, keys))
    return Section(f"dial-{dial}", f"{label[0].upper()}{label[1:]}", [text], figures, tables)


def _reference(contents: Contents, key: Key) -> Key | None:
    """Find SFT with the same task examples and variant, or without a variant that changes it."""
    same, plain = key._replace(arm="sft"), key._replace(arm="sft", variant=None)
    if same in contents.groups:
        return same
    settings = contents.settings.get(key.variant or "", {})
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
) -> list[Chart]:
    """Draw leverage and loss against the number that the dial sets."""
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    leverage, losses = [], []
    for arm in dict.fromkeys(key.arm for key in keys):
        own = [(places[str(key.variant)], key) for key in keys if key.arm == arm]
        name = contents.label(arm)
        gains = [(x, _leverage(estimates, key, n)) for x, key in own]
        leverage += line(name, arm, gains)
        losses += line(name, arm, [(x, estimates.of(key, "loss")) for x, key in own])
    plain = None if any(key.arm == "sft" for key in keys) else Key(testbed, "sft", n)
    sft = level(contents.label("sft"), "sft", plain and estimates.of(plain, "loss"))
    title = f"{facts.label}, {number(n)} task examples"
    points = score_label(facts.score).replace(", points", " points")
    ticks = {value: number(value) for value in places.values()}
    return [
        Chart(
            f"{title}: {what}",
            label,
            y_label,
            lines,
            levels,
            ticks,
            logarithmic_x=min(ticks) > 0,
            logarithmic_y=lines is losses,
        )
        for what, y_label, lines, levels in (
            ("leverage", f"Leverage, {points}", leverage, [Level("SFT", 0.0)]),
            ("loss", LOSS_LABEL, losses, sft),
        )
        if lines
    ]


def _leverage(estimates: Estimates, key: Key, n: int) -> Known | None:
    """Compare an arm with SFT of n task examples."""
    other = None if key.arm == "sft" else _reference(estimates.contents, key._replace(n=n))
    return estimates.contrast(key, other) if other else None


def _intervals(
    estimates: Estimates, testbed: str, n: int, variants: Sequence[str], keys: Sequence[Key]
) -> list[Intervals]:
    """Draw the score of each setting and arm."""
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    rows: list[Row] = []
    for variant in (None, *variants):
        own = [key for key in keys if key.variant == variant]
        if variant is None:
            own = [*dict.fromkeys(key._replace(variant=None) for key in keys)]
        drawn = [
            row(contents.label(key.arm), key.arm, found)
            for key in own
            if (found := estimates.of(key)) is not None
        ]
        if drawn:
            heading = variant.replace("_", " ") if variant else CENTRE
            rows += [replace(drawn[0], heading=heading), *drawn[1:]]
    title = f"{facts.label}, {number(n)} task examples" if n else facts.label
    return [Intervals(title, score_label(facts.score), rows, span=(0.0, 100.0))] if rows else []


def _table(estimates: Estimates, testbed: str, keys: Sequence[Key]) -> Table:
    contents = estimates.contents
    facts = contents.testbeds[testbed]
    rows: list[Cells] = []
    for key in keys:
        place = f"{testbed}/{key.arm}/{key.n}/{key.variant}"
        leverage = _leverage(estimates, key, key.n or DECLARED_N)
        rows.append(
            [
                str(key.variant).replace("_", " "),
                contents.label(key.arm),
                number(key.n) if key.n else "none",
                cell(estimates.of(key), f"score/{place}"),
                cell(leverage, f"leverage/{place}", change=True),
                cell(estimates.of(key, "loss"), f"loss/{place}", "loss"),
                str(len(contents.groups[key])),
            ]
        )
    return Table(f"{facts.label}: {score_label(facts.score)}", COLUMNS, rows)
