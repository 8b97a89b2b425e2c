"""How the report writes a score: with its unit, and a minus sign that is one.

What is known of a score and a number enter, text leaves.
"""

from tell_lightning.metrics.score_facts import SCORE_FACTS, ScoreFacts

MINUS = "\N{MINUS SIGN}"
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
GROUPS = (*dict.fromkeys(facts.group for facts in SCORE_FACTS.values()), "Other")


def shown(facts: ScoreFacts, value: float) -> str:
    """Write a number.

    >>> shown(SCORE_FACTS["words_recall"], 0.8125), shown(SCORE_FACTS["bleu"], 47.03)
    ('81.2%', '47.0')
    """
    return f"{_number(facts, value)}{facts.unit}"


def shown_change(facts: ScoreFacts, before: float, after: float) -> str:
    """Write a difference with its sign; of shares in percentage points.

    >>> shown_change(SCORE_FACTS["words_recall"], 0.25, 0.5)
    '+25.0 pp'
    """
    text = _number(facts, after - before)
    unit = " pp" if facts.unit else ""
    return f"{text}{unit}" if text.startswith(MINUS) else f"+{text}{unit}"


def shown_interval(facts: ScoreFacts, low: float, high: float) -> str:
    """Write an interval, the unit left to the score before it.

    >>> shown_interval(SCORE_FACTS["words_recall"], 0.5, 1.0)
    '[50.0, 100.0]'
    """
    return f"[{_number(facts, low)}, {_number(facts, high)}]"


def scale_of(facts: ScoreFacts) -> tuple[str, float | None]:
    """Say what an axis of the score runs over, and its end; nothing where it has none."""
    known = {
        "points": ("0 to 100", 100.0),
        "ratio": ("0 to 1", 1.0),
        "share": ("share, 0 to 1", 1.0),
    }
    return known.get(facts.scale, ("", None))


def _number(facts: ScoreFacts, value: float) -> str:
    return facts.written(value).replace("-", MINUS)
