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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np

from tell_lightning.metrics.characters import composed, is_chinese, is_unspaced
from tell_lightning.metrics.intervals import Numbers, RowSums
from tell_lightning.metrics.kinds.base import KindScores, ScoringKind
from tell_lightning.metrics.kinds.text import exact_sums
from tell_lightning.metrics.predictions import MetricError, Prediction, texts_of
from tell_lightning.metrics.score_facts import EXACT_MATCH, ScoreFacts, points
from tell_lightning.metrics.settings import Scoring, Tokenizer

NEEDS: Mapping[str, tuple[str, str]] = {
    "ja-mecab": ("MeCab", "sacrebleu[ja]"),
    "ko-mecab": ("mecab_ko", "sacrebleu[ko]"),
    "flores101": ("sentencepiece", "sentencepiece"),
    "flores200": ("sentencepiece", "sentencepiece"),
}
"""The module that a tokenizer imports, and what pip installs for it."""
AT_SPACES = ("13a", "intl", "none")
"""Tokenizers that divide words at spaces."""


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

    def __init__(self, scoring: Scoring) -> None:
        """Take the settings.

        Raises:
            MetricError: The package of a tokenizer is not installed.
        """
        super().__init__(scoring)
        module, package = NEEDS.get(scoring.tokenize, ("", ""))
        if module and find_spec(module) is None:
            raise MetricError(
                f"scoring.tokenize: {scoring.tokenize} needs the package {package}, got none. "
                f"Install it: pip install '{package}', or write scoring.tokenize: auto."
            )

    def settled(self, references: Iterable[str], labels: Iterable[str] = ()) -> Scoring:
        """Choose BLEU's tokenizer by the script of the references, where it is `auto`."""
        return replace(self.scoring, tokenize=settled_tokenizer(self.scoring, list(references)))

    def notes(self, references: Sequence[str]) -> Iterator[str]:
        """Warn of a tokenizer that divides at spaces, where the references have few of them."""
        asked = self.scoring.tokenize
        if asked in AT_SPACES and is_unspaced(references):
            yield (
                f"scoring.tokenize: {asked} divides words at spaces, of which the references have "
                "few. Write scoring.tokenize: auto."
            )

    def score(self, predictions: Sequence[Prediction]) -> KindScores:
        """Score the corpus, without TER."""
        answers, references = texts_of(predictions)
        sums = corpus_sums(answers, references, self._tokenizer(references))
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
        answers, references = texts_of(predictions)
        sums = corpus_sums(answers, references, self._tokenizer(references), ter=True)
        return [exact_sums(predictions), *sums]

    def _tokenizer(self, references: Sequence[str]) -> Tokenizer:
        return settled_tokenizer(self.scoring, references)

    def columns(self, answer: str, reference: str) -> dict[str, Any]:
        """Return sacreBLEU's chrF2 of one document, 0 to 100, to a tenth."""
        from sacrebleu.metrics.chrf import CHRF  # slow to import

        ours, theirs = join_lines(composed(answer)), join_lines(composed(reference))
        score = CHRF().sentence_score(ours, [theirs]).score
        return {"chrf": round(float(score), 1)}


def join_lines(text: str) -> str:
    r"""Make one line of a document.

    >>> join_lines("Halló.\r\n\n  Bless. \n")
    'Halló. Bless.'
    """
    return " ".join(lines_of(text))


def corpus_sums(
    answers: Sequence[str], references: Sequence[str], tokenizer: str = "13a", *, ter: bool = False
) -> list[RowSums]:
    """Split corpus scores into the counts of each document, whose sum gives the score.

    An empty answer stays in the corpus: its missing words cost brevity in BLEU, recall in chrF.

    The two methods of sacreBLEU that are called here are those of its own significance tests. Its
    public bootstrap (`n_bootstrap`) gives a mean and half a width, seeded from the environment, but
    no bounds.

    Args:
        answers: One text per document.
        references: As many texts, in the same order; at least one that is not blank.
        tokenizer: BLEU's, by sacreBLEU's name.
        ter: Whether TER of lines is computed, too, which may take a minute.

    Returns:
        One group for each score.

    Source: Post 2018 (sacreBLEU), Popović 2015 and 2017 (chrF, chrF++), Snover 2006 (TER).
    """
    metrics = _metrics(tokenizer) | (_slow_metrics(tokenizer) if ter else {})
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


def settled_tokenizer(scoring: Scoring, references: Sequence[str]) -> Tokenizer:
    """Return BLEU's tokenizer: the one that is set, or that of the references' script.

    That is zh for Chinese, char for other scripts without spaces between words, and 13a for scripts
    with spaces. Whether the packages of other tokenizers are installed changes nothing.
    """
    if scoring.tokenize != "auto":
        return scoring.tokenize
    if not is_unspaced(references):
        return "13a"
    return "zh" if is_chinese(references) else "char"


def bleu_metric(tokenizer: str) -> Any:
    """Make sacreBLEU's BLEU.

    Raises:
        MetricError: The tokenizer cannot be loaded.
    """
    from sacrebleu.metrics.bleu import BLEU  # slow to import

    try:
        return BLEU(tokenize=tokenizer)
    except Exception as error:  # whatever a package or a download may raise
        raise MetricError(
            f"scoring.tokenize: {tokenizer} must be loaded, got {type(error).__name__}: "
            f"{' '.join(str(error).split())}. Write scoring.tokenize: auto."
        ) from error


def _metrics(tokenizer: str) -> dict[str, Any]:
    """Make the metrics with sacreBLEU's defaults, but for BLEU's tokenizer."""
    from sacrebleu.metrics.chrf import CHRF  # slow to import

    kinds = (
        ("bleu", partial(bleu_metric, tokenizer)),
        ("chrf", CHRF),
        ("chrf_pp", partial(CHRF, 6, 2)),
    )
    return {f"{name}{level}": make() for level in ("", "_lines") for name, make in kinds}


def _slow_metrics(tokenizer: str) -> dict[str, Any]:
    """Make TER of lines; a document of 400 foreign words would take a second.

    Where words are not divided at spaces, its edits are those of Chinese and Japanese characters.
    """
    from sacrebleu.metrics.ter import TER

    asian = tokenizer not in AT_SPACES
    return {"ter_lines": TER(normalized=asian, asian_support=asian)}


def _flat(documents: Documents) -> list[str]:
    return [text for document in documents for text in document]


def lines_of(text: str) -> list[str]:
    """Return the lines that are not blank, without outer white space."""
    return [line.strip() for line in text.split("\n") if line.strip()]
