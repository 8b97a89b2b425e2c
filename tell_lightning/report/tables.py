"""The scores of `run.json` as tables: main scores first, every other one behind them.

Any part of the record may be missing. Each cell has the path of its number in `run.json`, so that a
reader (or a test) finds every one of them.

    score | without a model | before | after | change | after, without the anchor
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tell_lightning.metrics.kinds.registry import display_of
from tell_lightning.metrics.score_facts import DEV_SCORE, LOSS, PROBE, ScoreFacts, all_facts
from tell_lightning.report.forms import shown, shown_change, shown_interval

CHECKS = {
    "test_without_anchor": "After, without anchor",
    "test_with_anchor": "After, with anchor",
}
"""Further scorings of the test rows, with the heading of their column."""
PROBE_NOTE = "the base's own greedy answers: their loss, and how many are given word for word"
STALE = "stale: the predictions file has changed since, or is gone; run `neural` again"


@dataclass(frozen=True)
class Cell:
    """A number of the run record; no text where there is none."""

    text: str = ""
    interval: str = ""
    path: str = ""
    """Where it stands below `metrics`, the parts joined by slashes."""
    label: str = ""
    """What it is, where several stand in one cell."""


@dataclass(frozen=True)
class Row:
    """One score in all its states."""

    label: str
    lower_is_better: bool
    baselines: list[Cell]
    cells: list[Cell]
    """Before, after, change and, where there is one, the check of the anchor."""


@dataclass(frozen=True)
class Section:
    """Rows under one heading."""

    title: str
    note: str
    rows: list[Row]
    source: str = ""
    """Task whose colour it wears."""


@dataclass(frozen=True)
class ScoreTable:
    """Everything that was scored of one split, at the two moments."""

    split: str
    columns: list[str]
    main: list[Section]
    rest: list[Section]
    signatures: list[tuple[str, str]] = field(default_factory=list)
    """Score and sacreBLEU's signature."""


@dataclass(frozen=True)
class History:
    """Everything that was scored on dev, over the steps; the first column names the score."""

    title: str
    steps: list[int]
    rows: list[tuple[str, list[Cell]]]


def score_table(
    metrics: Mapping[str, Any], split: str, general: Iterable[str], own: Iterable[str] = ()
) -> ScoreTable | None:
    """Lay out what was scored of a split.

    Args:
        metrics: What `run.json` holds.
        split: dev or test.
        general: General sources; what else has a loss is a task.
        own: Tasks with a function of the user's, whose numbers are main scores.

    Returns:
        None where the split was never scored.
    """
    found = metrics.get(split) or {}
    before, after = found.get("before") or {}, found.get("after") or {}
    if not before and not after:
        return None
    check = next((name for name in CHECKS if split == "test" and metrics.get(name)), None)
    checked = (metrics[check].get("after") or {}) if check else {}
    states = [(f"{split}/before", before), (f"{split}/after", after)]
    states += [(f"{check}/after", checked)] if check else []
    columns = [
        "Before, adapter off",
        f"After, step\N{NO-BREAK SPACE}{after['step']}" if after else "After",
    ]
    columns += ["Change", *([CHECKS[check]] if check else [])]
    main: list[Section] = []
    rest: list[Section] = []
    for task in _union(state.get("tasks", {}) for _, state in states):
        baselines = (found.get("floors") or {}).get(task) or {}
        ours, others = _task_sections(task, states, split, baselines, task in own)
        main.append(ours)
        rest += others
    main += _loss_sections(states, set(general), split)
    main += _probe_section(states)
    signatures = sorted(set(_signatures(state for _, state in states)))
    return ScoreTable(split, columns, main, rest, signatures)


