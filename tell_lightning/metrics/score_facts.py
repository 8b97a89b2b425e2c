"""What is known of each score: what it is called, how it is written, whether less is better.

The name of a score enters; what screen, report, W&B and dashboard say of it leaves. Every name that
`score` can return has its row here (a test asks for it); what a function of the user's returns is
called by its own name, written as it is, and neither good nor bad. Free.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Scale = Literal["points", "ratio", "share", "count", "nats", "number"]


@dataclass(frozen=True)
class ScoreFacts:
    """What is known of one score."""

    label: str
    scale: Scale = "number"
    """Points from 0 to 100; a ratio up to 1, written as it is; a share, written in per cent; a
    count; nats a token; a number of which nothing is known."""
    decimals: int | None = None
    """Digits behind the point as it is written; None: four digits in all."""
    better: Literal["higher", "lower", "neither"] = "higher"
    group: str = "Other"
    """Heading that it stands under where all scores are listed."""

    @property
    def unit(self) -> str:
        """What is written behind the number."""
        return "%" if self.scale == "share" else ""

    def written(self, value: float) -> str:
        """Write a number, its unit left out.

        >>> facts_of("exact_match").written(0.8125), facts_of("rows").written(2000.0)
        ('81.2', '2,000')
        """
        value = value * 100 if self.scale == "share" else value
        return f"{value:.4g}" if self.decimals is None else f"{value:,.{self.decimals}f}"


def _points(label: str, group: str) -> ScoreFacts:
    return ScoreFacts(label, "points", 1, group=group)


def _ratio(label: str) -> ScoreFacts:
    return ScoreFacts(label, "ratio", 2, group="Labels")


SCORE_FACTS: Mapping[str, ScoreFacts] = {
    "bleu": _points("BLEU", "Documents"),
    "chrf": _points("chrF", "Documents"),
    "chrf_pp": _points("chrF++", "Documents"),
    "bleu_lines": _points("BLEU of lines", "Lines"),
    "chrf_lines": _points("chrF of lines", "Lines"),
    "chrf_pp_lines": _points("chrF++ of lines", "Lines"),
    "ter_lines": ScoreFacts("TER of lines", "points", 1, "lower", "Lines"),
    "line_mismatch_rate": ScoreFacts(
        "documents with another number of lines", "share", 1, "lower", "Lines"
    ),
    "balanced_accuracy": _ratio("balanced accuracy"),
    "accuracy": _ratio("accuracy"),
    "majority_accuracy": ScoreFacts(
        "accuracy of always the majority label", "ratio", 2, "neither", "Labels"
    ),
    "precision": _ratio("precision"),
    "recall": _ratio("recall"),
    "f1": _ratio("F1"),
    "mcc": _ratio("MCC"),
    "json_valid": ScoreFacts("valid JSON", "share", 0, group="Form of the answer"),
    "json_valid_repaired": ScoreFacts(
        "valid JSON after repair", "share", 0, group="Form of the answer"
    ),
    "label_valid": ScoreFacts("readable label", "share", 0, group="Form of the answer"),
    "unparseable": ScoreFacts(
        "answers without a readable label", "count", 0, "lower", "Form of the answer"
    ),
    "exact_match": ScoreFacts("exact match", "share", 1, group="Words"),
    "words_recall": ScoreFacts("listed words", "share", 1, group="Words"),
    "words": ScoreFacts("words listed in the rows", "count", 0, "neither", "Words"),
    "prefix_rate": ScoreFacts("begins with the response prefix", "share", 0, group="Generation"),
    "stop_rate": ScoreFacts("stopped", "share", 0, group="Generation"),
    "cap_rate": ScoreFacts("cut at the length cap", "share", 0, "lower", "Generation"),
    "empty_rate": ScoreFacts("empty", "share", 0, "lower", "Generation"),
    "mean_new_tokens": ScoreFacts(
        "tokens of an answer, mean", "number", 1, "neither", "Generation"
    ),
    "near_ties": ScoreFacts(
        "tokens that rounding could have decided", "count", 0, "neither", "Generation"
    ),
    "rows": ScoreFacts("rows", "count", 0, "neither", "Generation"),
}
"""By name, in the order in which all scores are listed."""
LOSS = ScoreFacts("loss", "nats", 3, "lower")
DEV_SCORE = ScoreFacts("dev score", "ratio", 3)
"""The mean of the tasks' primary scores, which adapters are chosen by."""


def facts_of(name: str) -> ScoreFacts:
    """Return what is known of a score; of one that is not ours, its name.

    >>> facts_of("my_own").label, facts_of("my_own").written(1234.5678), facts_of("my_own").better
    ('my own', '1235', 'neither')
    """
    return SCORE_FACTS.get(name) or ScoreFacts(name.replace("_", " "), better="neither")
