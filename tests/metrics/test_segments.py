"""Segments: lines where all texts agree, a document's weight, and the mean that others report."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tell_lightning.metrics.segments import Document, corpus_mean, split_documents


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
    sources = None if source is None else [source]
    [document] = split_documents([answer], ["A\nB"], sources)
    assert len(document.segments) == pieces
    assert document.in_one_piece == (pieces == 1)
    assert document.lines == 2
    joined = {name: " ".join(s[name] for s in document.segments) for name in document.segments[0]}
    given = {"mt": answer, "ref": "A\nB"} | ({} if source is None else {"src": source})
    assert joined == {name: " ".join(text.split()) for name, text in given.items()}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=5), min_size=1, max_size=9))
def test_where_all_are_split_the_score_is_the_mean_over_segments(scores):
    documents = [Document(({},) * len(each), len(each), in_one_piece=False) for each in scores]
    flat = [score for each in scores for score in each]
    found = corpus_mean(documents, flat)
    assert found.score == pytest.approx(np.mean(flat), abs=1e-6)
    assert found.documents == pytest.approx([np.mean(each) for each in scores])


def test_how_an_answer_breaks_its_lines_does_not_change_the_weight_of_its_document():
    split, whole = split_documents(["a\nb\nc", "a b c"], ["A\nB\nC"] * 2, None)
    assert corpus_mean([split, whole], [0.2, 0.4, 0.6, 1.0]).score == pytest.approx(0.7)
    short = Document(({},), 1, in_one_piece=False)
    assert corpus_mean([whole, short], [1.0, 0.0]).score == pytest.approx(3 / 4)


def test_the_interval_is_that_of_scipy_over_documents():
    random = np.random.default_rng(4)
    lines = random.integers(1, 20, 60)
    levels = random.normal(0.8, 0.1, 60)
    documents = [Document(({},) * n, int(n), in_one_piece=False) for n in lines]
    scores = [float(level) for level, n in zip(levels, lines, strict=True) for _ in range(n)]
    theirs = stats.bootstrap(
        (levels * lines, lines),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=5000,
        rng=1,
    ).confidence_interval
    found = corpus_mean(documents, scores)
    assert found.interval == pytest.approx(tuple(theirs), abs=0.002)
    assert 0.02 < found.interval[1] - found.interval[0] < 0.1
