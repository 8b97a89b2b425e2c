"""How a score is called and written.

A name and a number enter, text leaves; every score that `metrics` gives has an entry, and what a
function of the user's returns is written as it is.
"""

from dataclasses import dataclass
from typing import Literal

from tell_lightning.metrics.translation import LOWER_IS_BETTER

Style = Literal["points", "ratio", "percent", "count", "mean", "loss", "number"]


@dataclass(frozen=True)
class Form:
    """How one score is shown."""

    label: str
    style: Style
    group: str = "Other"


FORMS = {
    "bleu": Form("BLEU", "points", "Documents"),
    "chrf": Form("chrF", "points", "Documents"),
    "chrf_pp": Form("chrF++", "points", "Documents"),
    "bleu_lines": Form("BLEU of lines", "points", "Lines"),
    "chrf_lines": Form("chrF of lines", "points", "Lines"),
    "chrf_pp_lines": Form("chrF++ of lines", "points", "Lines"),
    "ter_lines": Form("TER of lines", "points", "Lines"),
    "line_mismatch_rate": Form("documents with another number of lines", "percent", "Lines"),
    "balanced_accuracy": Form("balanced accuracy", "ratio", "Labels"),
    "accuracy": Form("accuracy", "ratio", "Labels"),
    "majority_accuracy": Form("accuracy of always the majority label", "ratio", "Labels"),
    "precision": Form("precision", "ratio", "Labels"),
    "recall": Form("recall", "ratio", "Labels"),
    "f1": Form("F1", "ratio", "Labels"),
    "mcc": Form("MCC", "ratio", "Labels"),
    "json_valid": Form("valid JSON", "percent", "Form of the answer"),
    "json_valid_repaired": Form("valid JSON after repair", "percent", "Form of the answer"),
    "label_valid": Form("readable label", "percent", "Form of the answer"),
    "unparseable": Form("answers without a readable label", "count", "Form of the answer"),
    "exact_match": Form("exact match", "percent", "Words"),
    "words_recall": Form("listed words found", "percent", "Words"),
    "words": Form("listed words", "count", "Words"),
    "prefix_rate": Form("begins with the response prefix", "percent", "Generation"),
    "stop_rate": Form("ended by a stop token", "percent", "Generation"),
    "cap_rate": Form("cut at the length cap", "percent", "Generation"),
    "empty_rate": Form("empty", "percent", "Generation"),
    "mean_new_tokens": Form("tokens of an answer, mean", "mean", "Generation"),
    "near_ties": Form("tokens that rounding could have decided", "count", "Generation"),
    "rows": Form("rows", "count", "Generation"),
}
MAIN = {
    "bleu": ("bleu", "chrf", "chrf_pp", "ter_lines", "words_recall", "stop_rate"),
    "balanced_accuracy": (
        "balanced_accuracy",
        "accuracy",
        "majority_accuracy",
        "f1",
        "mcc",
        "json_valid",
    ),
    "exact_match": ("exact_match", "words_recall", "stop_rate"),
}
"""What is shown of a task first, by its primary score."""
GROUPS = (*dict.fromkeys(form.group for form in FORMS.values()), "Other")
LOWER = LOWER_IS_BETTER | {"empty_rate", "cap_rate", "unparseable"}
"""Scores of which less is better."""
LOSS = Form("loss", "loss")


def form(name: str) -> Form:
    """Say how a score is shown; one that is not ours is shown under its own name."""
    return FORMS.get(name) or Form(name.replace("_", " "), "number")


def shown(style: Style, value: float) -> str:
    """Write a number.

    >>> shown("percent", 0.8125), shown("points", 47.03), shown("count", 2000.0)
    ('81.2%', '47.0', '2,000')
    """
    if style == "percent":
        return f"{100 * value:.1f}%"
    if style == "count" and value == int(value):
        return f"{value:,.0f}"
    formats = {"points": ".1f", "ratio": ".3f", "loss": ".3f", "mean": ".1f"}
    return f"{value:{formats.get(style, '.4g')}}".replace("-", "\N{MINUS SIGN}")


def shown_change(style: Style, before: float, after: float) -> str:
    """Write a difference with its sign; of shares in percentage points.

    >>> shown_change("percent", 0.25, 0.5), shown_change("points", 1.5, 47.0)
    ('+25.0 pp', '+45.5')
    """
    difference = after - before
    text = shown(style, difference)
    if style == "percent":
        text = f"{100 * difference:.1f} pp"
    text = text.replace("-", "\N{MINUS SIGN}")
    return text if text.startswith("\N{MINUS SIGN}") else f"+{text}"


def shown_interval(style: Style, low: float, high: float) -> str:
    """Write an interval, the unit left to the score before it.

    >>> shown_interval("percent", 0.5, 1.0)
    '[50.0, 100.0]'
    """
    low_text, high_text = (shown(style, bound).removesuffix("%") for bound in (low, high))
    return f"[{low_text}, {high_text}]"
