import pytest

from tell_lightning.metrics.predictions import MetricError
from tell_lightning.metrics.text import empty_rate, exact_match, generation_rates, words_found


def test_exact_match_and_empty_ignore_outer_white_space():
    assert exact_match([" a b", "a  b", "", "A b"], ["a b\n", "a b", "a b", "a b"]) == 0.25
    assert empty_rate(["", " \n", "x", "."]) == 0.5


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
