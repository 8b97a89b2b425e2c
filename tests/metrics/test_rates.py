import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, zero_one_loss

from tell_lightning.metrics.predictions import MetricError
from tell_lightning.metrics.rates import empty_rate, generation_rates, words_found


def test_empty_ignores_white_space():
    assert empty_rate(["", " \n", "x", "."]) == 0.5


texts = st.sampled_from(["", " ", "a", "a\n", " a", "A", "b", "a b"])


@settings(max_examples=30)
@given(st.lists(texts, min_size=1))
def test_empty_is_that_of_scikit_learn(answers):
    bare = [text.strip() for text in answers]
    assert empty_rate(answers) == pytest.approx(accuracy_score(bare, [""] * len(answers)))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 99)), min_size=1))
def test_generation_rates_are_those_of_scikit_learn_and_numpy(predict, rows):
    predictions = [
        one
        for stopped, found, tokens in rows
        for one in predict(["a"], ["a"], stopped=stopped, prefix_found=found, new_tokens=tokens)
    ]
    stopped, found, tokens = map(list, zip(*rows, strict=True))
    right = [True] * len(rows)
    theirs = {
        "stop_rate": accuracy_score(stopped, right),
        "cap_rate": zero_one_loss(stopped, right),
        "prefix_rate": accuracy_score(found, right),
        "mean_new_tokens": np.mean(tokens),
    }
    ours = generation_rates(predictions)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs)


def test_generation_rates_count_stops_prefixes_and_tokens(predict):
    good = predict(["a"], ["a"], prefix_found=True, new_tokens=4, near_ties=2)
    bad = predict(["b"], ["a"], prefix_found=False, new_tokens=9, stopped=False)
    rates = generation_rates(good + bad + bad + bad)
    assert rates == {
        "stop_rate": 0.25,
        "cap_rate": 0.75,
        "prefix_rate": 0.25,
        "mean_new_tokens": 7.75,
        "near_ties": 2,
    }
    assert "prefix_rate" not in generation_rates(predict(["a"], ["a"]))


@pytest.mark.parametrize(
    ("answer", "words", "expected"),
    [
        ("Kisa sefur.", ["kisa", "hundur"], (1, 2)),
        ("kisan sefur", ["kisa"], (0, 1)),
        ("KISA, kisa!", ["Kisa", "kisa", "kisa"], (2, 3)),
        ("vel-gefin kisa's", ["vel-gefin", "kisa"], (2, 2)),
        ("Ærin er ÞAR", ["ærin", "þar"], (2, 2)),
        ("a+b (c)", ["a+b", "(c)", "."], (2, 3)),
        ("kisa", [], (0, 0)),
        ("", ["kisa"], (0, 1)),
    ],
)
def test_listed_words_are_found_whole_as_often_as_they_are_listed(answer, words, expected, predict):
    assert words_found(predict([answer], ["x"], [{"words": words}]), "words") == expected


def test_words_are_summed_over_rows(predict):
    rows = [{"words": ["a", "b", "c"]}, {"words": []}, {"words": ("d",)}]
    assert words_found(predict(["a b c", "x", "x"], ["x"] * 3, rows), "words") == (3, 4)


@pytest.mark.parametrize("row", [{}, {"words": "kisa"}, {"words": [1]}, {"words": [""]}])
def test_a_row_without_a_word_list_is_named(row, predict):
    message = r"^row 'r0': field 'words' must be a list of words, got .*scoring\.words_field"
    with pytest.raises(MetricError, match=message):
        words_found(predict(["a"], ["a"], [row]), "words")
