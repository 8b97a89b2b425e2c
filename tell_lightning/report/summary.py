"""The head of a report: what was trained on what, the result at a glance, and what is missing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tell_lightning.metrics.score_facts import DEV_SCORE, PROBE, ScoreFacts, facts_of
from tell_lightning.report.contents import RunContents
from tell_lightning.report.curves import primary
from tell_lightning.report.drawing import Intervals, Row
from tell_lightning.report.forms import scale_of, shown, shown_interval
from tell_lightning.report.plan_figures import source_styles
from tell_lightning.report.tables import CHECKS

ARMS = {
    "tell": "task examples, each behind its anchor, shuffled into general rows",
    "sft": "task examples alone",
    "general_only": "general rows alone",
}


@dataclass(frozen=True)
class Result:
    """One task at a glance."""

    task: str
    style: str
    score: str
    before: str
    after: str
    interval: str
    beside: str
    """Rows, and scores that need no model."""
    figure: str


def results(run: RunContents) -> tuple[str, list[Result]]:
    """Return the split that tells the result, and each task's."""
    for split in ("test", "dev"):
        state = run.metrics.get(split) or {}
        scored = (state.get("after") or state.get("before") or {}).get("tasks") or {}
        if scored:
            return split, [_result(run, split, task) for task in scored]
    return "", []


def training_facts(run: RunContents) -> list[tuple[str, str]]:
    """Say what was trained on what, one line each."""
    return [(name, text) for name, text in _facts(run) if text]


def missing(run: RunContents) -> list[str]:
    """Say what the report lacks, and why."""
    return list(_missing(run))


def cost_facts(run: RunContents) -> list[tuple[str, str]]:
    """Say what the run took, and where it ran."""
    record = run.record
    seconds = record.get("seconds") or {}
    machine = record.get("machine") or {}
    gpus = machine.get("gpus") or []
    facts = [
        ("Time", _seconds(seconds)),
        ("Speed", _unit(record.get("tokens_per_second"), "tokens/s, evaluation left out")),
        ("Peak memory", _gibibytes(record.get("peak_memory_bytes"))),
        ("Devices", str(record.get("devices") or "")),
        ("GPUs", ", ".join(gpus) or ("none" if machine else "")),
        ("Platform", str(machine.get("platform") or "")),
        ("Processor", str(machine.get("processor") or "")),
        ("Threads of torch", str(machine.get("torch_threads") or "")),
        ("Started", str(record.get("started") or "")),
        ("Finished", str(record.get("finished") or "")),
        ("Earlier sessions", str(len(record.get("earlier_sessions") or []) or "")),
        ("Command", " ".join(map(str, record.get("command") or []))),
        ("Commit", _commit(record.get("git"))),
    ]
    return [(name, text) for name, text in facts if text]


def digests(run: RunContents) -> list[tuple[str, str]]:
    """Name what the run read and followed by its SHA-256 or the plan's digest."""
    data, base = run.record.get("data") or {}, run.record.get("base") or {}
    found = [("plan", str(data.get("plan_digest") or run.plan.get("digest") or ""))]
    found += [(f"base: {name}", digest) for name, digest in (base.get("sha256") or {}).items()]
    for name, report in (data.get("inputs") or {}).items():
        found.append((f"training rows: {name}", str(report.get("sha256") or "")))
    return [(name, digest) for name, digest in found if digest]


def guard_verdict(run: RunContents) -> str:
    """Say in words how the loss of held-out general rows moved, and the base's chat."""
    return " ".join(_guard_sentences(run))


def _guard_sentences(run: RunContents) -> Iterator[str]:
    state = run.metrics.get("test") or {}
    if not state.get("after"):
        state = run.metrics.get("dev") or {}
    moments = [state.get(moment) or {} for moment in ("before", "after")]
    before, after = (moment.get("loss_nats_per_token") or {} for moment in moments)
    general = [name for name in _general(run) if name in before and name in after]
    risen = [name for name in general if after[name] > before[name]]
    if risen:
        yield f"Loss on held-out general rows rose for {', '.join(risen)}: a sign of forgetting."
    elif general:
        yield "Loss on held-out general rows rose for no source: nothing is seen to be forgotten."
    if probe := moments[1].get("probe"):
        yield (
            f"Of {probe['rows']:.0f} chat prompts that no training source holds, "
            f"{shown(PROBE['unchanged'], probe['unchanged'])} are answered as by the base."
        )


def _result(run: RunContents, split: str, task: str) -> Result:
    state = run.metrics[split]
    name, facts = primary(run, task)
    before, after = (
        ((state.get(moment) or {}).get("tasks") or {}).get(task) for moment in ("before", "after")
    )
    last = after or before or {}
    without_model = (state.get("floors") or {}).get(task) or {}
    check = next((key for key in CHECKS if run.metrics.get(key)), "")
    checked = (run.metrics.get(check) or {}).get("after") or {}
    lines = [
        *((called.replace("_", " "), found, "quiet") for called, found in without_model.items()),
        ("before", before, "ink"),
        ("after", after, source_styles(run).get(task, "ink")),
        (
            CHECKS[check].rpartition(", ")[2] if check else "",
            (checked.get("tasks") or {}).get(task) if split == "test" else None,
            "ink",
        ),
    ]
    rows = [
        Row(
            label,
            _with_interval(scores, name, facts),
            style,
            float(scores["values"][name]),
            (scores.get("intervals") or {}).get(name),
            shape=3 if style == "quiet" else 0,
        )
        for label, scores, style in lines
        if scores and name in scores["values"]
    ]
    scale, top = scale_of(facts)
    axis = f"{facts.label}, {scale}" if scale else facts.label
    bounds = (last.get("intervals") or {}).get(name)
    return Result(
        task=task,
        style=source_styles(run).get(task, "ink"),
        score=facts.label,
        before=_value(before, name, facts),
        after=_value(after, name, facts),
        interval=shown_interval(facts, *bounds) if bounds and after else "",
        beside=_beside(last, split),
        figure=Intervals(
            f"{task}: {facts.label} on {split}", axis, rows, span=(0.0, top or 0.0)
        ).svg(),
    )


