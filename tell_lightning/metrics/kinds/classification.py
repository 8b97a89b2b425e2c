"""The kinds `classification`, any set of labels, and `judge`, its case of no and yes in JSON.

An answer gives its label as plain text, or under `scoring.label_key` of a JSON object. One without
a readable label is a predicted class of its own: it is counted, and never right.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tell_lightning.metrics.characters import composed
from tell_lightning.metrics.intervals import RowSums
from tell_lightning.metrics.json_text import is_repairable, read_object
from tell_lightning.metrics.kinds.base import KindScores, Reading, ScoringKind, Verdict
from tell_lightning.metrics.label_rates import (
    Indices,
    label_counts,
    label_details,
    label_rates,
)
from tell_lightning.metrics.predictions import MetricError, Prediction
from tell_lightning.metrics.score_facts import JSON_VALID, ScoreFacts, ratio
from tell_lightning.metrics.settings import Scoring

FORM = "Form of the answer"
MOST_LABELS = 1000
"""More different references than this are texts, and no labels."""


class Classification(ScoringKind):
    """One of a set of labels."""

    facts: Mapping[str, ScoreFacts] = {
        "balanced_accuracy": ratio("balanced accuracy", "Labels"),
        "accuracy": ratio("accuracy", "Labels"),
        "majority_accuracy": ScoreFacts(
            "accuracy of always the majority label", "ratio", 2, "neither", "Labels"
        ),
        "precision": ratio("precision", "Labels"),
        "recall": ratio("recall", "Labels"),
        "f1": ratio("F1", "Labels"),
        "macro_precision": ratio("macro precision", "Labels"),
        "macro_recall": ratio("macro recall", "Labels"),
        "macro_f1": ratio("macro F1", "Labels"),
        "mcc": ratio("MCC", "Labels"),
        "json_valid": JSON_VALID,
        "json_valid_repaired": ScoreFacts("valid JSON after repair", "share", 0, group=FORM),
        "label_valid": ScoreFacts("readable label", "share", 0, group=FORM),
        "unparseable": ScoreFacts("answers without a readable label", "count", 0, "lower", FORM),
    }
    primary = "balanced_accuracy"
    table: Sequence[str] = ("balanced_accuracy", "accuracy", "f1", "macro_f1", "label_valid")
    report: Sequence[str] = (
        "balanced_accuracy",
        "accuracy",
        "majority_accuracy",
        "f1",
        "macro_f1",
        "mcc",
        "label_valid",
    )
    summary: Sequence[str] = (
        *("balanced_accuracy", "accuracy", "majority_accuracy", "f1", "macro_f1"),
        *("label_valid", "words_recall", "stop_rate"),
    )
    verdicts = ("right", "wrong", "unreadable")

    def __init__(self, scoring: Scoring) -> None:
        """Take the settings.

        Raises:
            MetricError: A positive label that is none.
        """
        scoring = _composed(scoring)
        super().__init__(scoring)
        self.key, self.labels = scoring.label_key, scoring.labels
        if self.labels and scoring.positive not in {None, *self.labels}:
            raise MetricError(
                f"scoring.positive: must be one of scoring.labels ({_listed(self.labels)}), "
                f"got {scoring.positive!r}. Name one of them."
            )
        bare = Counter(_bare(label) for label in self.labels or ())
        self._by_word = {
            word: label for label in self.labels or () if bare[word := _bare(label)] == 1 and word
        }

    def settled(self, references: Iterable[str], labels: Iterable[str] = ()) -> Scoring:
        """Take the labels from the references, where none are given.

        Raises:
            MetricError: The references are no labels.
        """
        if self.is_settled:
            return self.scoring
        read = (self.read(reference, reference=True).label for reference in references)
        found = tuple(sorted({label for label in (*read, *labels) if label is not None}))
        if not 0 < len(found) <= MOST_LABELS:
            raise MetricError(
                f"scoring.labels: the references must be labels, got {len(found):,} different "
                "ones. Give scoring.labels, or scoring.label_key where they are in JSON."
            )
        return type(self)(replace(self.scoring, labels=found)).scoring

    def score(self, predictions: Sequence[Prediction]) -> KindScores:
        """Score labels, and the form that they come in."""
        from tell_lightning.metrics.label_scores import label_scores  # loads torch

        gold, found, labels = self._indices(predictions)
        unparseable = int((found == labels).sum())
        answers = [prediction.prediction for prediction in predictions]
        values = label_scores(gold, found, labels, self._positive)
        values |= {
            "majority_accuracy": float(np.bincount(gold).max() / len(gold)),
            "label_valid": 1 - unparseable / len(answers),
            "unparseable": float(unparseable),
        }
        if self.key:
            values |= _json_valid(answers).whole()
            values["json_valid_repaired"] = sum(map(is_repairable, answers)) / len(answers)
        return KindScores(values)

    def preview(self, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """Score by the counts of the rows, without torch."""
        return ScoringKind.score(self, predictions).values

    def perfect(self, reference: str) -> str:
        """Return the reference, or its label in JSON where the reference is a bare word."""
        label = self.read(reference, reference=True).label
        bare = self.key is not None and self.read(reference).label is None
        return json.dumps({self.key: label}, ensure_ascii=False) if bare else reference

    def check(self, predictions: Sequence[Prediction]) -> None:
        """Check that every reference gives one of the labels.

        Raises:
            MetricError: One that does not.
        """
        for prediction in predictions:
            self._gold(prediction)

    def notes(self, references: Sequence[str]) -> Iterator[str]:
        """Name labels that no reference has, and references that all have the same one."""
        found = {self.read(reference, reference=True).label for reference in references}
        if lacking := [label for label in self.labels or () if label not in found]:
            yield (
                f"scoring.labels: no reference has {_listed(lacking)}. Correct the labels, or add "
                "rows with them."
            )
        if len(found) == 1:
            yield (
                f"scoring.labels: all references have {next(iter(found))!r}, so a constant answer "
                "is always right. Add rows with other labels."
            )

    def row_sums(self, predictions: Sequence[Prediction]) -> list[RowSums]:
        """Give the counts of labels, and of valid JSON or of readable labels."""
        gold, found, labels = self._indices(predictions)
        counts = label_counts(gold, found, labels)
        readable = RowSums.means({"label_valid": (found < labels).tolist()})
        form = _json_valid([p.prediction for p in predictions]) if self.key else readable
        return [RowSums(counts, lambda sums: label_rates(sums, self._positive)), form]

    def details(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return precision and recall of each label, and the confusion matrix."""
        found = [self.read(prediction.prediction).label for prediction in predictions]
        return label_details([self._gold(prediction) for prediction in predictions], found)

    def read(self, text: str, *, reference: bool = False) -> Reading:
        """Read the label, and the thought where there is one.

        Of a reference the bare word is a label, too, where answers are JSON: some files hold no
        more than `Yes.`.
        """
        text = composed(text)
        values = read_object(text) or {}
        label = self._known(values.get(self.key)) if self.key else self._word(text)
        if label is None and reference and not text.lstrip().startswith("{"):
            label = self._word(text)
        thought = values.get(self.scoring.thought_key or "")
        return Reading(thought if isinstance(thought, str) and thought else text, label)

    def verdict(self, answer: Reading, reference: Reading) -> Verdict:
        """Say whether the label is the right one."""
        if answer.label is None:
            return "unreadable"
        return "right" if answer.label == reference.label else "wrong"

    def columns(self, answer: str, reference: str) -> dict[str, Any]:
        """Return the label as it is read, and whether it is right."""
        label = self.read(answer).label
        right = label is not None and label == self.read(reference, reference=True).label
        return {"label": label or "unparseable", "right": right}

    def saved(self, answer: str) -> dict[str, Any]:
        """Return the label as it is read and the thought; None where they cannot be read."""
        saved: dict[str, Any] = {"label": self.read(answer).label}
        if self.scoring.thought_key:
            saved["thought"] = (read_object(answer) or {}).get(self.scoring.thought_key)
        return saved

    @property
    def is_settled(self) -> bool:
        """Say whether the labels are known."""
        return bool(self.labels)

    @property
    def reading(self) -> list[Any]:
        """What decides the label and the thought."""
        return [self.key, self.scoring.thought_key, self.labels]

    @property
    def _positive(self) -> int | None:
        positive = self.scoring.positive
        return None if positive is None else (self.labels or ()).index(positive)

    def _indices(self, predictions: Sequence[Prediction]) -> tuple[Indices, Indices, int]:
        """Return the index of each row's right and read label, and how many labels there are."""
        place: dict[str | None, int] = {label: i for i, label in enumerate(self.labels or ())}
        gold = [place[self._gold(prediction)] for prediction in predictions]
        found = [place.get(self.read(p.prediction).label, len(place)) for p in predictions]
        return np.array(gold), np.array(found), len(place)

    def _gold(self, prediction: Prediction) -> str:
        label = self.read(prediction.reference or "", reference=True).label
        if label is None:
            form = f", bare or under {self.key!r} in a JSON object" if self.key else ""
            raise MetricError(
                f"row {prediction.id!r}: the reference must be one of {_listed(self.labels or ())}"
                f"{form}, got {prediction.reference!r:.80}. Correct the row, scoring.labels or "
                "scoring.label_key."
            )
        return label

    def _known(self, value: object) -> str | None:
        """Return a value that is a label; any text is one where the labels are not known yet.

        Numbers, true and false are labels, too, as JSON writes them.
        """
        value = json.dumps(value) if isinstance(value, bool | int | float) else value
        return value if isinstance(value, str) and value in (self.labels or (value,)) else None

    def _word(self, text: str) -> str | None:
        """Return the label that a text is, literally or but for case and outer punctuation."""
        word = text.strip()
        return (self._known(word) or self._by_word.get(_bare(word))) if word else None


