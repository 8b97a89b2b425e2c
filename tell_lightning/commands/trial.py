"""The fits of `tune`, in its worker processes: `fit` on overlays, and the scores that are kept.

A process imports torch once and does one trial after another. A trial is one fit for each fold; its
score is that of the answers of all folds together, as if they were of one dev set.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from tell_lightning.commands.cell import score_base
from tell_lightning.errors import TellError
from tell_lightning.experiment.overlays import merged, nested
from tell_lightning.experiment.results import as_text
from tell_lightning.files import parse_yaml, write_whole
from tell_lightning.metrics.kinds.registry import BUILT_IN, kind_of
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import Scores, primary_score
from tell_lightning.metrics.score_facts import facts_of
from tell_lightning.metrics.settings import Scoring
from tell_lightning.tuning.fits import FitWork, Overlay, TrialWork
from tell_lightning.tuning.records import COMPLETE, FAILED, PRUNED

if TYPE_CHECKING:
    from lightning.pytorch import Callback

THIRDS = 3
"""Scorings on dev of a trial that has a single fold."""
QUIET = nested(
    {
        "run.checkpoint_every_steps": 10**9,
        "run.checkpoint_every_minutes": None,
        "eval.before": False,
        "eval.test": False,
        "eval.anchor_check": False,
        "eval.probe": False,
        "eval.samples": 0,
        "eval.table_rows": 0,
        "eval.select": "last",
        "eval.patience": None,
    }
)
"""What a fit does without whose adapter nobody will use."""


@dataclass(frozen=True)
class Fitted:
    """What came of one fit."""

    record: Mapping[str, Any]
    """Its `run.json`."""
    tokens: Mapping[str, int]
    """Trained tokens of task and general rows."""
    scores: Mapping[str, Any]
    """The scores after training, as `run.json` has them; empty where nothing was scored."""
    predictions: Mapping[str, Sequence[Prediction]]
    """The answers after training, by task."""
    scorings: Mapping[str, Scoring]
    base: "Fitted | None" = None
    """The same of the base, where it was scored."""

    @property
    def loss(self) -> float | None:
        """The mean of the tasks' losses in nats a token."""
        losses = self.scores["loss_nats_per_token"]
        return _mean(losses.get(name) for name in self.predictions)


def run_work(work: TrialWork | FitWork) -> dict[str, Any]:
    """Do one piece of work, and keep its record at once, in case that the parent is killed.

    Returns:
        The record. A mistake in its configuration becomes the reason of a failed one.
    """
    import tell_lightning.commands.session  # noqa: F401 (once, before the clock starts)

    started = time.perf_counter()
    try:
        found = _trial(work) if isinstance(work, TrialWork) else _single(work)
    except TellError as error:
        found = {"state": FAILED, "reason": str(error)}
    record = work.facts | found | {"seconds": round(time.perf_counter() - started, 2)}
    if isinstance(work, TrialWork):
        from tell_lightning.tuning.study import keep_record

        keep_record(work.url, work.trial_id, record)
    elif work.result is not None:
        write_whole(work.result, as_text(record).encode("utf-8", "backslashreplace"))
    return record


def failed(work: TrialWork | FitWork, reason: str, seconds: float) -> dict[str, Any]:
    """Make the record of a piece of work whose process has ended or raised."""
    return work.facts | {"state": FAILED, "reason": reason, "seconds": round(seconds, 2)}


