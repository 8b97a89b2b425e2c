import json
import warnings

import pydantic_core
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from sklearn.dummy import DummyClassifier
from torchmetrics.functional.classification import multiclass_accuracy

from tell_lightning.metrics.labels import (
    Confusion,
    is_repairable,
    read_gold,
    read_label,
    read_object,
)

LABELS = ("no", "yes")
NUMBER = {"no": 0, "yes": 1, None: 2}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"thought": "It fits.", "hallucination": "no"}', "no"),
        ('\n {"hallucination": "yes"} \n', "yes"),
        ('{"thought": "\\"yes\\"", "hallucination": "no", "more": [1]}', "no"),
        ("yes", None),
        ('"yes"', None),
        ('{"hallucination": "Yes"}', None),
        ('{"hallucination": true}', None),
        ('{"hallucination": ["yes"]}', None),
        ('{"hallucination": null}', None),
        ('{"thought": "no"}', None),
        ('[{"hallucination": "no"}]', None),
        ('```json\n{"hallucination": "no"}\n```', None),
        ('{"hallucination": "no"} I hope this helps.', None),
        ('{"hallucination": "no"', None),
        ("{'hallucination': 'no'}", None),
        ('{"hallucination": "no", "p": NaN}', None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_only_a_whole_json_object_with_a_known_label_counts(text, label):
    assert read_label(text, "hallucination", LABELS) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("yes", "yes"),
        (" No.\n", "no"),
        ('"YES"', "yes"),
        ('{"thought": "x", "hallucination": "yes"}', "yes"),
        ("yes or no", None),
        ("maybe", None),
        ("", None),
    ],
)
def test_a_reference_may_be_the_bare_word(text, label):
    assert read_gold(text, "hallucination", LABELS) == label


def test_valid_json_without_a_label_is_still_valid_json():
    assert read_object('{"a": 1}') == {"a": 1}
    assert read_object("{}") == {}
    assert read_object("1") is None


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text()))
def test_any_object_is_read_back(value):
    assert read_object(f"  {json.dumps(value)}\n") == value


@settings(deadline=None)
@given(
    st.dictionaries(st.text(), st.text() | st.integers() | st.booleans() | st.none(), min_size=1),
    st.integers(0, 200),
    st.sampled_from(["", "x", ",", '"', "}", "1", " "]),
)
def test_what_is_valid_json_is_what_another_parser_takes(value, place, mark):
    text = json.dumps(value, ensure_ascii=False)
    place %= len(text)
    damaged = text[:place] + mark + text[place + 1 :]
    try:
        theirs = pydantic_core.from_json(damaged, allow_inf_nan=False)
    except ValueError:
        theirs = None
    assert read_object(damaged) == (theirs if isinstance(theirs, dict) else None)


@pytest.mark.parametrize(
    ("text", "repairable"),
    [
        ('{"a": 1}', True),
        ('```json\n{"a": 1}\n```', True),
        ('My verdict: {"a": {"b": 1}} I hope it helps.', True),
        ('{"a": [1, 2, ], }', True),
        ("{'a': 'it is', 'b': None, 'c': True}", True),
        ("{'a': \"it's\"}", True),
        ("{'a': 'C:\\d'}", True),
        ('{"a": "x,}"}', True),
        ('{"a": "x,}",}', True),
        ('{"a": 1', False),
        ('{"a": 1} {"b": 2}', False),
        ("{'a', 'b'}", False),
        ("{'a': b'x'}", False),
        ("{'a': 1e999}", False),
        ("{'a': __import__('os')}", False),
        ('{"a": "x" "b": 1}', False),
        ("{a: 1}", False),
        ("[1]", False),
        ("yes", False),
        ("}{", False),
        ("", False),
        ("{'a':" * 100_000 + "}", False),
    ],
)
def test_a_repair_takes_wrapping_commas_and_quotes_off_and_guesses_nothing(text, repairable):
    assert is_repairable(text) == repairable


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.integers() | st.booleans() | st.none()))
def test_what_python_prints_of_an_object_is_repairable_and_a_half_of_it_is_not(value):
    assert is_repairable(f"Here: {value!r}.")
    assert is_repairable(json.dumps(value))
    assert not is_repairable(json.dumps(value)[:-1].replace("}", ""))


def test_a_repaired_answer_has_no_label():
    fenced = '```json\n{"hallucination": "no"}\n```'
    assert is_repairable(fenced)
    assert read_label(fenced, "hallucination", LABELS) is None


rows = st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None]))


@settings(deadline=None)
@given(st.lists(rows, min_size=1, max_size=40))
@example([("no", None)])
@example([("yes", "yes")])
@example([("no", "no"), ("yes", "no"), ("yes", None)])
def test_rates_are_those_of_scikit_learn_and_torchmetrics(pairs):
    gold, predicted = zip(*pairs, strict=True)
    ours = Confusion.of(LABELS, gold, predicted)
    y, z = [NUMBER[label] for label in gold], [NUMBER[label] for label in predicted]
    for label in LABELS:
        options = {"labels": [NUMBER[label]], "average": "macro", "zero_division": 0}
        assert ours.precision(label) == pytest.approx(sklearn.precision_score(y, z, **options))
        assert ours.recall(label) == pytest.approx(sklearn.recall_score(y, z, **options))
        assert ours.f1(label) == pytest.approx(sklearn.f1_score(y, z, **options))
    with warnings.catch_warnings():  # of one class alone, and of unparseable among answers only
        warnings.simplefilter("ignore", UserWarning)
        balanced = sklearn.balanced_accuracy_score(y, z)
        mcc = sklearn.matthews_corrcoef(y, z)
    assert ours.balanced_accuracy() == pytest.approx(balanced)
    assert ours.mcc() == pytest.approx(mcc, abs=1e-12)
    assert ours.accuracy() == pytest.approx(sklearn.accuracy_score(y, z))
    dummy = DummyClassifier(strategy="most_frequent").fit(y, y)
    assert ours.majority_accuracy() == pytest.approx(dummy.score(y, y))
    theirs = multiclass_accuracy(torch.tensor(z), torch.tensor(y), num_classes=3, average="micro")
    assert ours.accuracy() == pytest.approx(float(theirs), abs=1e-6)


def test_more_than_two_labels_work():
    labels = ("a", "b", "c")
    gold = ["a", "a", "b", "c", "c", "c"]
    predicted = ["a", "b", "b", None, "c", "a"]
    ours = Confusion.of(labels, gold, predicted)
    theirs = [label or "unparseable" for label in predicted]
    assert ours.mcc() == pytest.approx(sklearn.matthews_corrcoef(gold, theirs))
    assert ours.balanced_accuracy() == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    assert (ours.rows(), ours.rows(gold="c"), ours.answers(None)) == (6, 3, 1)


def test_unparseable_is_wrong_and_never_the_negative():
    ours = Confusion.of(LABELS, ["no"] * 4, [None] * 4)
    assert ours.accuracy() == ours.balanced_accuracy() == ours.recall("no") == ours.mcc() == 0
