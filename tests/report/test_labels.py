"""Precision, recall and confusion of labels in the report of a run, made of its predictions."""

import subprocess
import sys

import pytest

from tell_lightning.report.answers import task_answers
from tell_lightning.report.labels import MOST_IN_MATRIX, MOST_LISTED, UNREADABLE, label_tables
from tell_lightning.report.page import page

PLAIN = {"data": {"tasks": {"turn": {"scoring": {"kind": "classification"}}}}}
GOLD = ["red", "red", "red", "green"]


def test_labels_stand_with_their_rates_before_and_after(contents):
    answers = {
        "test-turn-base": ["?", "red", "green", "?"],
        "test-turn-step-000010": ["red", "Red.", "green", "green"],
    }
    (found,) = task_answers(contents(config=PLAIN, answers=answers, references=GOLD))
    tables = found.labels
    assert tables.columns == [
        *("rows", "base: precision", "base: recall", "tuned: precision", "tuned: recall")
    ]
    assert tables.rates == [
        ("green", ["1", "0.00", "0.00", "0.50", "1.00"]),
        ("red", ["3", "1.00", "0.33", "1.00", "0.67"]),
    ]


def test_labels_that_are_given_are_the_only_ones(contents):
    scoring = {"kind": "classification", "labels": ["red", "green"]}
    config = {"data": {"tasks": {"turn": {"scoring": scoring}}}}
    answers = {"test-turn-step-000010": ["red", "Red.", "green", "?"]}
    (found,) = task_answers(contents(config=config, answers=answers, references=GOLD))
    assert found.labels.who == "tuned"
    assert found.labels.read == ["green", "red", UNREADABLE]
    assert found.labels.matrix == [("green", [0, 0, 1]), ("red", [1, 2, 0])]
    assert found.counts == [("tuned", "2 right, 1 wrong, 1 unreadable")]
    text = page(
        contents(config=config, answers=answers, references=GOLD), {"data": {}, "trainer": {}}
    )
    assert "rows by right label (down) and label of the answer (across)" in text
    assert '<th scope="col">no readable label</th>' in text


def test_other_tasks_have_no_labels(contents):
    (found,) = task_answers(contents())
    assert found.labels is None


def test_with_many_labels_the_most_frequent_confusions_are_listed(contents):
    labels = [f"label {n:02}" for n in range(77)]
    pairs = [(label, label) for label in labels]
    pairs += [("label 05", "label 06")] * 3 + [("label 07", None)] * 2
    pairs += [(label, "label 00") for label in labels[1:]]
    tables = label_tables({"tuned": pairs})
    assert len(labels) > MOST_IN_MATRIX
    assert tables.matrix == []
    assert len(tables.rates) == 77
    assert tables.confused[:2] == [("label 05", "label 06", 3), ("label 07", UNREADABLE, 2)]
    assert len(tables.confused) == MOST_LISTED
    assert tables.left_out == 78 - MOST_LISTED


@pytest.mark.parametrize("kind", ["judge", "classification"])
def test_a_report_with_labels_is_made_without_torch(contents, kind):
    scoring = {"kind": kind, "label_key": "hallucination"}
    config = {"data": {"tasks": {"turn": {"scoring": scoring}}}}
    answers = {"test-turn-step-000010": ['{"hallucination": "no"}', "?"]}
    run = contents(config=config, answers=answers, references=["no", "yes"])
    code = (
        "import sys\nfrom tell_lightning.cli import main\n"
        f"main(['report', {str(run.folder.path)!r}])\n"
        "print({'torch', 'lightning', 'torchmetrics'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.endswith("set()\n")
    text = (run.folder.path / "report.html").read_text(encoding="utf-8")
    assert "turn: each label" in text
    assert '<th scope="row">yes</th><td>1</td><td>0.00</td><td>0.00</td>' in text