def _trial(work: TrialWork) -> dict[str, Any]:
    from tell_lightning.tuning.study import Reports

    folds = work.common.folds
    steps = int(work.params["steps"])
    reports = Reports(work.url, work.study, work.trial_id)
    every = max(1, -(-steps // THIRDS)) if len(folds) == 1 else steps
    rows = work.common.dev_rows
    extra = merged(QUIET, nested({"eval.every_steps": every, "eval.dev_rows": rows}))
    done: list[Fitted] = []
    pruned: str | None = None
    for number, fold in enumerate(folds):
        watch: list[Callback] = []
        stopped: list[float] = []
        if len(folds) == 1:
            watch = [_watch(reports.report, stopped)]
        overlay = merged(work.settings, fold, extra)
        done.append(_fit(work.common.values, overlay, work.common.seed, work.folder, watch))
        if stopped:
            pruned = f"behind after {stopped[0]:.0%} of its steps"
            break
        last = number == len(folds) - 1
        score, loss = _pooled(done)["score"], _mean_loss(done)
        if not last and reports.report(score, loss if loss is not None else 0.0):
            pruned = f"behind after {number + 1} of {len(folds)} folds"
            break
        if last and len(folds) > 1:
            reports.report(score, loss if loss is not None else 0.0)
    return {
        "state": PRUNED if pruned else COMPLETE,
        "reason": pruned,
        "steps": sum(each.record["steps"] for each in done),
        "tokens": _summed(done),
        **_pooled(done),
        "loss": _rounded(_mean_loss(done)),
        "folds": [{"fold": number, **_of_fold(each)} for number, each in enumerate(done)],
    }


def _single(work: FitWork) -> dict[str, Any]:
    """Do one fit of the verdict, or the final one."""
    asked, common = work.request, work.common
    split: Literal["dev", "test"] = "test" if asked.fold is None else "dev"
    extra = merged(QUIET, nested({"eval.before": asked.before}))
    if asked.fold is None:
        where = common.all_rows
        extra = merged(extra, nested({"eval.test": True, "eval.probe": None}))
    else:
        where = common.folds[asked.fold]
        rows = common.dev_rows
        most = None if rows is None else max(rows, HELD_OUT)
        extra = merged(extra, nested({"eval.every_steps": 10**9, "eval.dev_rows": most}))
    if work.kept is not None:
        extra = nested({"eval.select": "last", "eval.patience": None})
    overlay = merged(asked.settings, where, extra)
    if asked.kind != "adapter":
        return _without_training(work, overlay, split)
    found = _fit(common.values, overlay, asked.seed, work.folder, kept=work.kept, split=split)
    metrics = found.record["metrics"].get(split) or {}
    return {
        "state": COMPLETE,
        "reason": None,
        "steps": found.record["steps"],
        "tokens": found.tokens,
        **(_of_fold(found) if metrics.get("after") else NOT_SCORED),
        "base": _of_fold(found.base) if found.base else None,
        "general_loss": {when: _general_loss(metrics.get(when), found) for when in MOMENTS},
        "probe": {when: (metrics.get(when) or {}).get("probe") for when in MOMENTS},
    }


HELD_OUT = 64
"""Held-out rows at least whose loss says what a fit of the verdict has forgotten."""
NOT_SCORED: Mapping[str, Any] = {"score": None, "loss": None, "rows": []}
MOMENTS = ("before", "after")


def _without_training(
    work: FitWork, overlay: Overlay, split: Literal["dev", "test"]
) -> dict[str, Any]:
    """Score the base, with or without task rows before the prompt."""
    asked, place = work.request, work.folder
    options = written(work.common.values, merged(overlay, {"seed_everything": asked.seed}), place)
    runs = place / "runs"
    shutil.rmtree(runs, ignore_errors=True)  # what a failure has left
    score_base([*options, f"--run.dir={runs}"], few_shot=asked.kind == "few_shot", splits=[split])
    (folder,) = runs.iterdir()
    found = _fitted(folder, split)
    shutil.rmtree(runs)
    return {
        "state": COMPLETE,
        "reason": None,
        "steps": 0,
        "tokens": {},
        "examples": found.record["shots"] or {},
        **(NOT_SCORED if found.base is None else _of_fold(found.base)),
    }


def written(values: Mapping[str, Any], overlay: Overlay, place: Path) -> list[str]:
    """Write a configuration with an overlay, and return the options that name it."""
    config = merged(values, overlay)
    path = place / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return ["-c", str(path), f"--data.root={config['data']['root']}"]  # not beside the file


def _fit(
    values: Mapping[str, Any],
    overlay: Overlay,
    seed: int,
    place: Path,
    watch: Sequence["Callback"] = (),
    *,
    kept: Path | None = None,
    split: str = "dev",
) -> Fitted:
    """Run `fit` with an overlay, and read what it leaves."""
    import torch

    from tell_lightning.commands.fit import fit

    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    folder = kept or place / "run"
    if kept is None:
        shutil.rmtree(folder, ignore_errors=True)
    options = written(values, merged({"seed_everything": seed}, overlay), place)
    fit([*options, f"--folder={folder}"], callbacks=watch)
    found = _fitted(folder, split)
    if kept is None:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _fitted(folder: Path, split: str) -> Fitted:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    sources = plan.get("realised", {}).get("sources", {}).values()  # none where nothing is trained
    tokens = {
        kind: sum(source["tokens"] for source in sources if source["kind"] == kind)
        for kind in ("task", "general")
    }
    scored = record["metrics"].get(split) or {}
    config = parse_yaml((folder / "config.yaml").read_text(encoding="utf-8"))
    tasks = config["data"]["tasks"]
    scorings = {name: _scoring(task["scoring"]) for name, task in tasks.items()}
    base = None
    if before := scored.get("before"):
        answers = _answers(folder, split, "base", tasks)
        base = Fitted(record, tokens, before, answers, scorings)
    answers = _answers(folder, split, "step-*", tasks)
    return Fitted(record, tokens, scored.get("after") or {}, answers, scorings, base)


def _scoring(values: Mapping[str, Any]) -> Scoring:
    """Make the settings again that a run has written, without its baselines."""
    given = {key: value for key, value in values.items() if key not in {"baselines", "floors"}}
    labels = given.get("labels")
    return Scoring(**{**given, "labels": None if labels is None else tuple(labels)})


def _answers(
    folder: Path, split: str, moment: str, tasks: Iterable[str]
) -> dict[str, Sequence[Prediction]]:
    """Read the last answers to each task."""
    found: dict[str, Sequence[Prediction]] = {}
    for name in tasks:
        if files := sorted((folder / "predictions").glob(f"{split}-{name}-{moment}.jsonl")):
            lines = files[-1].read_text(encoding="utf-8").splitlines()
            found[name] = [_prediction(json.loads(line)) for line in lines]
    return found


def _prediction(line: Mapping[str, Any]) -> Prediction:
    names = {field.name for field in fields(Prediction)}
    known = {key: value for key, value in line.items() if key in names}
    return Prediction(**{"reference": None, **known, "row": line})


def _pooled(done: Sequence[Fitted]) -> dict[str, Any]:
    """Score the answers of several folds as those of one set."""
    scores = []
    for name in done[0].predictions:
        answers = [each for fit in done for each in fit.predictions[name]]
        values = _score_of(done[0].scorings[name], answers)
        if values is None:  # a class of the user's may need more of a row than is kept
            sizes = [len(fit.predictions[name]) for fit in done]
            alone = [_selection(fit.scores["tasks"][name]) for fit in done]
            values = sum(s * n for s, n in zip(alone, sizes, strict=True)) / sum(sizes)
        scores.append(values)
    return {"score": _rounded(sum(scores) / len(scores))}


def _score_of(scoring: Scoring, answers: Sequence[Prediction]) -> float | None:
    """Score answers, 0 to 1; None: by a class of the user's."""
    scored = _scorer(scoring, answers)
    return None if scored is None else scored(answers)


def _scorer(
    scoring: Scoring, answers: Sequence[Prediction]
) -> Callable[[Sequence[Prediction]], float] | None:
    """Return what scores some of these answers, 0 to 1; None: a class of the user's does."""
    if scoring.kind not in BUILT_IN:
        return None
    kind = kind_of(kind_of(scoring).settled([str(each.reference) for each in answers]))
    facts = facts_of(kind.primary, kind.facts)
    return lambda some: facts.selection(primary_score(kind, some))


def _of_fold(fit: Fitted) -> dict[str, Any]:
    """Return score, loss and rows of one fit."""
    rows = []
    for name, answers in fit.predictions.items():
        scoring = fit.scorings[name]
        of_rows = _row_scores(scoring, answers, _selection(fit.scores["tasks"][name]))
        rows += [
            {
                "id": f"{name}/{answer.id}",
                "score": _rounded(score),
                "prediction": answer.prediction,
                "reference": answer.reference,
            }
            for answer, score in zip(answers, of_rows, strict=True)
        ]
    scores = [_selection(scores) for scores in fit.scores["tasks"].values()]
    return {
        "score": _rounded(sum(scores) / len(scores)),
        "loss": _rounded(fit.loss),
        "seconds": fit.record["seconds"].get("total"),
        "primary": {name: of["primary"] for name, of in fit.scores["tasks"].items()},
        "rows": rows,
    }


def _row_scores(scoring: Scoring, answers: Sequence[Prediction], whole: float) -> list[float]:
    """Score each answer by itself; by a class of the user's, each as the whole."""
    scored = _scorer(scoring, answers)
    return [whole if scored is None else scored([answer]) for answer in answers]


def _selection(scores: Mapping[str, Any]) -> float:
    return Scores(**scores).selection


def _mean_loss(done: Sequence[Fitted]) -> float | None:
    return _mean(fit.loss for fit in done)


def _general_loss(scored: Mapping[str, Any] | None, fit: Fitted) -> float | None:
    losses = (scored or {}).get("loss_nats_per_token", {})
    return _mean(loss for name, loss in losses.items() if name not in fit.predictions)


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _summed(done: Sequence[Fitted]) -> dict[str, int]:
    return {kind: sum(fit.tokens[kind] for fit in done) for kind in ("task", "general")}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _watch(report: Callable[[float, float], bool], stopped: list[float]) -> "Callback":
    from tell_lightning.callbacks.stop_behind import StopBehind

    return StopBehind(report, stopped)
