"""How numbers are written."""

import pytest

from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import PRIMARY, score
from tell_lightning.metrics.settings import Scoring
from tell_lightning.report.forms import (
    FORMS,
    LOWER,
    MAIN,
    form,
    shown,
    shown_change,
    shown_interval,
)

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


@pytest.mark.parametrize("kind", PRIMARY)
def test_every_score_that_is_computed_has_a_form(kind):
    scoring = Scoring(kind=kind, words_field="words")
    values = score(scoring, [prediction(ANSWERS[kind])], intervals=True).values
    assert set(values) <= set(FORMS)
    assert set(MAIN[PRIMARY[kind]]) <= set(values)


def test_names_of_main_and_lower_scores_are_scores():
    assert set(MAIN) == set(PRIMARY.values())
    assert {name for names in MAIN.values() for name in names} | LOWER <= set(FORMS)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("bleu", 47.0329, "47.0"),
        ("mcc", -0.5, "−0.500"),  # noqa: RUF001
        ("json_valid", 0.995, "99.5%"),
        ("rows", 12000.0, "12,000"),
        ("mean_new_tokens", 23.675, "23.7"),
        ("my_own", 1234.5678, "1235"),
    ],
)
def test_numbers_are_written_as_their_score_asks(name, value, text):
    assert shown(form(name).style, value) == text


def test_a_change_has_its_sign_and_shares_change_in_points():
    assert shown_change("points", 10.0, 8.5) == "−1.5"  # noqa: RUF001
    assert shown_change("percent", 0.25, 0.5) == "+25.0 pp"
    assert shown_change("loss", 1.0, 1.0) == "+0.000"


def test_an_interval_carries_no_unit():
    assert shown_interval("percent", 0.437, 0.556) == "[43.7, 55.6]"


def test_a_score_of_the_users_own_keeps_its_name():
    assert form("my_own").label == "my own"