def _value(scores: Mapping[str, Any] | None, name: str, facts: ScoreFacts) -> str:
    if not scores or name not in scores["values"]:
        return ""
    return shown(facts, scores["values"][name])


def _with_interval(scores: Mapping[str, Any], name: str, facts: ScoreFacts) -> str:
    bounds = (scores.get("intervals") or {}).get(name)
    text = _value(scores, name, facts)
    return f"{text} {shown_interval(facts, *bounds)}" if bounds else text


def _beside(scores: Mapping[str, Any], split: str) -> str:
    values = scores.get("values") or {}
    parts = [f"{values['rows']:,.0f} {split} rows"] if "rows" in values else []
    if "majority_accuracy" in values and "accuracy" in values:
        accuracy, majority = (
            shown(facts_of(name), values[name]) for name in ("accuracy", "majority_accuracy")
        )
        parts.append(f"accuracy {accuracy}, always the majority label {majority}")
    return "; ".join(parts)


def _facts(run: RunContents) -> Iterator[tuple[str, str]]:
    model, data = run.config.get("model") or {}, run.config.get("data") or {}
    mixture = data.get("mixture") or {}
    parameters = run.record.get("parameters") or {}
    lora = model.get("lora") or {}
    base = str(model.get("base") or (run.record.get("base") or {}).get("name") or "")
    if model.get("revision"):
        base += f" at {model['revision']}"
    yield "Base", base
    trained = f"LoRA of rank {lora['rank']}" if "rank" in lora else ""
    if parameters:
        trained += f", {parameters['trained']:,} of {parameters['total']:,} parameters"
    yield "Trained", trained
    arm = str(mixture.get("arm") or "")
    yield "Arm", f"{arm}: {ARMS[arm]}" if arm in ARMS else arm
    realised = run.plan.get("realised") or run.record.get("mixture") or {}
    planned = ", planned" if run.plan.get("steps", run.trained_steps) != run.trained_steps else ""
    for kind, title in (("task", f"Task examples{planned}"), ("general", f"General rows{planned}")):
        yield (
            title,
            "; ".join(
                f"{name}: {s['rows']:,}, seen {s['passes']:.1f} times"
                if kind == "task"
                else f"{name}: {s['rows_seen']:,} of {s['rows']:,}"
                for name, s in (realised.get("sources") or {}).items()
                if s["kind"] == kind
            ),
        )
    yield "Steps", _steps(run, data)
    selected = run.record.get("selected") or {}
    if selected:
        score = selected.get("score")
        beside = f" ({shown(DEV_SCORE, score)})" if score is not None else ""
        yield "Adapter", f"of step {selected['step']}, by {selected['by']}{beside}"


def _steps(run: RunContents, data: Mapping[str, Any]) -> str:
    planned, done = run.plan.get("steps"), run.trained_steps
    unit = "bins" if data.get("packing") else "examples"
    batch = data.get("optimizer_batch")
    text = f"{done:,}" if planned in (None, done) else f"{done:,} of {planned:,} planned"
    return f"{text}, of {batch} {unit} each" if batch else text


def _missing(run: RunContents) -> Iterator[str]:
    if not run.record:
        yield "run.json is not there: no status, no scores, no versions."
    if run.status == "running":
        yield "The run has not ended, or was killed: this is what it had written so far."
    if run.status in {"failed", "interrupted"}:
        yield f"The run {run.status}: {run.record.get('error', 'no reason is recorded')}."
    if not run.log:
        yield "metrics.csv is not there, or empty: no curves."
    if not run.tasks:
        yield "No task is configured: general rows alone were trained, and nothing is scored."
        return
    for split in ("dev", "test"):
        state = run.metrics.get(split) or {}
        if not state.get("before") and not state.get("after"):
            yield f"Nothing was scored on {split}."
        elif not state.get("after"):
            yield f"There is no {split} score after training."
        elif not state.get("before"):
            yield f"There is no {split} score of the base before training."
    anchored = any((task.get("anchor") or {}).get("text") for task in run.tasks.values())
    checked = any(run.metrics.get(name) for name in CHECKS)
    if anchored and run.metrics.get("test") and not checked:
        yield (
            "The test rows were not answered with the anchor taken off: whether the behaviour is "
            "bound to the anchor is not known."
        )
    if not run.prediction_stems():
        yield "There are no predictions."


def _general(run: RunContents) -> list[str]:
    return list((run.config.get("data") or {}).get("general") or {})


def _seconds(seconds: Mapping[str, float]) -> str:
    if "total" not in seconds:
        return ""
    parts = [
        f"{seconds[name]:,.0f} s {what}"
        for name, what in (
            ("setup", "set-up"),
            ("training", "training"),
            ("scoring", "scoring"),
        )
        if name in seconds
    ]
    return f"{seconds['total']:,.0f} s" + (f": {', '.join(parts)}" if parts else "")


def _unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.0f} {unit}"


def _gibibytes(value: float | None) -> str:
    return "" if value is None else f"{value / 2**30:.2f} GiB"


def _commit(git: Mapping[str, Any] | None) -> str:
    if not git:
        return ""
    return str(git.get("commit", "")) + (", with changes" if git.get("dirty") else "")
