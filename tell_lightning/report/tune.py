"""What the report of a search shows: the verdict, the rivals, and how the search went.

    verdict    the sentence; score, difference, loss and price of each arm, of the base and of the
               few-shot prompt
    search     score against cost, the best so far, the importance of each setting, every trial

The folder of a search is that of a run, whose `run.json` has more under `tune`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tell_lightning.report.canvas import number
from tell_lightning.report.contents import RunContents
from tell_lightning.report.drawing import Chart, Intervals, Line, Point, Row
from tell_lightning.report.experiments.sections import STYLES, Section, Table
from tell_lightning.report.forms import MINUS
from tell_lightning.tuning.importance import LEAST_TRIALS, importances
from tell_lightning.tuning.records import COMPLETE, Record, read_records
from tell_lightning.tuning.sentence import with_interval

ARMS: Mapping[str, tuple[str, str, int]] = {
    "tell": ("TELL", *STYLES["tell"]),
    "sft": ("SFT", *STYLES["sft"]),
    "mixture": ("mixture without anchor", *STYLES["mix_without_anchor"]),
    "few_shot": ("few-shot prompt", "g2", 2),
    "base": ("base with the anchor", *STYLES["base"]),
}
"""Name, classes and shape of marks of each arm and rival."""
SETTINGS = {
    "lr": "Learning rate",
    "steps": "Steps",
    "task_share": "Task share",
    "force_response_prefix": "Prefix forced",
}
NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class TuneView:
    """The parts of the page that speak of the search."""

    sentence: str
    sections: Sequence[Section]


def tune_view(run: RunContents) -> TuneView | None:
    """Lay out the search of a run's folder; None where the run comes from no search."""
    tune = run.record.get("tune")
    if not tune:
        return None
    records = read_records(run.folder.path)
    verdict = tune.get("verdict") or {}
    sections = [_verdict_section(verdict, tune)] if verdict else []
    return TuneView(str(verdict.get("sentence", "")), [*sections, _search(records, tune)])


# The verdict


def _verdict_section(verdict: Mapping[str, Any], tune: Mapping[str, Any]) -> Section:
    compared = [*verdict["arms"], *verdict["rivals"]]
    texts = [
        f"{verdict['sentence']}.",
        f"Measured on {verdict['rows']:,} {verdict['on']}; {verdict['seeds']} seeds of each arm.",
        "[low, high]: 95% interval over rows and trainings, from new trainings of what was chosen; "
        "it does not hold that other task rows would have been given. No difference is seen where "
        f"it is within {verdict['margin']:g} points of zero.",
    ]
    if reasons := verdict.get("missing_seeds"):
        texts.append(f"Seeds that failed: {len(reasons)}; the first reason: {reasons[0]}")
    scores = [_interval_row(each) for each in compared if each["score"]]
    deltas = [_delta_row(each) for each in compared if each.get("over_sft")]
    figures = [
        [Intervals("Score", verdict["measure"], scores)] if scores else [],
        [Intervals("Difference to SFT", "points", deltas, references=[0.0])] if deltas else [],
    ]
    return Section(
        "verdict", "Verdict", texts, figures, [_verdict_table(compared, verdict["measure"])]
    )


def _interval_row(each: Mapping[str, Any]) -> Row:
    label, style, shape = ARMS[each["name"]]
    score = each["score"]
    return Row(label, with_interval(score), style, score["value"], _interval(score), shape=shape)


def _delta_row(each: Mapping[str, Any]) -> Row:
    label, style, shape = ARMS[each["name"]]
    found = each["over_sft"]
    return Row(label, _difference(found), style, found["value"], _interval(found), shape=shape)


def _verdict_table(compared: Sequence[Mapping[str, Any]], measure: str) -> Table:
    columns = [
        "",
        f"{measure[:1].upper()}{measure[1:]}",
        "Over SFT",
        "p",
        "Loss of the rows",
        "General loss, before and after",
        "Chat kept",
        "Minutes of a training",
        "Tokens of a training",
    ]
    return Table("Arms and rivals", columns, [list(_verdict_cells(each)) for each in compared])


