"""A task's predictions become its numbers; so do the baselines, which need no model.

A set is scored once, after gathering: nothing here is averaged over batches or ranks. How a kind of
task is scored stands in `kinds`; beside it there is here what every task has.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tell_lightning.metrics import rates
from tell_lightning.metrics.intervals import Interval, Numbers, RowSums, score_intervals
from tell_lightning.metrics.kinds.base import KindScores, ScoringKind
from tell_lightning.metrics.kinds.registry import (
    BUILT_IN,
    display_of,
    kind_of,
    reading_kind,
    saved_display,
)
from tell_lightning.metrics.label_rates import share
from tell_lightning.metrics.predictions import MetricError, Prediction
from tell_lightning.metrics.score_facts import facts_of
from tell_lightning.metrics.settings import Baseline, Scoring
from tell_lightning.metrics.user_code import checked, errors_named, function_scores

WHERE = "scoring.kind"


@dataclass(frozen=True)
class Scores:
    """What a set of predictions is worth."""

    values: dict[str, float]
    """Number by name, those that apply: BLEU and chrF from 0 to 100, TER from 0 on (lower is
    better), mcc from -1 to 1, counts (rows, unparseable, words, near_ties), mean_new_tokens, what
    code of the user's returns, all others shares from 0 to 1."""
    primary: str
    """Name of the score that stands for the task."""
    signatures: dict[str, str] = field(default_factory=dict)
    """sacreBLEU's signature by score name."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    """Low and high of the 95 % interval by score name, where it was asked for."""
    details: dict[str, Any] = field(default_factory=dict)
    """What is known beside, where intervals were asked for: the confusion matrix of labels."""
    display: dict[str, Any] = field(default_factory=dict)
    """How the scores are shown, as `display_of` reads it."""

    @property
    def selection(self) -> float:
        """The primary score from 0 to 1; higher is better, so adapters are chosen by it."""
        facts = facts_of(self.primary, display_of(vars(self)).facts)
        return facts.selection(self.values[self.primary])


def score(
    scoring: Scoring, predictions: Sequence[Prediction], *, intervals: bool = False
) -> Scores:
    """Score the predictions of one evaluation set.

    Args:
        scoring: How the task is scored.
        predictions: Every row of the set once, in any order.
        intervals: Whether to compute 95 % intervals, which takes a thousand scorings, TER and
            details.

    Returns:
        What the answers are worth, and how generation went.

    Raises:
        MetricError: No predictions, settings that do not fit the kind, a row without a reference
            or with one that the kind cannot use, rows without the configured word list, or code of
            the user's that gives no numbers.
    """
    kind = _kind(scoring, predictions)
    found = _score_answers(kind, predictions)
    values = found.values | rates.generation_rates(predictions)
    if scoring.function is not None:
        values |= function_scores(scoring.function, predictions, values.keys())
    scores = Scores(values, kind.primary, found.signatures, display=saved_display(kind))
    if not intervals:
        return scores
    groups = _row_sums(kind, predictions)
    for group in groups:  # TER, too slow for dev, is in the sums alone
        values |= {name: v for name, v in group.whole().items() if name not in values}
    return replace(
        scores,
        signatures={name: text for group in groups for name, text in group.signatures.items()},
        intervals=score_intervals(groups),
        details=kind.details(predictions),
    )


def baselines(scoring: Scoring, predictions: Sequence[Prediction]) -> dict[str, Scores]:
    """Score every configured baseline on the rows of the predictions, as if it were the answer.

    Returns:
        Scores by the baseline's name, without the rates that speak of generation.

    Raises:
        MetricError: As `score`; also a baseline with both keys or none, or a row without its field.
    """
    kind = _kind(scoring, predictions)
    scored = {
        name: _score_answers(kind, baseline_answers(name, baseline, predictions))
        for name, baseline in scoring.baselines.items()
    }
    return {
        name: Scores(found.values, kind.primary, found.signatures, display=saved_display(kind))
        for name, found in scored.items()
    }


def primary_score(kind: ScoringKind, predictions: Sequence[Prediction]) -> float:
    """Compute the score that stands for the task, without the others where that is quicker.

    Raises:
        MetricError: As `score`.
    """
    with users_errors(kind):
        values = kind.preview(predictions)
    _check_primary(kind, values)
    return values[kind.primary]


def check_rows(scoring: Scoring, predictions: Sequence[Prediction]) -> ScoringKind:
    """Check whatever scoring needs of the rows but their answers; return their kind.

    Raises:
        MetricError: As `score` and `baselines`.
    """
    kind = _kind(scoring, predictions)
    with users_errors(kind):
        kind.check(predictions)
    if scoring.words_field is not None:
        rates.words_found(predictions, scoring.words_field)
    for name, baseline in scoring.baselines.items():
        baseline_answers(name, baseline, predictions)
    return kind


def row_sums(scoring: Scoring, predictions: Sequence[Prediction]) -> list[RowSums]:
    """Split each score that is a function of sums over rows into what the rows add to it.

    Args:
        scoring: How the task is scored.
        predictions: Every row of the set once, in any order.

    Returns:
        Groups of scores that share their numbers, the rows ordered by id.

    Raises:
        MetricError: As `score`.
    """
    return _row_sums(_kind(scoring, predictions), predictions)


def saved_row(prediction: Prediction, scoring: Scoring) -> dict[str, object]:
    """Return a prediction as predictions files hold it, one JSON object a line.

    Args:
        prediction: The answer.
        scoring: How the task is scored: a label is saved as it is read, and a judge's thought,
            None where they cannot be; a task with listed words is saved with these.

    Returns:
        Plain values; of the row that the answer was made from, the listed words alone, and no
        `reference` where there is none.
    """
    saved: dict[str, object] = {"id": prediction.id}
    if scoring.words_field is not None and scoring.words_field in prediction.row:
        saved[scoring.words_field] = prediction.row[scoring.words_field]
    saved["prediction"] = prediction.prediction
    if prediction.reference is not None:
        saved["reference"] = prediction.reference
    saved |= reading_kind(scoring).saved(prediction.prediction)
    rest = vars(prediction).items()
    return saved | {key: value for key, value in rest if key not in {*saved, "row", "reference"}}


def _kind(scoring: Scoring, predictions: Sequence[Prediction]) -> ScoringKind:
    """Build the kind for a set of predictions, all of which have a reference."""
    if not predictions:
        raise MetricError("score: needs one prediction or more, got none. Give a set with rows.")
    references = [p.reference for p in predictions if p.reference and p.reference.strip()]
    if len(references) < len(predictions):
        first = next(p for p in predictions if not (p.reference and p.reference.strip()))
        raise MetricError(
            f"row {first.id!r}: a scored row needs a reference, got {first.reference!r} (in "
            f"{len(predictions) - len(references)} of {len(predictions)} rows). Map the task's "
            "response field, or use predict, which needs no references."
        )
    kind = kind_of(scoring)
    settled = kind.settled(references)
    return kind if settled is kind.scoring else kind_of(settled)


def _score_answers(kind: ScoringKind, predictions: Sequence[Prediction]) -> KindScores:
    """Score answers by their kind, and by what every task has of them."""
    answers = [prediction.prediction for prediction in predictions]
    values = {"rows": float(len(answers)), "empty_rate": rates.empty_rate(answers)}
    with users_errors(kind):
        found = kind.score(predictions)
    path = kind.scoring.kind
    values |= found.values if path in BUILT_IN else checked(WHERE, path, found.values, values)
    _check_primary(kind, found.values)
    if (words_field := kind.scoring.words_field) is not None:
        words, listed = rates.words_found(predictions, words_field)
        values |= {"words": float(listed), "words_recall": words / listed} if listed else {}
    return KindScores(values, found.signatures)


def _check_primary(kind: ScoringKind, values: Mapping[str, float]) -> None:
    if kind.primary not in values:
        raise MetricError(
            f"{WHERE}: {kind.scoring.kind} must compute its primary score {kind.primary!r}, got "
            f"{', '.join(values) or 'none'}. Name one of these as scoring.primary."
        )


def _row_sums(kind: ScoringKind, predictions: Sequence[Prediction]) -> list[RowSums]:
    ordered = sorted(predictions, key=lambda prediction: prediction.id)
    with users_errors(kind):
        groups = kind.row_sums(ordered)
    if (words_field := kind.scoring.words_field) is None:
        return groups
    words = [rates.words_found([prediction], words_field) for prediction in ordered]
    return [*groups, RowSums(np.array(words, dtype=np.float64), _words_recall)]


def users_errors(kind: ScoringKind) -> AbstractContextManager[None]:
    """Name what goes wrong in a class of the user's."""
    path = kind.scoring.kind
    return nullcontext() if path in BUILT_IN else errors_named(WHERE, path)


