"""How often labels are right, as functions of counts: for intervals, comparisons and the report.

Without torch, and for any number of counts at once. `label_scores` computes the same rates of one
set of predictions with torchmetrics; a test holds them equal. Where nothing is counted, a rate is
0. An answer without a readable label is a predicted class of its own, and never right.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tell_lightning.metrics.intervals import Numbers

Indices = NDArray[np.int64]


def label_counts(gold: Indices, found: Indices, labels: int) -> Numbers:
    """Count for each row what `label_rates` needs, so that sums over rows are enough.

    Args:
        gold: Index of the right label, [rows].
        found: Index of the label that was read; `labels` where there is none, [rows].
        labels: How many labels there are.

    Returns:
        Right answers of each label, rows of each label, and answers with each label and with
        none, [rows, 3 * labels + 1].
    """
    right, answers = np.eye(labels)[gold], np.eye(labels + 1)[found]
    return np.concatenate([right * answers[:, :-1], right, answers], axis=1)


def label_rates(counts: Numbers, positive: int | None) -> dict[str, Numbers]:
    """Compute the rates of summed counts.

    Args:
        counts: Sums of `label_counts`, [..., 3 * labels + 1].
        positive: Index of the label that precision, recall and F1 are of; None: their mean over
            the labels that occur, on either side.

    Returns:
        By the names of the scores, [...].
    """
    hits, gold, answers = _parts(counts)
    each = {
        "precision": share(hits, answers[..., :-1]),
        "recall": share(hits, gold),
        "f1": share(2 * hits, gold + answers[..., :-1]),
    }
    if positive is None:
        occurs = gold + answers[..., :-1] > 0
        rates = {f"macro_{name}": _mean_of(values, occurs) for name, values in each.items()}
    else:
        rates = {name: values[..., positive] for name, values in each.items()}
    return {
        "accuracy": share(hits.sum(-1), gold.sum(-1)),
        "balanced_accuracy": balanced_accuracy(hits, gold),
        **rates,
        "mcc": mcc(hits.sum(-1), gold, answers),
    }


def label_details(gold: Sequence[str], found: Sequence[str | None]) -> dict[str, Any]:
    """Count labels one by one.

    Args:
        gold: The right label of each row.
        found: The label that was read; None where there is none.

    Returns:
        Under `labels` for each label its rows, precision and recall; under `confusion` the rows by
        right and read label, and under `unparseable` those without a readable label by right label,
        both without zeros.

    >>> label_details(["a", "a", "b"], ["a", None, "a"])["confusion"]
    {'a': {'a': 1}, 'b': {'a': 1}}
    """
    counts, rows, answers = Counter(zip(gold, found, strict=True)), Counter(gold), Counter(found)
    labels = sorted({*rows, *(label for label in answers if label is not None)})
    confusion = {right: {f: counts[right, f] for f in labels if counts[right, f]} for right in rows}
    return {
        "labels": {
            label: {
                "rows": rows[label],
                "precision": counts[label, label] / (answers[label] or 1),
                "recall": counts[label, label] / (rows[label] or 1),
            }
            for label in labels
        },
        "confusion": {right: confusion[right] for right in labels if right in rows},
        "unparseable": {right: counts[right, None] for right in labels if counts[right, None]},
    }


def _parts(counts: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return hits, [..., labels], rows, [..., labels], and answers, [..., labels + 1]."""
    labels = counts.shape[-1] // 3
    return counts[..., :labels], counts[..., labels : 2 * labels], counts[..., 2 * labels :]


def balanced_accuracy(hits: Numbers, gold: Numbers) -> Numbers:
    """Compute the mean recall over the labels that occur, 0 to 1.

    Args:
        hits: Right answers of each label, [..., labels].
        gold: Rows of each label, [..., labels].
    """
    return _mean_of(share(hits, gold), gold > 0)


def mcc(hits: Numbers, gold: Numbers, answers: Numbers) -> Numbers:
    """Compute Matthews' correlation coefficient, -1 to 1, in its form for many classes.

    Unparseable answers are a class that occurs on the predicted side only: the same number as
    scikit-learn's on these predictions; 0 where it is undefined.

    Args:
        hits: Right answers, [...].
        gold: Rows of each label, [..., labels].
        answers: Answers with each label and with none, [..., labels + 1].

    Source: Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006.
    """
    rows = gold.sum(-1)
    covariance = hits * rows - (gold * answers[..., :-1]).sum(-1)
    variances = (rows**2 - (gold**2).sum(-1)) * (rows**2 - (answers**2).sum(-1))
    return share(covariance, np.sqrt(variances))


def share(part: Numbers, whole: Numbers) -> Numbers:
    """Divide; 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole != 0)


def _mean_of(values: Numbers, which: NDArray[np.bool_]) -> Numbers:
    """Compute the mean of some values of the last axis; 0 of none."""
    return share(np.where(which, values, 0.0).sum(-1), which.sum(-1).astype(np.float64))
