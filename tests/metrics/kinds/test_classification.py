"""Labels: read strictly, of any set, scored as scikit-learn does, in both of our ways."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from sklearn.dummy import DummyClassifier

from tell_lightning.errors import TellError
from tell_lightning.metrics.kinds.registry import kind_of
from tell_lightning.metrics.score import row_sums, saved_row, score
from tell_lightning.metrics.settings import Scoring

JUDGE = Scoring(kind="judge")
COLOURS = Scoring(kind="classification", labels=("red", "green", "dark blue"))
IN_JSON = Scoring(kind="classification", label_key="c", labels=("red", "green"), thought_key="why")


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
def test_a_judge_s_label_is_that_of_a_whole_json_object(text, label):
    assert kind_of(JUDGE).read(text).label == label


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
    assert kind_of(JUDGE).read(text, reference=True).label == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("red", "red"),
        (" Red.\n", "red"),
        ("Dark Blue!", "dark blue"),
        ("darkblue", None),
        ("red green", None),
        ("The colour is red.", None),
        ("...", None),
        ("", None),
    ],
)
def test_a_plain_label_is_read_but_for_case_and_outer_punctuation(text, label):
    assert kind_of(COLOURS).read(text).label == label
    assert kind_of(COLOURS).read(text, reference=True).label == label


def test_labels_that_differ_in_case_or_punctuation_alone_are_read_literally():
    kind = kind_of(Scoring(kind="classification", labels=("A", "a", "b+", "b-", "c")))
    assert [kind.read(text).label for text in ("A", "a", "b+", " b- ", "C.")] == [
        *("A", "a", "b+", "b-", "c")
    ]
    assert [kind.read(text).label for text in ("A.", "b", "B+")] == [None] * 3


def test_labels_that_nobody_gives_are_those_of_the_references():
    plain = kind_of(Scoring(kind="classification"))
    assert plain.settled(["b", " a ", "b"], ["seen"]).labels == ("a", "b", "seen")
    keyed = kind_of(Scoring(kind="classification", label_key="c", positive="x"))
    assert keyed.settled(['{"c": "x"}', "y"]).labels == ("x", "y")
    assert kind_of(COLOURS).settled(["another"]) == COLOURS
    assert not plain.is_settled
    assert kind_of(COLOURS).is_settled
    assert kind_of(JUDGE).settled(["no"]).labels == ("no", "yes")


@pytest.mark.parametrize(
    ("scoring", "references", "parts"),
    [
        (Scoring(), [str(n) for n in range(1001)], ["1,001 different", "scoring.label_key"]),
        (Scoring(label_key="c"), ['{"d": "x"}'], ["scoring.labels: the references must", "got 0"]),
        (Scoring(positive="z"), ["a", "b"], ["scoring.positive: must be one", "(a, b), got 'z'"]),
    ],
)
def test_references_that_give_no_labels_are_refused(scoring, references, parts):
    with pytest.raises(TellError) as caught:
        kind_of(replace(scoring, kind="classification")).settled(references)
    assert all(part in str(caught.value) for part in parts)


def test_a_repaired_answer_has_no_label(predict):
    fenced = '```json\n{"hallucination": "no"}\n```'
    values = score(JUDGE, predict([fenced], ["no"])).values
    assert (values["json_valid_repaired"], values["json_valid"], values["label_valid"]) == (1, 0, 0)


def as_json(label: str | None) -> str:
    return "?" if label is None else json.dumps({"hallucination": label})


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["no", "yes"]), st.sampled_from(["no", "yes", None])),
        min_size=1,
        max_size=40,
    )
)
@example([("no", None)])
@example([("yes", "yes")])
@example([("no", "no"), ("yes", "no"), ("yes", None)])
def test_a_judge_s_scores_are_those_of_scikit_learn(predict, pairs):
    gold, found = zip(*pairs, strict=True)
    predictions = predict([as_json(label) for label in found], gold)
    y, z = list(gold), [label or "unparseable" for label in found]
    one = {"labels": ["yes"], "average": "macro", "zero_division": 0}
    dummy = DummyClassifier(strategy="most_frequent").fit(y, y)
    with warnings.catch_warnings():  # of one class alone, and of unparseable among answers only
        warnings.simplefilter("ignore", UserWarning)
        theirs = {
            "accuracy": sklearn.accuracy_score(y, z),
            "balanced_accuracy": sklearn.balanced_accuracy_score(y, z),
            "majority_accuracy": dummy.score(y, y),
            "precision": sklearn.precision_score(y, z, **one),
            "recall": sklearn.recall_score(y, z, **one),
            "f1": sklearn.f1_score(y, z, **one),
            "mcc": sklearn.matthews_corrcoef(y, z),
        }
    check(predictions, JUDGE, theirs)


LABELS = ["a", "b", "c", "d"]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, "?"])),
        min_size=1,
        max_size=40,
    )
)
@example([("a", "b")])
@example([("a", "?"), ("b", "b")])
def test_scores_of_many_labels_are_those_of_scikit_learn(predict, pairs):
    gold, found = zip(*pairs, strict=True)
    occur = sorted({*gold, *found} - {"?"})
    macro = {"labels": occur, "average": "macro", "zero_division": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        theirs = {
            "accuracy": sklearn.accuracy_score(gold, found),
            "balanced_accuracy": sklearn.balanced_accuracy_score(gold, found),
            "macro_precision": sklearn.precision_score(gold, found, **macro),
            "macro_recall": sklearn.recall_score(gold, found, **macro),
            "macro_f1": sklearn.f1_score(gold, found, **macro),
            "mcc": sklearn.matthews_corrcoef(gold, found),
        }
    scoring = Scoring(kind="classification", labels=tuple(LABELS))
    check(predict(found, gold), scoring, theirs)


def check(predictions, scoring: Scoring, theirs: dict[str, float]) -> None:
    """Hold the scores of torchmetrics, and those of summed counts, against others."""
    ours = score(scoring, predictions).values
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-12)
    summed = {n: v for group in row_sums(scoring, predictions) for n, v in group.whole().items()}
    assert summed == pytest.approx({name: ours[name] for name in summed}, abs=1e-14)
    assert set(theirs) - {"majority_accuracy"} <= set(summed)


def test_scores_are_exact_and_not_rounded_to_float32(predict):
    gold = ["yes"] * 3 + ["no"] * 4
    found = ["yes", "no", "no", "no", "no", "no", "yes"]
    values = score(JUDGE, predict([as_json(label) for label in found], gold)).values
    assert values["recall"] == 1 / 3
    assert values["balanced_accuracy"] == (1 / 3 + 3 / 4) / 2
    assert values["accuracy"] == 4 / 7
    assert values["mcc"] == pytest.approx(sklearn.matthews_corrcoef(gold, found), abs=1e-16)


def test_unparseable_is_wrong_and_never_the_negative(predict):
    values = score(JUDGE, predict(["?"] * 4, ["no"] * 4)).values
    for name in ("accuracy", "balanced_accuracy", "recall", "mcc", "label_valid"):
        assert values[name] == 0
    assert values["unparseable"] == 4


@pytest.mark.parametrize(
    ("scoring", "macro", "in_json"),
    [
        (COLOURS, True, False),
        (IN_JSON, True, True),
        (replace(COLOURS, positive="red"), False, False),
    ],
)
def test_names_say_what_is_scored(scoring, macro, in_json, predict):
    answer = '{"c": "red"}' if in_json else "red"
    scores = score(scoring, predict([answer, "?"], ["red", "green"]), intervals=True)
    start = "macro_" if macro else ""
    rates = {f"{start}precision", f"{start}recall", f"{start}f1"}
    rates |= {"accuracy", "balanced_accuracy", "mcc"}
    form = {"json_valid"} if in_json else {"label_valid"}
    assert set(scores.intervals) == rates | form
    assert rates | {"majority_accuracy", "label_valid", "unparseable"} <= set(scores.values)
    assert ("json_valid_repaired" in scores.values) == in_json


def test_details_hold_each_label_and_what_is_taken_for_what(predict):
    gold = ["red", "red", "red", "green", "dark blue"]
    found = ["red", "green", "?", "green", "green"]
    predictions = predict(found, gold)
    details = score(COLOURS, predictions, intervals=True).details
    report = sklearn.classification_report(
        gold, found, labels=list(COLOURS.labels), output_dict=True, zero_division=0
    )
    for label in COLOURS.labels:
        ours = details["labels"][label]
        assert ours["rows"] == report[label]["support"]
        assert ours["precision"] == pytest.approx(report[label]["precision"])
        assert ours["recall"] == pytest.approx(report[label]["recall"])
    assert details["confusion"] == {
        "dark blue": {"green": 1},
        "green": {"green": 1},
        "red": {"green": 1, "red": 1},
    }
    assert details["unparseable"] == {"red": 1}
    assert score(COLOURS, predictions).details == {}
    assert json.loads(json.dumps(details)) == details


def test_seventy_seven_labels_are_compared_in_little_memory(predict):
    labels = [f"label {n}" for n in range(77)]
    random = np.random.default_rng(0)
    gold = [labels[n] for n in random.integers(77, size=400)]
    found = [g if random.random() < 0.8 else labels[0] for g in gold]
    scoring = Scoring(kind="classification", labels=tuple(labels))
    (rates, _) = row_sums(scoring, predict(found, gold))
    assert rates.rows.shape == (400, 3 * 77 + 1)


def test_predictions_files_hold_the_label_and_the_thought_where_there_is_one(predict):
    (one,) = predict(['{"why": "It is.", "c": "red"}'], ["red"])
    saved = saved_row(one, IN_JSON)
    assert (saved["label"], saved["thought"]) == ("red", "It is.")
    (plain,) = predict(["Red."], ["red"])
    assert saved_row(plain, COLOURS)["label"] == "red"
    assert "thought" not in saved_row(plain, COLOURS)
    assert saved_row(plain, JUDGE) | {"label": None, "thought": None} == saved_row(plain, JUDGE)


def test_a_row_is_right_wrong_or_unreadable():
    kind = kind_of(IN_JSON)
    reference = kind.read("red", reference=True)
    answers = ('{"c": "red"}', '{"c": "green"}', "red")
    assert [kind.verdict(kind.read(each), reference) for each in answers] == list(kind.verdicts)
    assert kind.columns(answers[1], "red") == {"label": "green", "right": False}
    assert kind.columns("?", "?") == {"label": "unparseable", "right": False}


@pytest.mark.parametrize(
    ("scoring", "reference", "parts"),
    [
        (COLOURS, "pink", ["row 'r0'", "one of red, green, dark blue,", "got 'pink'", "Correct"]),
        (IN_JSON, "pink", ["bare or under 'c' in a JSON object", "got 'pink'"]),
        (
            Scoring(kind="classification", labels=tuple(map(str, range(50)))),
            "pink",
            ["one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 40 more"],
        ),
    ],
)
def test_a_reference_that_is_no_label_is_named(scoring, reference, parts, predict):
    with pytest.raises(TellError) as caught:
        score(scoring, predict(["x"], [reference]))
    assert all(part in str(caught.value) for part in parts)


def test_labels_of_scored_rows_are_enough_where_none_are_known(predict):
    scoring = Scoring(kind="classification")
    scores = score(scoring, predict(["b", "b"], ["a", "b"]), intervals=True)
    assert scores.values["balanced_accuracy"] == 0.5
    assert scores.values["unparseable"] == 0


@pytest.mark.parametrize(
    ("labels", "answer", "label"),
    [
        (("正确", "错误"), "正确。", "正确"),
        (("sí", "no"), "¡Sí!", "sí"),
        (("ใช่", "ไม่"), "“ใช่”", "ใช่"),
        (("+", "pos"), "+", "+"),
        (("+", "pos"), "!!!", None),  # a label of symbols alone is read literally
        (("C", "C++"), "C++", "C++"),
    ],
)
def test_outer_punctuation_of_any_script_is_left_out(labels, answer, label):
    kind = kind_of(Scoring(kind="classification", labels=labels))
    assert kind.read(answer).label == label


def test_numbers_in_json_are_labels(predict):
    rated = Scoring(kind="classification", label_key="stars")
    gold = ['{"stars": 4}', '{"stars": 1}', '{"stars": true}']
    answers = ['{"stars": 4}', '{"stars": "1"}', '{"stars": 7}']
    values = score(rated, predict(answers, gold)).values
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert values["label_valid"] == pytest.approx(2 / 3)