def _verdict_cells(each: Mapping[str, Any]) -> Iterator[str]:
    examples = each.get("examples")
    yield ARMS[each["name"]][0] + (f", {examples} examples" if examples is not None else "")
    yield with_interval(each["score"]) if each["score"] else str(each.get("reason") or NONE)
    over = each.get("over_sft")
    yield _difference(over) if over else NONE
    yield f"{over['p']:.3f}" if over else NONE
    yield _known(each.get("loss"), "{:.3f}")
    general = each.get("general_loss") or {}
    moments = [_known(general.get(when), "{:.3f}") for when in ("before", "after")]
    yield NONE if set(moments) == {NONE} else ", ".join(moments)
    unchanged = (each.get("probe") or {}).get("unchanged")
    yield NONE if unchanged is None else f"{100 * unchanged:.0f}%"
    trained = each["name"] not in {"base", "few_shot"}
    yield _known(each.get("minutes") if trained else None, "{:.2g}")
    yield _known(each.get("tokens"), "{:,.0f}")


# The search


def _search(records: Sequence[Record], tune: Mapping[str, Any]) -> Section:
    complete = [record for record in records if record["state"] == COMPLETE]
    states = tune.get("trials") or {}
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    texts = [str(tune.get("folds", "")), f"Trials: {counted}; the best is trial {tune['best']}."]
    figures = [[_cost_chart(complete)], [_best_chart(complete)]] if complete else []
    return Section(
        "search",
        "Search",
        texts,
        figures,
        [_importance_table(records, tune)],
        [_trials_table(records)],
    )


def _cost_chart(complete: Sequence[Record]) -> Chart:
    """Draw each trial: what it took, and how well it did."""
    lines = [
        Line(label, points, f"{style} dots", shape=shape)
        for arm, (label, style, shape) in ARMS.items()
        if (points := [_cost_point(record) for record in complete if record["arm"] == arm])
    ]
    return Chart("Score against cost, each trial", "minutes of a trial", "score, 0 to 100", lines)


def _cost_point(record: Record) -> Point:
    return Point(record["seconds"] / 60, 100 * record["score"])


def _best_chart(complete: Sequence[Record]) -> Chart:
    """Draw the best score of each arm so far, over the trials."""
    lines = []
    for arm, (label, style, shape) in ARMS.items():
        best, points = -math.inf, []
        for record in complete:
            if record["arm"] == arm:
                best = max(best, 100 * record["score"])
                points.append(Point(record["number"], best))
        if points:
            lines.append(Line(label, points, style, shape=shape))
    return Chart("The best so far", "number of the trial", "score, 0 to 100", lines)


def _importance_table(records: Sequence[Record], tune: Mapping[str, Any]) -> Table:
    found = importances(records, tune["space"]) if tune.get("space") else {}
    rows = [
        [ARMS[arm][0], *(_percent(shares.get(name)) for name in SETTINGS)]
        for arm, shares in found.items()
    ]
    note = (
        "PED-ANOVA of Optuna: how much the values of a setting among the best third of an arm's "
        f"trials differ from those of all; of arms with {LEAST_TRIALS} trials or more."
    )
    return Table("Importance of each setting", ["Arm", *SETTINGS.values()], rows, note)


def _trials_table(records: Sequence[Record]) -> Table:
    columns = ["Trial", "Arm", *SETTINGS.values(), "Score", "Loss", "Minutes", "State"]
    return Table("Every trial", columns, [list(_trial_cells(each)) for each in records])


def _trial_cells(record: Record) -> Iterator[str]:
    params = record.get("params") or {}
    yield str(record["number"])
    yield ARMS[record["arm"]][0]
    for name in SETTINGS:
        value = params.get(name)
        yield NONE if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    score = record.get("score")
    yield _known(None if score is None else 100 * score, "{:.1f}")
    yield _known(record.get("loss"), "{:.3f}")
    yield f"{record['seconds'] / 60:.2g}"
    yield ": ".join(part for part in (record["state"], record.get("reason")) if part)


# Numbers


def _difference(found: Mapping[str, float]) -> str:
    return with_interval(found, "+.1f").replace("-", MINUS)


def _interval(found: Mapping[str, float | None]) -> tuple[float, float] | None:
    low, high = found["low"], found["high"]
    return None if low is None or high is None else (low, high)


def _known(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{number(round(100 * share))}%"