def history_tables(metrics: Mapping[str, Any]) -> list[History]:
    """Lay out every scoring on dev: one table a task, and one for losses and the choice."""
    history = metrics.get("dev_history") or []
    steps = [int(entry["step"]) for entry in history]
    tables = [
        History(task, steps, list(_task_history(task, history)))
        for task in _union(entry.get("tasks", {}) for entry in history)
    ]
    losses = [
        (
            f"loss of {source}, nats/token",
            [_loss_cell(entry, source, f"dev_history/{i}") for i, entry in enumerate(history)],
        )
        for source in _union(entry.get("loss_nats_per_token", {}) for entry in history)
    ]
    choice = [
        Cell(shown(DEV_SCORE, entry["score"]), path=f"dev_history/{i}/score")
        if entry.get("score") is not None
        else Cell()
        for i, entry in enumerate(history)
    ]
    chosen_by = [(f"{DEV_SCORE.label}, mean of the tasks' first scores", choice)]
    if any(cell.text for cell in choice) or losses:
        rows = (chosen_by if any(cell.text for cell in choice) else []) + losses
        tables.append(History("dev score and losses", steps, rows))
    return tables


def _task_history(
    task: str, history: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, list[Cell]]]:
    scored = [_scores(entry, task) for entry in history]
    display = display_of(next(scores for scores in scored if scores))
    for name in _ordered(_union(scores.get("values", {}) for scores in scored)):
        facts = display.facts_of(name)
        yield (
            facts.label,
            [
                _value_cell(facts, scores, name, f"dev_history/{i}/tasks/{task}")
                for i, scores in enumerate(scored)
            ],
        )


def neural_table(
    metrics: Mapping[str, Any], current: Mapping[str, Any]
) -> list[tuple[str, str, Cell, str]]:
    """Lay out scores of neural metrics: file, metric and model, score, what else is known of it.

    Args:
        metrics: What `run.json` holds.
        current: Its neural scores, those alone whose predictions file is as it was then; of the
            others the page says that they are stale.
    """
    rows = []
    for stem, by_metric in (metrics.get("neural") or {}).items():
        for name, known in by_metric.items():
            title = f"{name}, {known['model']}" if known.get("model") else name
            if name not in current.get(stem, {}):
                rows.append((stem, title, Cell(), STALE))
                continue
            bounds = known.get("interval")
            interval = "[{:.4f}, {:.4f}]".format(*bounds) if bounds else ""
            rest = ", ".join(
                f"{key.replace('_', ' ')}: {value:.4g}"
                for key, value in known.items()
                if key != "score" and isinstance(value, float | int)
            )
            cell = Cell(f"{known['score']:.4f}", interval, path=f"neural/{stem}/{name}")
            rows.append((stem, title, cell, rest))
    return rows


States = Sequence[tuple[str, Mapping[str, Any]]]


def _task_sections(
    task: str, states: States, split: str, baselines: Mapping[str, Any], own: bool
) -> tuple[Section, list[Section]]:
    """Return the main scores of a task, and the rest in groups."""
    scored = [_scores(state, task) for _, state in states]
    display = display_of(next(scores for scores in scored if scores))
    names = _ordered(_union(each.get("values", {}) for each in (*scored, *baselines.values())))
    main = [name for name in display.report if name in names]
    main += [n for n in names if own and n not in {*main, *all_facts(), *display.facts}]

    def rows(chosen: Iterable[str]) -> list[Row]:
        return [
            _score_row(display.facts_of(name), name, task, states, split, baselines)
            for name in chosen
        ]

    count = next((s["values"]["rows"] for s in scored if "rows" in s.get("values", {})), None)
    note = "" if count is None else f"{count:,.0f} {split} rows"
    rest = [
        Section(f"{task}: {group.lower()}", "", rows(chosen), task)
        for group in dict.fromkeys(display.facts_of(name).group for name in (*all_facts(), *names))
        if (chosen := [n for n in names if n not in main and display.facts_of(n).group == group])
    ]
    return Section(task, note, rows(main), task), rest


