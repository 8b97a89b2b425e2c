"""The score of answers that several trainings gave, and what each row adds to it. No torch.

Answers of all folds are scored together: BLEU or F1 of two rows says nothing, and the mean of five
such scores neither. Scores are in points from 0 to 100, higher being better, as `selection` of a
score has them; of several tasks it is the mean.

What a row adds is its jackknife pseudo-value: of a share, 0 or 100 points; of a score that is no
mean (BLEU), the whole score, and how much more it is with the row than without it, times the rows.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tell_lightning.metrics.intervals import RowSums
from tell_lightning.metrics.kinds.base import ScoringKind
from tell_lightning.metrics.kinds.registry import kind_of
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import check_rows, primary_score, row_sums
from tell_lightning.metrics.score_facts import facts_of
from tell_lightning.metrics.settings import Scoring

Numbers = NDArray[np.float64]
Row = Mapping[str, Any]
"""An answer: `id` (TASK/ID), `prediction` and `reference`."""
Scorings = Mapping[str, Scoring]
"""How each task is scored."""


def pooled(scorings: Scorings, rows: Sequence[Row]) -> float:
    """Score the answers of all folds together.

    Args:
        scorings: How each task is scored.
        rows: The answers, each row once.

    Returns:
        Points from 0 to 100, the mean over the tasks.

    Raises:
        MetricError: As `metrics.score.score`.
    """
    found = [_whole(*_read(scorings[task], own)) for task, own in by_task(rows).items()]
    return float(np.mean(found))


def row_values(scorings: Scorings, rows: Sequence[Row]) -> Numbers:
    """Compute what each row adds to the score.

    Args:
        scorings: How each task is scored.
        rows: The answers, each row once.

    Returns:
        Points, [rows], by task and id; their mean is the score. Rows of a task with few rows count
        more, so that each task counts the same.

    Raises:
        MetricError: As `metrics.score.score`.
    """
    tasks = by_task(rows)
    values = [_pseudo_values(*_read(scorings[task], own)) for task, own in tasks.items()]
    score = np.mean([of.mean() for of in values])
    weights = [len(rows) / (len(tasks) * len(of)) for of in values]
    parts = [score + (of - of.mean()) * w for of, w in zip(values, weights, strict=True)]
    return np.concatenate(parts)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Return the rows in the order of `row_values`."""
    return [row for own in by_task(rows).values() for row in own]


def by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Sort rows by task and id.

    >>> rows = [{"id": "b/1"}, {"id": "a/2/x"}, {"id": "a/1"}]
    >>> [[row["id"] for row in own] for own in by_task(rows).values()]
    [['a/1', 'a/2/x'], ['b/1']]
    """
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: str(row["id"]).partition("/")):
        found[str(row["id"]).partition("/")[0]].append(row)
    return dict(found)


def label(scorings: Scorings) -> str:
    """Name the score: of one task its own, of several that it is a mean.

    >>> label({"say": Scoring(kind="text")}), label({"a": Scoring(), "b": Scoring()})
    ('exact match', 'mean score of 2 tasks')
    """
    if len(scorings) > 1:
        return f"mean score of {len(scorings)} tasks"
    (scoring,) = scorings.values()
    kind = kind_of(_bare(scoring))
    facts = facts_of(kind.primary, kind.facts)
    linear = facts.scale in {"points", "ratio", "share"} and facts.better == "higher"
    return facts.label if linear else f"{facts.label}, in points of 0 to 100"


def _bare(scoring: Scoring) -> Scoring:
    """Leave out what is no part of the score that stands for the task."""
    return replace(scoring, baselines={}, function=None, words_field=None)


def _read(scoring: Scoring, rows: Sequence[Row]) -> tuple[ScoringKind, list[Prediction]]:
    predictions = [
        Prediction(
            id=str(row["id"]),
            prediction=str(row["prediction"]),
            reference=row["reference"],
            row=row,
            stopped=True,
            prefix_found=None,
            new_tokens=0,
        )
        for row in rows
    ]
    return check_rows(_bare(scoring), predictions), predictions


def _points(kind: ScoringKind, values: Numbers | float) -> Numbers:
    facts = facts_of(kind.primary, kind.facts)
    return np.asarray(100 * np.vectorize(facts.selection, otypes=[np.float64])(values))


def _whole(kind: ScoringKind, predictions: Sequence[Prediction]) -> float:
    return float(_points(kind, primary_score(kind, predictions)))


def _pseudo_values(kind: ScoringKind, predictions: Sequence[Prediction]) -> Numbers:
    """Compute jackknife pseudo-values, moved so that their mean is the score itself."""
    count, whole = len(predictions), _whole(kind, predictions)
    if count == 1:
        return np.array([whole])
    without = _points(kind, _left_out(kind, predictions))
    without = np.where(np.isnan(without), whole, without)
    values: Numbers = count * whole - (count - 1) * without
    return np.asarray(values + (whole - values.mean()))


def _left_out(kind: ScoringKind, predictions: Sequence[Prediction]) -> Numbers:
    """Compute the primary score without each of the rows, [rows]."""
    groups = row_sums(kind.scoring, predictions)
    sums = next((each for each in groups if kind.primary in each.whole()), None)
    if sums is not None:
        return _from_sums(sums, kind.primary)
    rest = ([*predictions[:row], *predictions[row + 1 :]] for row in range(len(predictions)))
    return np.array([primary_score(kind, each) for each in rest])


def _from_sums(sums: RowSums, name: str) -> Numbers:
    """Compute a score of the sums without each row.

    A ratio of sums, such as BLEU, is the same of twice the sums. A mean over rows is twice as much,
    for it is divided by the number of rows that there were.
    """
    count, total = len(sums.rows), sums.rows.sum(axis=0)
    whole, twice = (float(sums.score(each)[name]) for each in (total, 2 * total))
    without = np.asarray(sums.score(total - sums.rows)[name], dtype=np.float64)
    is_mean = whole != 0 and abs(twice - 2 * whole) < 1e-9 * abs(whole)
    return without * count / (count - 1) if is_mean else without
