"""A task's predictions become its numbers; so do the floors that need no model.

The scoring section and the predictions of one whole evaluation set enter; flat named numbers, the
signatures that make them comparable and the one that adapters are chosen by leave. A set is scored
once, after gathering: nothing here is averaged over batches or ranks. Milliseconds, translation
aside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tell_lightning.metrics import labels, text, translation
from tell_lightning.metrics.functions import function_scores
from tell_lightning.metrics.intervals import Interval, row_sums, score_intervals
from tell_lightning.metrics.predictions import MetricError, Prediction
from tell_lightning.metrics.score_facts import SCORE_FACTS
from tell_lightning.metrics.settings import Floor, Kind, Scoring

PRIMARY: dict[Kind, str] = {
    "translation": "bleu",
    "judge": "balanced_accuracy",
    "text": "exact_match",
}
"""The score that stands for a task of each kind."""
assert all(SCORE_FACTS[name].better == "higher" for name in PRIMARY.values())


@dataclass(frozen=True)
class Scores:
    """What a set of predictions is worth."""

    values: dict[str, float]
    """Number by name, those that apply: BLEU and chrF from 0 to 100, TER from 0 on (lower is
    better), mcc from -1 to 1, counts (rows, unparseable, words, near_ties), mean_new_tokens, what a
    function of the user's returns, all others shares from 0 to 1."""
    primary: str
    """Name of the score that stands for the task."""
    signatures: dict[str, str] = field(default_factory=dict)
    """sacreBLEU's signature by score name."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    """Low and high of the 95 % interval by score name, where it was asked for."""

    @property
    def selection(self) -> float:
        """The primary score from 0 to 1; higher is better, so adapters are chosen by it."""
        return self.values[self.primary] / (100 if self.primary == "bleu" else 1)


def score(
    scoring: Scoring, predictions: Sequence[Prediction], *, intervals: bool = False
) -> Scores:
    """Score the predictions of one evaluation set.

    Args:
        scoring: How the task is scored.
        predictions: Every row of the set once, in any order.
        intervals: Whether to compute 95 % intervals, which takes a thousand scorings, and TER.

    Returns:
        What the answers are worth, and how generation went.

    Raises:
        MetricError: No predictions, a row without a reference or with one that is no label, rows
            without the configured word list, a positive label that is none, or a function of the
            user's that gives no numbers.
    """
    scores = _score_answers(scoring, predictions)
    values = scores.values | text.generation_rates(predictions)
    if scoring.function is not None:
        values |= function_scores(scoring.function, predictions, values.keys())
    if not intervals:
        return replace(scores, values=values)
    groups = row_sums(scoring, predictions)
    for group in groups:  # TER, too slow for dev, is in the sums alone
        values |= {name: v for name, v in group.whole().items() if name not in values}
    return replace(
        scores,
        values=values,
        signatures={name: text for group in groups for name, text in group.signatures.items()},
        intervals=score_intervals(groups),
    )


def floors(scoring: Scoring, predictions: Sequence[Prediction]) -> dict[str, Scores]:
    """Score every configured floor on the rows of the predictions, as if it were the answer.

    Returns:
        Scores by the floor's name, without the rates that speak of generation.

    Raises:
        MetricError: As `score`; also a floor with both keys or none, or a row without its field.
    """
    return {
        name: _score_answers(
            scoring, [replace(p, prediction=_floor_answer(name, floor, p)) for p in predictions]
        )
        for name, floor in scoring.floors.items()
    }


def _score_answers(scoring: Scoring, predictions: Sequence[Prediction]) -> Scores:
    references = _references(predictions)
    answers = [prediction.prediction for prediction in predictions]
    values = {"rows": float(len(answers)), "empty_rate": text.empty_rate(answers)}
    signatures = {}
    if scoring.kind == "judge":
        values |= _score_labels(scoring, predictions, references)
    else:
        values["exact_match"] = text.exact_match(answers, references)
    if scoring.kind == "translation":
        for name, corpus in translation.corpus_scores(answers, references).items():
            values[name], signatures[name] = corpus
        values["line_mismatch_rate"] = translation.line_mismatch_rate(answers, references)
    if scoring.words_field is not None:
        found, listed = text.words_found(predictions, scoring.words_field)
        if listed:
            values |= {"words": float(listed), "words_recall": found / listed}
    return Scores(values, PRIMARY[scoring.kind], signatures)


def _score_labels(
    scoring: Scoring, predictions: Sequence[Prediction], references: Sequence[str]
) -> dict[str, float]:
    if scoring.positive not in scoring.labels:
        raise MetricError(
            f"scoring.positive: must be one of scoring.labels ({', '.join(scoring.labels)}), "
            f"got {scoring.positive!r}. Name one of them."
        )
    gold = []
    for prediction, reference in zip(predictions, references, strict=True):
        label = labels.read_gold(reference, scoring.label_key, scoring.labels)
        if label is None:
            raise MetricError(
                f"row {prediction.id!r}: the reference must be one of {', '.join(scoring.labels)}, "
                f"bare or under {scoring.label_key!r} in a JSON object, got {reference!r:.80}. "
                "Mend the row, scoring.labels or scoring.label_key."
            )
        gold.append(label)
    answers = [prediction.prediction for prediction in predictions]
    found = [labels.read_label(answer, scoring.label_key, scoring.labels) for answer in answers]
    confusion = labels.Confusion.of(scoring.labels, gold, found)
    return {
        "accuracy": confusion.accuracy(),
        "majority_accuracy": confusion.majority_accuracy(),
        "balanced_accuracy": confusion.balanced_accuracy(),
        "precision": confusion.precision(scoring.positive),
        "recall": confusion.recall(scoring.positive),
        "f1": confusion.f1(scoring.positive),
        "mcc": confusion.mcc(),
        "json_valid": sum(labels.read_object(a) is not None for a in answers) / len(answers),
        "json_valid_repaired": sum(map(labels.is_repairable, answers)) / len(answers),
        "label_valid": 1 - confusion.answers(None) / len(answers),
        "unparseable": float(confusion.answers(None)),
    }


def _references(predictions: Sequence[Prediction]) -> list[str]:
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
    return references


def _floor_answer(name: str, floor: Floor, prediction: Prediction) -> str:
    if (floor.field is None) == (floor.text is None):
        got = "neither" if floor.field is None else "both"
        raise MetricError(
            f"scoring.floors.{name}: needs either field or text, got {got}. Give one of them."
        )
    answer = floor.text if floor.field is None else prediction.row.get(floor.field)
    if not isinstance(answer, str):
        raise MetricError(
            f"scoring.floors.{name}.field: every row needs the text field {floor.field!r}, "
            f"got {answer!r:.80} in row {prediction.id!r}. "
            f"The row has: {', '.join(prediction.row)}."
        )
    return answer.strip()
