"""Marks between a text and its reference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tell_lightning.report.differences import LEAST_SHARE, Piece, mark_differences

TEXTS = st.text(alphabet="ab ,.\n日本", max_size=30)


def only(kind: str, pieces: list[Piece]) -> list[str]:
    return [piece.text for piece in pieces if piece.kind == kind]


def test_equal_texts_have_no_mark():
    pieces, share = mark_differences("The red cat.", "The red cat.")
    assert pieces == [Piece("same", "The red cat.")]
    assert share == 1


def test_words_and_punctuation_are_marked_apart():
    pieces, _ = mark_differences("The red cat sat.", "The blue cat sat!")
    assert only("missing", pieces) == ["red", "."]
    assert only("extra", pieces) == ["blue", "!"]
    assert only("same", pieces)[0] == "The "


def test_a_run_of_words_is_one_mark():
    pieces, _ = mark_differences("one two three four five", "one five and six and so")
    assert only("missing", pieces) == ["two three four"]
    assert only("extra", pieces) == ["and six and so"]


def test_scripts_without_spaces_are_compared_by_character():
    pieces, _ = mark_differences("猫は赤い", "猫は青い")
    assert only("missing", pieces) == ["赤"]
    assert only("extra", pieces) == ["青"]


def test_a_text_with_little_in_common_is_left_unmarked():
    answer = "Something that nobody asked for"
    assert mark_differences("The cat sat on the mat", answer) == ([Piece("same", answer)], 0.0)


@pytest.mark.parametrize(("reference", "text"), [("", ""), ("", "a b"), ("a b", ""), (" ", "\n")])
def test_empty_texts_are_texts(reference, text):
    pieces, _ = mark_differences(reference, text)
    assert "".join(only("same", pieces) + only("extra", pieces)).split() == text.split()


@given(reference=TEXTS, text=TEXTS)
def test_pieces_give_back_the_words_of_both_texts(reference, text):
    pieces, share = mark_differences(reference, text)
    assert letters(pieces, without="missing") == "".join(text.split())
    if share >= LEAST_SHARE:
        assert letters(pieces, without="extra") == "".join(reference.split())


def letters(pieces: list[Piece], without: str) -> str:
    return "".join("".join(p.text for p in pieces if p.kind != without).split())