def _words_recall(sums: Numbers) -> dict[str, Numbers]:
    """Compute the share of listed words; a draw without any has none."""
    found, listed = sums[..., 0], sums[..., 1]
    return {"words_recall": np.where(listed > 0, share(found, listed), np.nan)}


def baseline_answers(
    name: str, baseline: Baseline, predictions: Sequence[Prediction]
) -> list[Prediction]:
    """Put the answers of a baseline in the place of the predictions.

    Raises:
        MetricError: A baseline with both keys or none, or a row without its field.
    """
    return [replace(p, prediction=_baseline_answer(name, baseline, p)) for p in predictions]


def _baseline_answer(name: str, baseline: Baseline, prediction: Prediction) -> str:
    where = f"scoring.baselines.{name}"
    if (baseline.field is None) == (baseline.text is None):
        got = "neither" if baseline.field is None else "both"
        raise MetricError(f"{where}: needs either field or text, got {got}. Give one of them.")
    answer = baseline.text if baseline.field is None else prediction.row.get(baseline.field)
    if not isinstance(answer, str):
        raise MetricError(
            f"{where}.field: every row needs the text field {baseline.field!r}, got {answer!r:.80} "
            f"in row {prediction.id!r}. The row has: {', '.join(prediction.row)}."
        )
    return answer.strip()
