"""The score of answers that several trainings gave, and what each row adds to it. No torch.

Answers of all folds are scored together: BLEU or F1 of two rows says nothing, and the mean of five
such scores neither. Scores are in points from 0 to 100, higher being better, as `selection` of a
score has them; of several tasks it is the mean.

What a row adds is its jackknife pseudo-value: of a share, 0 or 100 points; of a score that is no
mean (BLEU), the whole score, and how much more it is with the row than without it, times the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tell_lightning.metrics.intervals import RowSums
from tell_lightning.metrics.kinds.base import ScoringKind
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import check_rows, primary_score, row_sums
from tell_lightning.metrics.score_facts import facts_of
from tell_lightning.metrics.settings import Scoring

Numbers = NDArray[np.float64]
Lines = Sequence[Mapping[str, Any]]
"""Lines of a predictions file, with references."""


def pooled(scoring: Mapping[str, Scoring], rows: Mapping[str, Lines]) -> float:
    """Score the answers of all folds together.

    Args:
        scoring: How each task is scored.
        rows: The answers by task, each row once.

    Returns:
        Points from 0 to 100, the mean over the tasks.

    Raises:
        MetricError: As `metrics.score.score`.
    """
    found = []
    for task, lines in rows.items():
        kind, predictions = _read(scoring[task], lines)
        found.append(float(_points(kind, np.array(primary_score(kind, predictions)))))
    return float(np.mean(found))


def row_values(scoring: Mapping[str, Scoring], rows: Mapping[str, Lines]) -> dict[str, Numbers]:
    """Compute what each row adds to the score of its task.

    Args:
        scoring: How each task is scored.
        rows: The answers by task, each row once.

    Returns:
        Points by task, [rows], in the order of the rows' ids; their mean is the score.

    Raises:
        MetricError: As `metrics.score.score`.
    """
    return {task: _pseudo_values(*_read(scoring[task], lines)) for task, lines in rows.items()}


def ordered(lines: Lines) -> list[Mapping[str, Any]]:
    """Order lines by the id of their row, as `row_values` does."""
    return sorted(lines, key=lambda line: str(line["id"]))


def label(scoring: Mapping[str, Scoring]) -> str:
    """Name the score: of one task its own, of several that it is a mean.

    >>> label({"say": Scoring(kind="text")})
    'exact match'
    """
    if len(scoring) > 1:
        return f"mean score of {len(scoring)} tasks"
    ((name, kind),) = ((_bare(each).primary, each) for each in scoring.values())
    facts = facts_of(name or _kind_primary(kind))
    linear = facts.scale in {"points", "ratio", "share"} and facts.better == "higher"
    return facts.label if linear else f"{facts.label}, in points of 0 to 100"


def _kind_primary(scoring: Scoring) -> str:
    from tell_lightning.metrics.kinds.registry import kind_of

    return kind_of(_bare(scoring)).primary


def _bare(scoring: Scoring) -> Scoring:
    """Leave out what is no part of the score that stands for the task."""
    return replace(scoring, baselines={}, function=None, words_field=None)


def _read(scoring: Scoring, lines: Lines) -> tuple[ScoringKind, list[Prediction]]:
    predictions = [
        Prediction(
            id=str(line["id"]),
            prediction=str(line["prediction"]),
            reference=line["reference"],
            row=line,
            stopped=True,
            prefix_found=None,
            new_tokens=0,
        )
        for line in ordered(lines)
    ]
    return check_rows(_bare(scoring), predictions), predictions


def _points(kind: ScoringKind, values: Numbers) -> Numbers:
    facts = facts_of(kind.primary, kind.facts)
    return 100 * np.vectorize(facts.selection, otypes=[np.float64])(values)


def _pseudo_values(kind: ScoringKind, predictions: Sequence[Prediction]) -> Numbers:
    """Compute jackknife pseudo-values, moved so that their mean is the score itself."""
    count = len(predictions)
    whole = float(_points(kind, np.array(primary_score(kind, predictions))))
    if count == 1:
        return np.array([whole])
    without = _points(kind, _left_out(kind, predictions))
    without = np.where(np.isnan(without), whole, without)
    values: Numbers = count * whole - (count - 1) * without
    return values + (whole - values.mean())


def _left_out(kind: ScoringKind, predictions: Sequence[Prediction]) -> Numbers:
    """Compute the primary score without each of the rows, [rows]."""
    groups = row_sums(kind.scoring, predictions)
    sums = next((each for each in groups if kind.primary in each.whole()), None)
    if sums is not None:
        return _from_sums(sums, kind.primary)
    rest = ([*predictions[:row], *predictions[row + 1 :]] for row in range(len(predictions)))
    return np.array([primary_score(kind, each) for each in rest])


def _from_sums(sums: RowSums, name: str) -> Numbers:
    count = len(sums.rows)
    # A mean is divided by the number of rows that there were, so the others are weighted up.
    rest = (sums.rows.sum(axis=0) - sums.rows) * (count / (count - 1))
    return np.asarray(sums.score(rest)[name], dtype=np.float64)
