"""JSON fields: counted by hand, and by another library's flattening."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.errors import TellError
from tell_lightning.metrics.kinds.json_fields import fields_of, is_equal
from tell_lightning.metrics.kinds.registry import kind_of
from tell_lightning.metrics.score import score
from tell_lightning.metrics.settings import Scoring

JSON = Scoring(kind="json")


def values(predict, *pairs):
    answers, references = zip(*pairs, strict=True)
    return score(JSON, predict(answers, references)).values


@pytest.mark.parametrize(
    ("answer", "reference", "match", "precision", "recall"),
    [
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', 1, 1, 1),
        ('{"a": 1.0}', '{"a": 1}', 1, 1, 1),
        ('{"a": true}', '{"a": 1}', 0, 0, 0),
        ('{"a": "1"}', '{"a": 1}', 0, 0, 0),
        ('{"a": null}', '{"a": null}', 1, 1, 1),
        ('{"a": 1}', '{"a": 1, "b": 2}', 0, 1, 1 / 2),
        ('{"a": 1, "b": 3}', '{"a": 1, "b": 2}', 0, 1 / 2, 1 / 2),
        ('{"a": {"b": 1, "c": 2}}', '{"a": {"b": 1}}', 0, 1 / 2, 1),
        ('{"a.b": 1}', '{"a": {"b": 1}}', 0, 0, 0),
        ('{"a": [2, 1]}', '{"a": [1, 2]}', 0, 1, 1),
        ('{"a": [1, 1]}', '{"a": [1]}', 0, 1 / 2, 1),
        ('[{"n": "x"}, {"n": "y"}]', '[{"n": "y"}, {"n": "x"}]', 0, 1, 1),
        ('{"a": 1, "b": []}', '{"a": 1}', 0, 1, 1),
        ('"x"', '"x"', 1, 1, 1),
        ('"x"', '["x"]', 0, 0, 0),
        ("no JSON", '{"a": 1}', 0, 0, 0),
        ("", '{"a": 1}', 0, 0, 0),
        ("[" * 900 + "]" * 900, '{"a": 1}', 0, 0, 0),
    ],
)
def test_fields_are_counted_as_by_hand(answer, reference, match, precision, recall, predict):
    found = values(predict, (answer, reference))
    assert (found["json_match"], found["field_precision"]) == (match, precision)
    assert found["field_recall"] == recall
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert found["field_f1"] == pytest.approx(f1)


def test_fields_are_counted_over_all_rows_together_and_validity_apart(predict):
    found = values(
        predict,
        ('{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": 2, "c": 3}'),
        ('{"a": 9}', '{"a": 1}'),
        ("{'a': 1}", '{"a": 1}'),
    )
    assert found["field_precision"] == 3 / 4
    assert found["field_recall"] == 3 / 5
    assert found["field_f1"] == 6 / 9
    assert (found["json_match"], found["json_valid"]) == (1 / 3, 2 / 3)
    assert set(found) >= {"rows", "empty_rate", "stop_rate"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=8,
)


def canonical(value) -> str:
    """Write a value so that equal ones, and they alone, have equal texts."""
    return json.dumps(value, sort_keys=True)


@settings(max_examples=200, deadline=None)
@given(json_values, json_values)
def test_equality_is_that_of_sorted_json(ours, theirs):
    assert is_equal(ours, theirs) == (canonical(ours) == canonical(theirs))
    assert is_equal(ours, json.loads(canonical(ours)))


def pairs_of(value, path=()):
    """Flatten by recursion, as one would write it down."""
    if isinstance(value, dict):
        return [pair for key, each in value.items() for pair in pairs_of(each, (*path, key))]
    if isinstance(value, list):
        return [pair for each in value for pair in pairs_of(each, (*path, 0))]
    return [(path, canonical(value))]


@settings(max_examples=200, deadline=None)
@given(json_values, json_values)
def test_common_fields_are_those_of_a_recursive_flattening(ours, theirs):
    common = (fields_of(ours) & fields_of(theirs)).total()
    assert common == (Counter(pairs_of(ours)) & Counter(pairs_of(theirs))).total()
    assert fields_of(ours).total() == len(pairs_of(ours))


def test_a_reference_that_is_no_json_is_named(predict):
    with pytest.raises(TellError) as caught:
        score(JSON, predict(["{}", "{}"], ['{"a": 1}', "{a: 1}"]))
    for part in ("row 'r1'", "the reference must be JSON", "got '{a: 1}'", "Correct the row"):
        assert part in str(caught.value)


def test_a_row_is_right_wrong_or_unreadable():
    kind = kind_of(JSON)
    reference = kind.read('{"a": 1, "b": 1}', reference=True)
    answers = ('{"b": 1, "a": 1}', '{"a": 1}', "?")
    assert [kind.verdict(kind.read(each), reference) for each in answers] == list(kind.verdicts)
    columns = kind.columns(answers[1], reference.text)
    assert columns == {"json_match": False, "field_f1": pytest.approx(2 / 3, abs=1e-4)}


def test_scores_have_intervals_and_f1_selects(predict):
    pairs = [('{"a": 1, "b": 2}', '{"a": 1, "b": 2}'), ('{"a": 1, "b": 2}', '{"a": 1, "b": 3}')]
    answers, references = zip(*pairs * 10, strict=True)
    scores = score(JSON, predict(answers, references), intervals=True)
    names = {"json_match", "json_valid", "field_precision", "field_recall", "field_f1"}
    assert set(scores.intervals) == names
    low, high = scores.intervals["field_f1"]
    assert low < scores.values["field_f1"] == 0.75 < high
    assert (scores.primary, scores.selection) == ("field_f1", 0.75)
