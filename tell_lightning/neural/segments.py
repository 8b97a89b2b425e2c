"""Documents into the segments that a neural metric reads, and its scores back into one number.

A document is split into its lines if all of its texts have as many; otherwise it is one segment,
its lines joined by one space. The score of a document is the mean over its segments. The score of
the corpus is the mean over documents, each weighted by the lines of its reference. If all documents
are split, this is the mean over segments, as in COMET's and BLEURT's own system scores and in
published tables; and the weight of a document does not depend on how its answer breaks the lines.

    answer   a / b / c    reference   A / B / C     segments  a~A b~B c~C       weight 3
    answer   a / b c      reference   A / B / C     segments  a b c ~ A B C     weight 3
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tell_lightning.metrics.intervals import Interval, RowSums, bootstrap
from tell_lightning.metrics.kinds.translation import join_lines, lines_of

Segment = dict[str, str]
"""Texts by COMET's names: mt (the answer), ref (the reference) and, if known, src (the source)."""


@dataclass(frozen=True)
class Document:
    """The segments of one row."""

    segments: tuple[Segment, ...]
    lines: int
    """Lines of the reference: the document's weight."""
    in_one_piece: bool
    """Whether its texts have different numbers of lines, so that it could not be split."""


def split_document(texts: Segment) -> Document:
    r"""Split a document into segments.

    Args:
        texts: Its whole texts; the reference is not blank.

    >>> document = split_document({"mt": "a\nb", "ref": "A\nB", "src": "x y"})
    >>> document.segments, document.lines, document.in_one_piece
    (({'mt': 'a b', 'ref': 'A B', 'src': 'x y'},), 2, True)
    """
    lines = {name: lines_of(text) for name, text in texts.items()}
    count = len(lines["ref"])
    if any(len(each) != count for each in lines.values()):
        whole = {name: join_lines(text) for name, text in texts.items()}
        return Document((whole,), count, in_one_piece=True)
    rows = zip(*lines.values(), strict=True)
    segments = tuple(dict(zip(lines, row, strict=True)) for row in rows)
    return Document(segments, count, in_one_piece=False)


def corpus_mean(lines: Sequence[int], scores: Sequence[float]) -> tuple[float, Interval]:
    """Average the scores of documents, weighted by the lines of their references.

    Args:
        lines: Of each document, one document or more.
        scores: Of each document.

    Returns:
        The score of the corpus, and low and high of its 95 % interval over documents.
    """
    weights = np.array(lines, dtype=np.float64)
    rows = np.stack([weights * np.array(scores), weights], axis=1)
    sums = RowSums(rows, lambda sums: {"mean": sums[..., 0] / sums[..., 1]})
    return sums.whole()["mean"], bootstrap(sums)["mean"]
