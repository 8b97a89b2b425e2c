"""How a task is scored, with what its rows add to the settings."""

import pytest

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.evaluation_rows import settled_scoring
from tell_lightning.data.records import Fields, Record, record_from_row
from tell_lightning.data.settings import Task
from tell_lightning.errors import TellError
from tell_lightning.metrics.settings import Scoring

LABELS = Scoring(kind="classification")


def records(*answers: str) -> list[Record]:
    fields = Fields(prompt="p", response="r")
    return [
        record_from_row({"p": "x", "r": text}, fields=fields, where=f"f:{n}", id=f"f:{n}")
        for n, text in enumerate(answers)
    ]


def test_labels_are_those_of_all_rows_without_the_response_prefix():
    task = Task(anchor=Anchor(text="A.", response_prefix="It is: "), scoring=LABELS)
    found = settled_scoring(task, "turn", records("It is: red", "green", "It is: red"))
    assert found == Scoring(kind="classification", labels=("green", "red"))


def test_what_the_rows_add_nothing_to_stays_as_it_is():
    scoring = Scoring(kind="translation", primary="chrf", tokenize="13a")
    assert settled_scoring(Task(scoring=scoring), "turn", records("a")) == scoring


@pytest.mark.parametrize(
    ("scoring", "key"),
    [
        (Scoring(kind="classification", positive="blue"), "data.tasks.turn.scoring.positive: "),
        (Scoring(kind="json", primary="bleu"), "data.tasks.turn.scoring.primary: "),
        (Scoring(kind="gone.py:Kind"), "data.tasks.turn.scoring.kind: "),
        (Scoring(kind="torchmetrics.text.Gone"), "data.tasks.turn.scoring.kind: "),
    ],
)
def test_a_scoring_that_does_not_fit_is_named_with_its_task(scoring, key):
    with pytest.raises(TellError) as caught:
        settled_scoring(Task(scoring=scoring), "turn", records("red", "green"))
    assert str(caught.value).startswith(key)
