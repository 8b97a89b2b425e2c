"""The scoring kinds by name, or by the path of a class. A kind is imported when it is asked for."""

import difflib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from typing import Any, cast

from tell_lightning.metrics.kinds.base import ScoringKind
from tell_lightning.metrics.kinds.text import Text
from tell_lightning.metrics.predictions import MetricError
from tell_lightning.metrics.score_facts import OF_EVERY_TASK, ScoreFacts, facts_of
from tell_lightning.metrics.settings import Scoring
from tell_lightning.metrics.user_code import arguments_named, check_place, errors_named, load

HERE = "tell_lightning.metrics.kinds"
BUILT_IN: Mapping[str, str] = {
    "translation": f"{HERE}.translation.Translation",
    "judge": f"{HERE}.classification.Judge",
    "classification": f"{HERE}.classification.Classification",
    "json": f"{HERE}.json_fields.JsonFields",
    "text": f"{HERE}.text.Text",
}
"""Class path by name."""


@dataclass(frozen=True)
class Display:
    """How the scores of a task are shown."""

    table: tuple[str, ...]
    """The few scores in the table on the screen."""
    report: tuple[str, ...]
    """The scores that stand first in the report."""
    summary: tuple[str, ...]
    """The scores in the line after each evaluation."""
    facts: Mapping[str, ScoreFacts]
    """What is known of scores that do not come with the package."""
    positive: str | None = None
    """The label that precision, recall and F1 are of."""

    def facts_of(self, name: str) -> ScoreFacts:
        """Return what is known of a score."""
        return facts_of(name, self.facts)


@cache
def built_in(name: str) -> type[ScoringKind]:
    """Import a kind that comes with the package."""
    module, _, kind = BUILT_IN[name].rpartition(".")
    return cast("type[ScoringKind]", getattr(import_module(module), kind))


def kind_of(scoring: Scoring) -> ScoringKind:
    """Build the kind that scores a task.

    Raises:
        MetricError: There is no such kind, or settings that do not fit it.
    """
    check_kind(scoring.kind)
    if scoring.kind not in BUILT_IN:
        return _user_kind(scoring)
    if scoring.init_args:
        raise MetricError(
            f"scoring.init_args: must be empty for scoring.kind: {scoring.kind}, got "
            f"{', '.join(scoring.init_args)}. Leave it out; it is for kinds by class path."
        )
    return built_in(scoring.kind)(scoring)


def check_kind(kind: str, where: str = "scoring.kind") -> None:
    """Check the name of a kind, or that the file or package of its path exists; nothing is run.

    Args:
        kind: What is given.
        where: By what it is given.

    Raises:
        MetricError: There is none.
    """
    if kind in BUILT_IN:
        return
    if "." in kind:
        check_place(where, kind)
        return
    close = difflib.get_close_matches(kind, BUILT_IN, n=1)
    advice = f"Did you mean '{close[0]}'?" if close else "Choose one of them."
    raise MetricError(
        f"{where}: must be one of {', '.join(BUILT_IN)} or a class path, got {kind!r}. {advice}"
    )


def reading_kind(scoring: Scoring) -> ScoringKind:
    """Build the kind that reads single answers, for predictions files and the report.

    It is `text` for a torchmetrics metric, for which no torch is loaded, and for a class of the
    user's that is not there any more.
    """
    if scoring.kind in BUILT_IN:
        return kind_of(scoring)
    with suppress(MetricError):
        if not scoring.kind.startswith("torchmetrics.") and _is_kind(load("", scoring.kind)):
            return kind_of(scoring)
    return Text(Scoring())


def primary_of(scoring: Scoring) -> str:
    """Name the score that stands for a task; of a class path that names none, nothing is known."""
    known = built_in(scoring.kind).primary if scoring.kind in BUILT_IN else ""
    return scoring.primary or known


def saved_display(kind: ScoringKind) -> dict[str, Any]:
    """Return what `run.json` says of how scores are shown: the kind, of a class path all of it."""
    if kind.scoring.kind in BUILT_IN:
        own = kind.scoring.positive != kind.positive
        return {"kind": kind.scoring.kind, **({"positive": kind.scoring.positive} if own else {})}
    table = kind.table or tuple(kind.facts)[:4]
    return {
        "kind": kind.scoring.kind,
        "table": list(table),
        "report": list(kind.report or table),
        "summary": list(kind.summary or table),
        "facts": {name: asdict(facts) for name, facts in kind.facts.items()},
    }


def display_of(scores: Mapping[str, Any]) -> Display:
    """Say how the scores of a task are shown.

    Args:
        scores: What `run.json` holds of them, also of an older version: it knows the primary score.
    """
    saved, primary = scores.get("display") or {}, scores["primary"]
    if "facts" in saved:
        facts = {name: ScoreFacts(**values) for name, values in saved["facts"].items()}
        shown = [saved[place] for place in ("table", "report", "summary")]
        positive = None
    else:
        facts = {}
        named = (name for name in BUILT_IN if built_in(name).primary == primary)
        kind = built_in(saved.get("kind") or next(named, "text"))
        shown = [kind.table, kind.report or kind.table, kind.summary or kind.table]
        positive = saved.get("positive", kind.positive)
    # A primary score that the user has chosen may stand in none of the lists.
    table, report, summary = (tuple(dict.fromkeys((primary, *names))) for names in shown)
    return Display(table, report, summary, facts, positive)


def _user_kind(scoring: Scoring) -> ScoringKind:
    """Build a kind from a class path: a ScoringKind, or a torchmetrics metric."""
    where, path = "scoring.kind", scoring.kind
    found = load(where, path)
    if _is_kind(found):
        with arguments_named(path) if scoring.init_args else errors_named(where, path):
            kind: ScoringKind = found(scoring, **scoring.init_args)
        if taken := kind.facts.keys() & OF_EVERY_TASK.keys():
            raise MetricError(
                f"{where}: {path} must give its scores new names, got {min(taken)!r}, which every "
                "task has. Rename it."
            )
        return kind
    if any(base.__module__ == "torchmetrics.metric" for base in getattr(found, "__mro__", ())):
        from tell_lightning.metrics.kinds.torch_metric import TorchMetric  # loads torch

        return TorchMetric(scoring, found)
    raise MetricError(
        f"{where}: {path} must be a subclass of torchmetrics.Metric or of "
        f"tell_lightning.metrics.kinds.ScoringKind, got {found!r:.80}. Name another class."
    )


def _is_kind(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, ScoringKind)
