"""Documents into the texts that a neural metric reads, and its scores back into one number.

A document is split into its lines where all of its texts (answer, reference and, for some metrics,
source) have the same number of lines; else it is one segment, its lines joined by one space. The
score of a document is the mean over its segments, that of the corpus the mean over documents, each
weighted by the lines of its reference. Where all documents are split this is the mean over
segments, which COMET and BLEURT call the score of a system and which published numbers are. The
weight of a document does not depend on how its answer breaks the lines. The interval draws
documents.

    answer   a / b / c    reference   A / B / C     segments  a~A b~B c~C       weight 3
    answer   a / b c      reference   A / B / C     segments  a b c ~ A B C     weight 3
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np

from tell_lightning.metrics.intervals import Interval, RowSums, bootstrap
from tell_lightning.metrics.kinds.translation import join_lines, lines_of

Segment = dict[str, str]
"""Texts by the names that COMET has for them: mt (the answer), ref and, where known, src."""


@dataclass(frozen=True)
class Document:
    """The segments of one row."""

    segments: tuple[Segment, ...]
    lines: int
    """Lines of the reference: the document's weight."""
    in_one_piece: bool
    """Whether its texts have different numbers of lines, so that it could not be split."""


@dataclass(frozen=True)
class CorpusMean:
    """The score of a corpus."""

    score: float
    interval: Interval
    """Low and high of the 95 % interval, over documents."""
    documents: list[float]
    """Score of each document."""


def split_documents(
    answers: Sequence[str], references: Sequence[str], sources: Sequence[str] | None
) -> list[Document]:
    r"""Split documents into segments.

    Args:
        answers: One text per document.
        references: As many texts, in the same order, none of them blank.
        sources: As many texts, in the same order; None where the metric reads none.

    >>> [document] = split_documents(["a\nb"], ["A\nB"], ["x y"])
    >>> document.segments, document.lines, document.in_one_piece
    (({'mt': 'a b', 'ref': 'A B', 'src': 'x y'},), 2, True)
    """
    columns = {"mt": answers, "ref": references} | ({"src": sources} if sources else {})
    rows = zip(*columns.values(), strict=True)
    return [_document(dict(zip(columns, texts, strict=True))) for texts in rows]


def corpus_mean(documents: Sequence[Document], scores: Sequence[float]) -> CorpusMean:
    """Average the scores of segments: to documents, to the corpus.

    Args:
        documents: One document or more.
        scores: Scores of all segments, one document after the other.
    """
    left = iter(scores)
    means = [
        fsum(next(left) for _ in document.segments) / len(document.segments)
        for document in documents
    ]
    lines = np.array([document.lines for document in documents], dtype=np.float64)
    rows = np.stack([lines * means, lines], axis=1)
    sums = RowSums(rows, lambda sums: {"mean": sums[..., 0] / sums[..., 1]})
    return CorpusMean(sums.whole()["mean"], bootstrap(sums)["mean"], means)


def _document(texts: Segment) -> Document:
    lines = {name: lines_of(text) for name, text in texts.items()}
    count = len(lines["ref"])
    if any(len(each) != count for each in lines.values()):
        whole = {name: join_lines(text) for name, text in texts.items()}
        return Document((whole,), count, in_one_piece=True)
    names, columns = list(lines), zip(*lines.values(), strict=True)
    segments = tuple(dict(zip(names, each, strict=True)) for each in columns)
    return Document(segments, count, in_one_piece=False)