class Judge(Classification):
    """A verdict, no or yes, in a JSON object with a thought: a case of classification."""

    table = ("balanced_accuracy", "accuracy", "f1", "macro_f1", "json_valid")
    positive = "yes"
    report = ("balanced_accuracy", "accuracy", "majority_accuracy", "f1", "mcc", "json_valid")
    summary = (
        *("balanced_accuracy", "accuracy", "majority_accuracy", "f1", "json_valid"),
        *("words_recall", "stop_rate"),
    )

    def __init__(self, scoring: Scoring) -> None:
        """Take the settings; what they leave open is that of the paper's task.

        Raises:
            MetricError: A positive label that is none.
        """
        given = {name: getattr(scoring, name) or value for name, value in PAPERS_TASK.items()}
        if scoring.positive is None and given["positive"] not in given["labels"]:
            given["positive"] = None
        super().__init__(replace(scoring, **given))


PAPERS_TASK: Mapping[str, Any] = {
    "label_key": "hallucination",
    "thought_key": "thought",
    "labels": ("no", "yes"),
    "positive": "yes",
}
"""What the kind `judge` takes where nothing else is given."""


def _json_valid(answers: Sequence[str]) -> RowSums:
    return RowSums.means({"json_valid": [read_object(answer) is not None for answer in answers]})


def _listed(labels: Collection[str], most: int = 10) -> str:
    """List labels, the first of them where they are many."""
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(list(labels)[:most]) + more


def _composed(scoring: Scoring) -> Scoring:
    """Write the labels in composed characters, as answers are read."""
    labels, positive = scoring.labels and tuple(map(composed, scoring.labels)), scoring.positive
    return replace(scoring, labels=labels, positive=positive and composed(positive))


def _bare(text: str) -> str:
    """Leave out the case, and punctuation, symbols and white space on the outside, of any script.

    >>> _bare("«Ja!» "), _bare("正确。")
    ('ja', '正确')
    """
    inner = [i for i, letter in enumerate(text) if unicodedata.category(letter)[0] not in "PSZC"]
    return text[inner[0] : inner[-1] + 1].casefold() if inner else ""
