"""The kind `json`: parsed equality, and precision, recall and F1 of fields.

For slot filling and extraction. A value is taken apart into its fields, each a path and a value:
`{"city": "Rome", "tags": ["a", "b"]}` has `city: Rome`, `tags[]: a` and `tags[]: b`. Fields are
counted over all rows together (micro). Those of a list are a multiset: their order does not count
here, while it does in `json_match`. An answer that is no JSON has no fields.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tell_lightning.metrics.characters import composed
from tell_lightning.metrics.intervals import Numbers, RowSums
from tell_lightning.metrics.json_text import NOTHING, read_value
from tell_lightning.metrics.kinds.base import Reading, ScoringKind, Verdict
from tell_lightning.metrics.label_rates import share
from tell_lightning.metrics.predictions import MetricError, Prediction
from tell_lightning.metrics.score_facts import JSON_VALID, ScoreFacts, ratio

Leaf = tuple[tuple[str | int, ...], str, Any]
"""Path of keys and places, type and value. True is no 1, for its type differs; 1.0 is one."""


class JsonFields(ScoringKind):
    """A JSON value, field by field."""

    facts: Mapping[str, ScoreFacts] = {
        "json_match": ScoreFacts("equal JSON", "share", 1, group="Fields"),
        "field_precision": ratio("field precision", "Fields"),
        "field_recall": ratio("field recall", "Fields"),
        "field_f1": ratio("field F1", "Fields"),
        "json_valid": JSON_VALID,
    }
    primary = "field_f1"
    table = ("json_match", "field_f1", "json_valid", "stop_rate")
    report = ("json_match", "field_precision", "field_recall", "field_f1", "json_valid")
    summary = ("json_match", "field_f1", "json_valid", "stop_rate")
    verdicts = ("right", "wrong", "unreadable")

    def row_sums(self, predictions: Sequence[Prediction]) -> list[RowSums]:
        """Give matches and valid answers, and the counts of fields.

        Raises:
            MetricError: A reference that is no JSON.
        """
        pairs = [(_value(p.prediction), _reference(p)) for p in predictions]
        means = {
            "json_match": [is_equal(answer, reference) for answer, reference in pairs],
            "json_valid": [answer is not NOTHING for answer, _ in pairs],
        }
        counts = np.array([_field_counts(*pair) for pair in pairs], dtype=np.float64)
        return [RowSums.means(means), RowSums(counts, _field_scores)]

    def check(self, predictions: Sequence[Prediction]) -> None:
        """Check that every reference is JSON.

        Raises:
            MetricError: One that is not.
        """
        for prediction in predictions:
            _reference(prediction)

    def verdict(self, answer: Reading, reference: Reading) -> Verdict:
        """Say whether the values are equal."""
        value = _value(answer.text)
        if value is NOTHING:
            return "unreadable"
        return "right" if is_equal(value, _value(reference.text)) else "wrong"

    def columns(self, answer: str, reference: str) -> dict[str, Any]:
        """Return whether the values are equal, and the F1 of the fields."""
        pair = _value(answer), _value(reference)
        f1 = _field_scores(np.array(_field_counts(*pair), dtype=np.float64))["field_f1"]
        return {"json_match": is_equal(*pair), "field_f1": round(float(f1), 4)}


def is_equal(ours: Any, theirs: Any) -> bool:
    """Say whether two JSON values are equal: the order of keys does not count, that of lists does.

    >>> is_equal({"a": 1, "b": [1.0]}, {"b": [1], "a": 1}), is_equal([True], [1])
    (True, False)
    """
    return set(_leaves(ours)) == set(_leaves(theirs))


def fields_of(value: Any) -> Counter[Leaf]:
    """Count the fields of a JSON value; an empty object or list has none.

    >>> list(fields_of({"a": {"b": 1}, "c": []}))
    [(('a', 'b'), 'number', 1)]
    """
    return Counter(
        (tuple(key if isinstance(key, str) else 0 for key in path), kind, leaf)
        for path, kind, leaf in _leaves(value)
        if kind not in {"dict", "list"} and leaf is not NOTHING
    )


def _leaves(value: Any) -> Iterator[Leaf]:
    """Yield what has nothing in it; without recursion, for a model may answer with any depth."""
    left: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while left:
        path, each = left.pop()
        if isinstance(each, dict) and each:
            left += [((*path, key), inner) for key, inner in each.items()]
        elif isinstance(each, list) and each:
            left += [((*path, place), inner) for place, inner in enumerate(each)]
        else:
            yield path, _type(each), None if isinstance(each, dict | list) else each


def _type(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else type(value).__name__


def _field_counts(answer: Any, reference: Any) -> tuple[int, int, int]:
    """Count the fields of both that are the same, of the answer, and of the reference."""
    ours, theirs = fields_of(answer), fields_of(reference)
    return (ours & theirs).total(), ours.total(), theirs.total()


def _field_scores(sums: Numbers) -> dict[str, Numbers]:
    hits, answered, wanted = np.moveaxis(sums, -1, 0)
    return {
        "field_precision": share(hits, answered),
        "field_recall": share(hits, wanted),
        "field_f1": share(2 * hits, answered + wanted),
    }


def _value(text: str) -> Any:
    """Read an answer or a reference, in composed characters."""
    return read_value(composed(text))


def _reference(prediction: Prediction) -> Any:
    value = _value(prediction.reference or "")
    if value is NOTHING:
        raise MetricError(
            f"row {prediction.id!r}: the reference must be JSON, got "
            f"{prediction.reference!r:.80}. Correct the row, or choose another scoring.kind."
        )
    return value