def _score_row(
    facts: ScoreFacts,
    name: str,
    task: str,
    states: States,
    split: str,
    baselines: Mapping[str, Any],
) -> Row:
    cells = [
        _value_cell(facts, _scores(state, task), name, f"{where}/tasks/{task}")
        for where, state in states
    ]
    values = [_scores(state, task).get("values", {}).get(name) for _, state in states]
    return Row(
        facts.label,
        facts.better == "lower",
        [
            Cell(
                shown(facts, scores["values"][name]),
                path=f"{split}/floors/{task}/{baseline}/{name}",
                label=baseline.replace("_", " "),
            )
            for baseline, scores in baselines.items()
            if name in scores["values"]
        ],
        _with_change(facts, cells, values),
    )


def _loss_sections(states: States, general: set[str], split: str) -> Iterator[Section]:
    """Return the losses of held-out general rows, and of the tasks' rows."""
    sources = _union(state.get("loss_nats_per_token") or {} for _, state in states)
    guard = "forgetting guard: rows that were never trained on; a rise is forgetting"
    for title, note, chosen in (
        ("Loss of held-out general rows", guard, [s for s in sources if s in general]),
        (f"Loss of the tasks' {split} rows", "", [s for s in sources if s not in general]),
    ):
        if chosen:
            rows = [_loss_row(source, states) for source in chosen]
            yield Section(f"{title}, nats/token", note, rows)


def _probe_section(states: States) -> Iterator[Section]:
    """Return what was measured of chat prompts that no training source holds."""
    probes = [state.get("probe") or {} for _, state in states]
    rows = []
    for name in ("loss", "unchanged"):
        facts, values = PROBE[name], [probe.get(name) for probe in probes]
        cells = [
            Cell() if value is None else Cell(shown(facts, value), path=f"{where}/probe/{name}")
            for (where, _), value in zip(states, values, strict=True)
        ]
        rows.append(
            Row(facts.label, facts.better == "lower", [], _with_change(facts, cells, values))
        )
    if any(probes):
        yield Section("Chat prompts that no training source holds", PROBE_NOTE, rows)


def _loss_row(source: str, states: States) -> Row:
    cells = [_loss_cell(state, source, where) for where, state in states]
    values = [(state.get("loss_nats_per_token") or {}).get(source) for _, state in states]
    return Row(source, LOSS.better == "lower", [], _with_change(LOSS, cells, values))


def _with_change(
    facts: ScoreFacts, cells: list[Cell], values: Sequence[float | None]
) -> list[Cell]:
    """Put the difference between the first two behind them."""
    before, after = values[:2]
    change = "" if before is None or after is None else shown_change(facts, before, after)
    return [*cells[:2], Cell(change), *cells[2:]]


def _value_cell(facts: ScoreFacts, scores: Mapping[str, Any], name: str, where: str) -> Cell:
    if name not in scores.get("values", {}):
        return Cell()
    bounds = scores.get("intervals", {}).get(name)
    return Cell(
        shown(facts, scores["values"][name]),
        shown_interval(facts, *bounds) if bounds else "",
        f"{where}/{name}",
    )


def _loss_cell(state: Mapping[str, Any], source: str, where: str) -> Cell:
    losses = state.get("loss_nats_per_token") or {}
    if source not in losses:
        return Cell()
    return Cell(shown(LOSS, losses[source]), path=f"{where}/loss_nats_per_token/{source}")


def _scores(state: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (state.get("tasks") or {}).get(task) or {}
    return found


def _signatures(states: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for state in states:
        for scores in (state.get("tasks") or {}).values():
            for name, text in scores.get("signatures", {}).items():
                yield display_of(scores).facts_of(name).label, text


def _ordered(names: Iterable[str]) -> list[str]:
    """Bring scores into the order of `all_facts`, those of others behind."""
    place = {name: index for index, name in enumerate(all_facts())}
    return sorted(names, key=lambda name: place.get(name, len(place)))


def _union(names: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for each in names for name in each))
