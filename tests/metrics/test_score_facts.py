"""One table of what is known of the scores."""

import pytest

from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import PRIMARY, floors, score
from tell_lightning.metrics.score_facts import SCORE_FACTS, facts_of
from tell_lightning.metrics.settings import Floor, Scoring

ANSWERS = {"translation": "A cat.\nA dog.", "text": "yes", "judge": '{"hallucination": "yes"}'}


def prediction(answer: str) -> Prediction:
    return Prediction(
        id="1",
        prediction=answer,
        reference=answer,
        row={"words": ["cat"]},
        stopped=True,
        prefix_found=True,
        new_tokens=3,
    )


def names_of(kind: str) -> set[str]:
    floor = Floor(text=ANSWERS[kind])
    scoring = Scoring(kind=kind, words_field="words", floors={"same": floor})
    predictions = [prediction(ANSWERS[kind])]
    scored = [score(scoring, predictions, intervals=True), *floors(scoring, predictions).values()]
    return {name for each in scored for name in each.values}


def test_every_score_that_is_computed_is_in_the_table_and_no_other():
    assert set().union(*map(names_of, PRIMARY)) == set(SCORE_FACTS)


def test_what_counts_faults_is_better_lower_and_counts_are_neither():
    found = {name: facts.better for name, facts in SCORE_FACTS.items()}
    faults = {"ter_lines", "line_mismatch_rate", "unparseable", "cap_rate", "empty_rate"}
    counts = {"rows", "words", "near_ties", "mean_new_tokens", "majority_accuracy"}
    assert {name for name, better in found.items() if better == "lower"} == faults
    assert {name for name, better in found.items() if better == "neither"} == counts


def test_nothing_is_chosen_by_a_score_of_which_less_is_better():
    assert {SCORE_FACTS[name].better for name in PRIMARY.values()} == {"higher"}


def test_labels_are_told_apart():
    assert len({facts.label for facts in SCORE_FACTS.values()}) == len(SCORE_FACTS)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("bleu", 47.0329, "47.0"),
        ("balanced_accuracy", 0.9123, "0.91"),
        ("mcc", -0.5, "-0.50"),
        ("json_valid", 0.975, "98%"),
        ("words_recall", 0.4125, "41.2%"),
        ("rows", 12000.0, "12,000"),
        ("mean_new_tokens", 23.675, "23.7"),
        ("my_own", 1234.5678, "1235"),
    ],
)
def test_numbers_are_written_as_their_score_asks(name, value, text):
    facts = facts_of(name)
    assert facts.written(value) + facts.unit == text


def test_a_score_of_the_users_own_keeps_its_name_and_is_neither_good_nor_bad():
    facts = facts_of("my_own")
    assert (facts.label, facts.better, facts.unit) == ("my own", "neither", "")
