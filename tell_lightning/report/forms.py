"""How the report writes a score: with its unit, and a minus sign that is one."""

from tell_lightning.metrics.score_facts import ScoreFacts

MINUS = "\N{MINUS SIGN}"


def shown(facts: ScoreFacts, value: float) -> str:
    """Write a number.

    >>> from tell_lightning.metrics.score_facts import facts_of
    >>> shown(facts_of("words_recall"), 0.8125), shown(facts_of("bleu"), 47.03)
    ('81.2%', '47.0')
    """
    return f"{_number(facts, value)}{facts.unit}"


def shown_change(facts: ScoreFacts, before: float, after: float) -> str:
    """Write a difference with its sign; of shares in percentage points.

    >>> from tell_lightning.metrics.score_facts import facts_of
    >>> shown_change(facts_of("words_recall"), 0.25, 0.5)
    '+25.0 pp'
    """
    text = _number(facts, after - before)
    unit = " pp" if facts.unit else ""
    return f"{text}{unit}" if text.startswith(MINUS) else f"+{text}{unit}"


def shown_interval(facts: ScoreFacts, low: float, high: float) -> str:
    """Write an interval, the unit left to the score before it.

    >>> from tell_lightning.metrics.score_facts import facts_of
    >>> shown_interval(facts_of("words_recall"), 0.5, 1.0)
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
