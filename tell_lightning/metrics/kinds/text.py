"""The kind `text`: exact match."""

from collections.abc import Mapping, Sequence

from tell_lightning.metrics.characters import is_exact
from tell_lightning.metrics.intervals import RowSums
from tell_lightning.metrics.kinds.base import ScoringKind
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score_facts import EXACT_MATCH, ScoreFacts


class Text(ScoringKind):
    """The share of answers that equal their reference but for outer white space."""

    facts: Mapping[str, ScoreFacts] = {"exact_match": EXACT_MATCH}
    primary = "exact_match"
    table: Sequence[str] = ("exact_match", "words_recall", "stop_rate")
    summary: Sequence[str] = ("exact_match", "words_recall", "stop_rate")

    def row_sums(self, predictions: Sequence[Prediction]) -> list[RowSums]:
        """Give 1 for each exact answer."""
        return [exact_sums(predictions)]


def exact_sums(predictions: Sequence[Prediction]) -> RowSums:
    """Give 1 for each answer that equals its reference but for outer white space."""
    return RowSums.means(
        {"exact_match": [is_exact(p.prediction, p.reference) for p in predictions]}
    )
