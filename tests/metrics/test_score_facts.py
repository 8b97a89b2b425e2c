"""One place where it stands what is known of the scores."""

import pytest

from tell_lightning.metrics.kinds.registry import BUILT_IN, built_in, kind_of
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import baselines, score
from tell_lightning.metrics.score_facts import OF_EVERY_TASK, ScoreFacts, all_facts, facts_of
from tell_lightning.metrics.settings import Baseline, Scoring

ANSWERS = {
    "translation": "A cat.\nA dog.",
    "text": "yes",
    "judge": '{"hallucination": "yes"}',
    "classification": "yes",
    "json": '{"a": 1}',
}


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


def names_of(kind: str, **more: str) -> set[str]:
    same = {"same": Baseline(text=ANSWERS[kind])}
    scoring = Scoring(kind=kind, words_field="words", baselines=same, **more)
    predictions = [prediction(ANSWERS[kind])]
    scored = [score(scoring, predictions, intervals=True)]
    scored += baselines(scoring, predictions).values()
    return {name for each in scored for name in each.values}


def test_every_score_that_is_computed_is_described_and_no_other():
    assert set(ANSWERS) == set(BUILT_IN)
    assert set().union(*map(names_of, BUILT_IN)) == set(all_facts())


@pytest.mark.parametrize("kind", BUILT_IN)
def test_a_kind_describes_its_own_scores(kind):
    assert names_of(kind) <= built_in(kind).facts.keys() | OF_EVERY_TASK.keys()
    shown = {*built_in(kind).table, *built_in(kind).report, *built_in(kind).summary}
    assert shown <= built_in(kind).facts.keys() | OF_EVERY_TASK.keys()
    assert kind_of(Scoring(kind=kind)).primary in built_in(kind).table


def test_what_counts_faults_is_better_lower_and_counts_are_neither():
    found = {name: facts.better for name, facts in all_facts().items()}
    faults = {"ter_lines", "line_mismatch_rate", "unparseable", "cap_rate", "empty_rate"}
    counts = {"rows", "words", "near_ties", "mean_new_tokens", "majority_accuracy"}
    assert {name for name, better in found.items() if better == "lower"} == faults
    assert {name for name, better in found.items() if better == "neither"} == counts


def test_labels_are_told_apart():
    assert len({facts.label for facts in all_facts().values()}) == len(all_facts())


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
    described = ScoreFacts("mine", better="lower")
    assert facts_of("my_own", {"my_own": described}) == described


@pytest.mark.parametrize(
    ("facts", "best", "worst"),
    [
        (ScoreFacts("x", "points"), 100, 0),
        (ScoreFacts("x", "share"), 1, 0),
        (ScoreFacts("x", "ratio", better="lower"), 0, 9),
        (ScoreFacts("x", "points", better="lower"), 0, 900),
        (ScoreFacts("x"), 1e9, -1e9),
        (ScoreFacts("x", better="lower"), -1e9, 1e9),
    ],
)
def test_selection_keeps_the_order_within_0_and_1(facts, best, worst):
    steps = [worst + (best - worst) * n / 10 for n in range(11)]
    found = [facts.selection(value) for value in steps]
    assert found == sorted(found)
    assert 0 <= found[0] < found[-1] <= 1
