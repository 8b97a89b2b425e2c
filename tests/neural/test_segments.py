"""Segments: lines where all texts agree, a document's weight, and the mean that others report."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tell_lightning.neural.segments import corpus_mean, split_document


@pytest.mark.parametrize(
    ("answer", "source", "pieces"),
    [
        ("a\nb", "x\ny", 2),
        ("a\r\n\r\n b \n", "\nx\n\ny", 2),
        ("a\nb", None, 2),
        ("a b", "x\ny", 1),
        ("a\nb\nc", "x\ny", 1),
        ("a\nb", "x y", 1),
        ("", "x\ny", 1),
    ],
)
def test_a_document_is_split_where_all_its_texts_have_as_many_lines(answer, source, pieces):
    given = {"mt": answer, "ref": "A\nB"} | ({} if source is None else {"src": source})
    document = split_document(given)
    assert len(document.segments) == pieces
    assert document.in_one_piece == (pieces == 1)
    assert document.lines == 2
    joined = {name: " ".join(s[name] for s in document.segments) for name in document.segments[0]}
    assert joined == {name: " ".join(text.split()) for name, text in given.items()}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=5), min_size=1, max_size=9))
def test_where_all_are_split_the_score_is_the_mean_over_segments(scores):
    found, _ = corpus_mean([len(each) for each in scores], [np.mean(each) for each in scores])
    assert found == pytest.approx(np.mean([score for each in scores for score in each]), abs=1e-6)


def test_how_an_answer_breaks_its_lines_does_not_change_the_weight_of_its_document():
    split, whole = (split_document({"mt": mt, "ref": "A\nB\nC"}) for mt in ("a\nb\nc", "a b c"))
    assert (len(split.segments), len(whole.segments)) == (3, 1)
    assert corpus_mean([split.lines, whole.lines], [0.4, 1.0])[0] == pytest.approx(0.7)
    assert corpus_mean([whole.lines, 1], [1.0, 0.0])[0] == pytest.approx(3 / 4)


def test_the_interval_is_that_of_scipy_over_documents():
    random = np.random.default_rng(4)
    lines = random.integers(1, 20, 60)
    levels = random.normal(0.8, 0.1, 60)
    theirs = stats.bootstrap(
        (levels * lines, lines),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=5000,
        rng=1,
    ).confidence_interval
    _, interval = corpus_mean(lines.tolist(), levels.tolist())
    assert interval == pytest.approx(tuple(theirs), abs=0.002)
    assert 0.02 < interval[1] - interval[0] < 0.1
