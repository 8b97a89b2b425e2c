"""Scores as functions of sums: the counts that each test row adds, and the score of a sum of rows.

A row is a list of whole numbers, and the score of a sum of rows is in points from 0 to 100. So rows
and seeds of a result file can be resampled without its answers.

    bleu                correct and total n-grams of orders 1 to 4, length, length of the reference
    balanced_accuracy   of each label, the positive one first: right rows, rows
    accuracy            right, 1; right is a label that is read as the reference's
    exact_match         right, 1; right is an answer that equals its reference

The counts of BLEU are sacreBLEU's own. The score of many sums at once is not: `report experiments`
computes it 31 million times, in 6 s here and in 150 s by `BLEU.compute_bleu`. A test compares the
two.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tell_lightning.metrics import label_rates
from tell_lightning.metrics.characters import composed, is_exact
from tell_lightning.metrics.kinds.registry import reading_kind
from tell_lightning.metrics.kinds.translation import bleu_metric, join_lines, settled_tokenizer
from tell_lightning.metrics.settings import Scoring

Counts = NDArray[np.float64]
"""Sums over rows in the last axis, any axes before it."""

ORDERS = 4


def bleu(sums: Counts) -> NDArray[np.float64]:
    """Compute corpus BLEU as sacreBLEU does, with exponential smoothing.

    Args:
        sums: Correct and total n-grams, lengths of answers and references, [..., 10].

    Returns:
        Points, [...].

    >>> float(bleu(np.array([4, 3, 2, 1, 4, 3, 2, 1, 4, 4])))
    100.0
    """
    sums = np.asarray(sums, dtype=np.float64)
    correct, total = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    length, reference = sums[..., -2], sums[..., -1]
    # Each order without a hit counts half as much as the one before it, and one hit.
    halvings = np.cumsum((correct == 0) & (total > 0), axis=-1)
    hits = np.where(correct > 0, correct, 0.5**halvings)
    some = (total > 0).all(axis=-1) & (correct > 0).any(axis=-1)
    precisions = np.where(total > 0, hits, 1.0) / np.maximum(total, 1.0)
    geometric = np.exp(np.log(precisions).mean(axis=-1))
    short = np.minimum(1 - reference / np.maximum(length, 1.0), 0.0)
    return np.where(some, 100 * np.exp(short) * geometric, 0.0)


def balanced_accuracy(sums: Counts) -> NDArray[np.float64]:
    """Compute the mean recall of the labels that occur, in points, [...].

    Args:
        sums: Of each label right rows and rows, [..., 2 * labels].

    >>> float(balanced_accuracy(np.array([3, 4, 1, 4])))
    50.0
    """
    sums = np.asarray(sums, dtype=np.float64)
    return 100 * label_rates.balanced_accuracy(sums[..., 0::2], sums[..., 1::2])


def right_rows(sums: Counts) -> NDArray[np.float64]:
    """Compute the share of right rows, in points, [...].

    Args:
        sums: Right rows, rows, [..., 2].
    """
    sums = np.asarray(sums, dtype=np.float64)
    return 100 * sums[..., 0] / np.maximum(sums[..., 1], 1.0)


SCORES: Mapping[str, Callable[[Counts], NDArray[np.float64]]] = {
    "bleu": bleu,
    "balanced_accuracy": balanced_accuracy,
    "accuracy": right_rows,
    "exact_match": right_rows,
}
"""From sums over rows to points, by the name of the score."""


def items(score: str, predictions: Sequence[Mapping[str, Any]], scoring: Scoring) -> dict[str, Any]:
    """Split a score into what each row adds.

    Args:
        score: Its name in `SCORES`.
        predictions: The lines of a predictions file, with references, in any order.
        scoring: How the task is scored.

    Returns:
        `statistic` and `rows`, ordered by the rows' ids, so that two files of the same test set
        have the same row in the same place.
    """
    ordered = sorted(predictions, key=lambda line: str(line["id"]))
    answers = [str(line["prediction"]) for line in ordered]
    references = [str(line["reference"]) for line in ordered]
    return {"statistic": score, "rows": _ROWS[score](answers, references, scoring)}


def holds_items(value: Any) -> bool:
    """Return whether a value has the form of what `items` returns."""
    if not isinstance(value, Mapping) or not isinstance(value.get("rows"), list):
        return False
    statistic, rows = value.get("statistic"), value["rows"]
    numbers = all(
        isinstance(row, list) and all(isinstance(each, int | float) for each in row) for row in rows
    )
    if statistic not in tuple(SCORES) or not rows or not numbers:
        return False
    width, *others = {len(row) for row in rows}
    fits = width == 2 * ORDERS + 2 if statistic == "bleu" else width > 0 and width % 2 == 0
    return fits and not others


def _ngrams(answers: Sequence[str], references: Sequence[str], how: Scoring) -> list[list[int]]:
    ours, theirs = ([join_lines(composed(text)) for text in each] for each in (answers, references))
    metric = bleu_metric(settled_tokenizer(how, references))
    rows = metric._extract_corpus_statistics(ours, [theirs])
    return [[int(count) for count in (*row[2:], *row[:2])] for row in rows]


def _recalls(answers: Sequence[str], references: Sequence[str], how: Scoring) -> list[list[int]]:
    kind = reading_kind(reading_kind(how).settled(references))
    labels = sorted(kind.scoring.labels or (), key=lambda label: label != kind.scoring.positive)
    rows = []
    for answer, reference in zip(answers, references, strict=True):
        gold = kind.read(reference, reference=True).label
        right = int(kind.read(answer).label == gold)
        rows.append(
            [each for label in labels for each in ([right, 1] if label == gold else [0, 0])]
        )
    return rows


def _labels(answers: Sequence[str], references: Sequence[str], how: Scoring) -> list[list[int]]:
    kind = reading_kind(reading_kind(how).settled(references))
    pairs = [
        (kind.read(answer).label, kind.read(reference, reference=True).label)
        for answer, reference in zip(answers, references, strict=True)
    ]
    return [[int(found == gold), 1] for found, gold in pairs]


def _matches(answers: Sequence[str], references: Sequence[str], _: Scoring) -> list[list[int]]:
    pairs = zip(answers, references, strict=True)
    return [[int(is_exact(answer, reference)), 1] for answer, reference in pairs]


_ROWS: Mapping[str, Callable[[Sequence[str], Sequence[str], Scoring], list[list[int]]]] = {
    "bleu": _ngrams,
    "balanced_accuracy": _recalls,
    "accuracy": _labels,
    "exact_match": _matches,
}
