"""The kind `translation`: corpus BLEU, chrF, chrF++ and TER, by sacreBLEU alone.

Each score has the signature that makes it comparable. A document is its lines joined by one space,
on both sides, so a score does not depend on where an answer breaks its lines. Line scores
(`_lines`) pair the lines that are not blank, as published scores of the same test sets do; where a
document has more or fewer lines than its reference, nothing says which belong together, and all its
reference lines are paired with nothing. About three seconds for 50,000 words, TER of foreign lines
another.

    answer   a / b / c     reference   A / B / C     document  a b c ~ A B C    lines  a~A b~B c~C
    answer   a / b c       reference   A / B / C     document  a b c ~ A B C    lines   ~A  ~B  ~C
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from tell_lightning.metrics.intervals import Numbers, RowSums
from tell_lightning.metrics.kinds.base import KindScores, ScoringKind
from tell_lightning.metrics.kinds.text import exact_sums
from tell_lightning.metrics.predictions import Prediction, texts_of
from tell_lightning.metrics.score_facts import EXACT_MATCH, ScoreFacts, points


class Translation(ScoringKind):
    """BLEU, chrF and chrF++ of documents and of their lines, and TER of lines."""

    facts: Mapping[str, ScoreFacts] = {
        "bleu": points("BLEU", "Documents"),
        "chrf": points("chrF", "Documents"),
        "chrf_pp": points("chrF++", "Documents"),
        "bleu_lines": points("BLEU of lines", "Lines"),
        "chrf_lines": points("chrF of lines", "Lines"),
        "chrf_pp_lines": points("chrF++ of lines", "Lines"),
        "ter_lines": ScoreFacts("TER of lines", "points", 1, "lower", "Lines"),
        "line_mismatch_rate": ScoreFacts(
            "documents with another number of lines", "share", 1, "lower", "Lines"
        ),
        "exact_match": EXACT_MATCH,
    }
    primary = "bleu"
    table = ("bleu", "chrf", "words_recall", "stop_rate")
    report = ("bleu", "chrf", "chrf_pp", "ter_lines", "words_recall", "stop_rate")
    summary = ("bleu", "chrf", "exact_match", "words_recall", "stop_rate")
    only_with_intervals = frozenset({"ter_lines"})

    def score(self, predictions: Sequence[Prediction]) -> KindScores:
        """Score the corpus, without TER."""
        answers, references = texts_of(predictions)
        sums = corpus_sums(answers, references)
        return KindScores(
            {
                **exact_sums(predictions).whole(),
                **{name: value for each in sums for name, value in each.whole().items()},
                "line_mismatch_rate": line_mismatch_rate(answers, references),
            },
            {name: signature for each in sums for name, signature in each.signatures.items()},
        )

    def row_sums(self, predictions: Sequence[Prediction]) -> list[RowSums]:
        """Give the counts that sacreBLEU keeps of each document, for each score, and for TER."""
        return [exact_sums(predictions), *corpus_sums(*texts_of(predictions), ter=True)]

    def columns(self, answer: str, reference: str) -> dict[str, Any]:
        """Return sacreBLEU's chrF2 of one document, 0 to 100, to a tenth."""
        from sacrebleu.metrics.chrf import CHRF  # slow to import

        score = CHRF().sentence_score(join_lines(answer), [join_lines(reference)]).score
        return {"chrf": round(float(score), 1)}


def join_lines(text: str) -> str:
    r"""Make one line of a document.

    >>> join_lines("Halló.\r\n\n  Bless. \n")
    'Halló. Bless.'
    """
    return " ".join(lines_of(text))


def corpus_sums(
    answers: Sequence[str], references: Sequence[str], *, ter: bool = False
) -> list[RowSums]:
    """Split corpus scores into the counts of each document, whose sum gives the score.

    An empty answer stays in the corpus: its missing words cost brevity in BLEU, recall in chrF.

    The two methods of sacreBLEU that are called here are those of its own significance tests. Its
    public bootstrap (`n_bootstrap`) gives a mean and half a width, seeded from the environment, but
    no bounds.

    Args:
        answers: One text per document.
        references: As many texts, in the same order; at least one that is not blank.
        ter: Whether TER of lines is computed, too, which may take a minute.

    Returns:
        One group for each score.

    Source: Post 2018 (sacreBLEU), Popović 2015 and 2017 (chrF, chrF++), Snover 2006 (TER).
    """
    metrics = _metrics() | (_slow_metrics() if ter else {})
    return [_sums(name, metric, answers, references) for name, metric in metrics.items()]


def _sums(name: str, metric: Any, answers: Sequence[str], references: Sequence[str]) -> RowSums:
    ours, theirs = _segments(name, answers, references)
    lines = iter(metric._extract_corpus_statistics(_flat(ours), [_flat(theirs)]))
    size = len(metric._extract_corpus_statistics([""], [["a"]])[0])
    rows = [sum(map(np.array, islice(lines, len(document))), np.zeros(size)) for document in theirs]

    def score(sums: Numbers) -> dict[str, Numbers]:
        flat = sums.reshape(-1, sums.shape[-1]).astype(np.int64).tolist()
        values = [float(metric._compute_score_from_stats(each).score) for each in flat]
        return {name: np.array(values).reshape(sums.shape[:-1])}

    return RowSums(np.array(rows), score, {name: str(metric.get_signature())})


def line_mismatch_rate(answers: Sequence[str], references: Sequence[str]) -> float:
    r"""Compute the share of documents whose lines cannot be paired: more or fewer than there are.

    >>> line_mismatch_rate(["a\n\nb", "a b"], ["A\nB", "A\nB"])
    0.5
    """
    pairs = zip(answers, references, strict=True)
    return sum(len(lines_of(a)) != len(lines_of(r)) for a, r in pairs) / len(answers)


Documents = list[list[str]]
"""The texts to be scored of each document: itself in one line, or its lines."""


def _segments(
    name: str, answers: Sequence[str], references: Sequence[str]
) -> tuple[Documents, Documents]:
    if not name.endswith("_lines"):
        return [[join_lines(text)] for text in answers], [[join_lines(text)] for text in references]
    theirs = [lines_of(text) for text in references]
    ours = [lines_of(text) for text in answers]
    paired = zip(ours, theirs, strict=True)
    return [a if len(a) == len(r) else [""] * len(r) for a, r in paired], theirs


def _metrics() -> dict[str, Any]:
    """Make the metrics with sacreBLEU's defaults."""
    # Slow to import, and needed by translation alone.
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {
        f"{name}{level}": metric()
        for level in ("", "_lines")
        for name, metric in (("bleu", BLEU), ("chrf", CHRF), ("chrf_pp", partial(CHRF, 6, 2)))
    }


def _slow_metrics() -> dict[str, Any]:
    """Make TER of lines; a document of 400 foreign words would take a second."""
    from sacrebleu.metrics.ter import TER

    return {"ter_lines": TER()}


def _flat(documents: Documents) -> list[str]:
    return [text for document in documents for text in document]


def lines_of(text: str) -> list[str]:
    """Return the lines that are not blank, without outer white space."""
    return [line.strip() for line in text.split("\n") if line.strip()]
