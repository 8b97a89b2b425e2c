"""Corpus BLEU and chrF, by sacreBLEU alone.

Answers and references enter, one document each; the two corpus scores leave, each with the
signature that makes it comparable. A document is its lines joined by one space, on both sides, so
a score does not depend on where an answer breaks its lines. About a second for 100,000 words.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class CorpusScore(NamedTuple):
    """A score of the whole corpus and how it was computed."""

    score: float
    """0 to 100."""
    signature: str
    """sacreBLEU's signature: references, case, tokenizer, smoothing, version."""


class RowStatistics(NamedTuple):
    """What sacreBLEU keeps of each document, and the corpus score of any sum of it."""

    rows: list[list[int]]
    """Lengths and n-gram counts of each document; they add."""
    score: Callable[[list[int]], float]
    """Score of the summed counts, 0 to 100."""


def join_lines(text: str) -> str:
    r"""Make one line of a document.

    >>> join_lines("Halló.\r\n\n  Bless. \n")
    'Halló. Bless.'
    """
    return " ".join(line.strip() for line in text.split("\n") if line.strip())


def corpus_scores(answers: Sequence[str], references: Sequence[str]) -> dict[str, CorpusScore]:
    """Score a corpus of documents.

    An empty answer stays in the corpus: its missing words cost brevity in BLEU, recall in chrF.

    Args:
        answers: One text per document.
        references: As many texts, in the same order; at least one.

    Returns:
        `bleu` and `chrf`, computed with sacreBLEU's defaults (BLEU: 13a, exponential smoothing;
        chrF2: characters up to 6-grams).

    Source: Post 2018 (sacreBLEU), Popović 2015 (chrF).
    """
    scores = {}
    for name, metric in _metrics().items():
        score = metric.corpus_score(_documents(answers), [_documents(references)]).score
        scores[name] = CorpusScore(float(score), str(metric.get_signature()))
    return scores


def row_statistics(answers: Sequence[str], references: Sequence[str]) -> dict[str, RowStatistics]:
    """Split `corpus_scores` into what each document adds and what the sum is worth.

    The two methods are those that sacreBLEU's own significance tests call. Its public bootstrap
    (`n_bootstrap`) gives a mean and half a width, seeded from the environment, but no bounds.

    Args:
        answers: One text per document.
        references: As many texts, in the same order; at least one.
    """

    def split(metric: Any) -> RowStatistics:
        rows = metric._extract_corpus_statistics(_documents(answers), [_documents(references)])
        return RowStatistics(rows, lambda sums: float(metric._compute_score_from_stats(sums).score))

    return {name: split(metric) for name, metric in _metrics().items()}


def _metrics() -> dict[str, Any]:
    # Slow to import, and needed by translation alone.
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"bleu": BLEU(), "chrf": CHRF()}


def _documents(texts: Sequence[str]) -> list[str]:
    return [join_lines(text) for text in texts]
