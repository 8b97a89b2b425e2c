"""How the report writes numbers."""

import pytest

from tell_lightning.metrics.score_facts import LOSS, facts_of
from tell_lightning.report.forms import shown, shown_change, shown_interval


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("bleu", 47.0329, "47.0"),
        ("balanced_accuracy", 0.9123, "0.91"),
        ("mcc", -0.5, "−0.50"),  # noqa: RUF001
        ("words_recall", 0.4125, "41.2%"),
        ("rows", 12000.0, "12,000"),
        ("my_own", 1234.5678, "1235"),
    ],
)
def test_numbers_have_their_unit_and_a_true_minus_sign(name, value, text):
    assert shown(facts_of(name), value) == text


def test_a_change_has_its_sign_and_shares_change_in_points():
    assert shown_change(facts_of("bleu"), 10.0, 8.5) == "−1.5"  # noqa: RUF001
    assert shown_change(facts_of("words_recall"), 0.25, 0.5) == "+25.0 pp"
    assert shown_change(LOSS, 1.0, 1.0) == "+0.000"


def test_an_interval_carries_no_unit():
    assert shown_interval(facts_of("words_recall"), 0.437, 0.556) == "[43.7, 55.6]"
