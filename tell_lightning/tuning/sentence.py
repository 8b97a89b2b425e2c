"""What a difference between TELL and SFT means for the user: one sentence. No torch."""

import math
from collections.abc import Mapping
from typing import Literal

from tell_lightning.experiment.statistics import LEVEL
from tell_lightning.tuning.estimate import Estimate

MARGIN = 5.0
"""Points. Where the whole interval is within this, no difference is seen that would be worth its
price."""
MOST_SEEDS = 100
"""Seeds that are thought of when the advice is to take more time."""
MOST_ROWS = 100
"""Times as many rows that are thought of when the advice is to find more of them."""
SAME_PRICE = 1.1
"""Arms whose trainings differ by a smaller factor in time cost the same."""
NAMES = {"tell": "TELL", "sft": "SFT", "mixture": "mixture without anchor"}

Outcome = Literal["tell", "sft", "no difference", "undecided"]


def decide(difference: Estimate) -> Outcome:
    """Say what a difference, TELL less SFT, stands for.

    tell, sft    the 95 % interval is on one side of zero, and p is at most 0.05
    no difference    not so, and the whole interval is within `MARGIN` of zero
    undecided    else: the difference may be zero, or larger than the margin

    >>> from dataclasses import replace
    >>> seen = Estimate(6, 2, 10, 0.01, rows=50, seeds=4, of_rows=3, of_runs=1, runs_freedom=9)
    >>> decide(seen), decide(replace(seen, p=0.2)), decide(replace(seen, low=-3, high=4, p=0.4))
    ('tell', 'undecided', 'no difference')
    """
    if difference.p <= 1 - LEVEL and difference.low > 0:
        return "tell"
    if difference.p <= 1 - LEVEL and difference.high < 0:
        return "sft"
    near = max(abs(difference.low), abs(difference.high)) <= MARGIN
    return "no difference" if near else "undecided"


def sentence_of(
    difference: Estimate, measure: str, minutes: Mapping[str, float], round_seconds: float
) -> str:
    """Say in one sentence what to use.

    Args:
        difference: TELL less SFT.
        measure: The name of the score.
        minutes: What a training of each arm takes.
        round_seconds: What one more seed of all arms takes.
    """
    outcome = decide(difference)
    low, high = difference.low, difference.high
    seen = f"TELL {_signed(difference.value)} [{_number(low)}, {_number(high)}] {measure} over SFT"
    if outcome == "tell":
        return seen.replace("TELL", "TELL:", 1)
    if outcome == "sft":
        told = f"[{_number(-high)}, {_number(-low)}]"
        return f"SFT: {_signed(-difference.value)} {told} {measure} over TELL"
    if outcome == "no difference":
        return f"no difference seen; {cheaper(minutes)} ({seen})"
    return (
        f"undecided: the interval is ±{difference.half:.1f}; {advice(difference, round_seconds)} "
        f"({seen})"
    )


def cheaper(minutes: Mapping[str, float]) -> str:
    """Say which arm is cheaper.

    >>> cheaper({"tell": 2.0, "sft": 1.0}), cheaper({"tell": 1.0, "sft": 1.05})
    ('SFT is cheaper', 'both cost the same')
    """
    one, other = sorted(("tell", "sft"), key=lambda arm: minutes[arm])
    if minutes[other] <= SAME_PRICE * minutes[one]:
        return "both cost the same"
    return f"{NAMES[one]} is cheaper"


def advice(difference: Estimate, round_seconds: float) -> str:
    """Say what would halve an interval: more seeds, if they are what is missing, or more rows."""
    half = difference.half / 2
    for seeds in range(difference.seeds + 1, MOST_SEEDS + 1):
        if difference.half_with(seeds=seeds) <= half:
            more = (seeds - difference.seeds) * round_seconds
            return f"about {duration(more)} more would halve it"
    for seeds in (difference.seeds, MOST_SEEDS):
        for tenths in range(11, 10 * MOST_ROWS + 1):
            rows = math.ceil(difference.rows * tenths / 10)
            if difference.half_with(rows=rows, seeds=seeds) <= half:
                beside = "" if seeds == difference.seeds else " and more time"
                return f"more time cannot halve it, but about {_round(rows)} rows{beside} would"
    return "no number of rows would halve it soon"


def duration(seconds: float) -> str:
    """Write a time in words, roughly.

    >>> duration(40), duration(700), duration(9_000), duration(400_000)
    ('a minute', '12 minutes', '2.5 hours', '5 days')
    """
    minutes = seconds / 60
    if minutes < 1.5:
        return "a minute"
    if minutes < 90:
        return f"{minutes:.0f} minutes"
    hours = minutes / 60
    if hours < 48:
        return f"{hours:.1f}".removesuffix(".0") + " hours"
    return f"{hours / 24:.0f} days"


def with_interval(found: Mapping[str, float | None] | None, form: str = ".1f") -> str:
    """Write the `value` of a verdict with its interval; nothing where there is none.

    >>> with_interval({"value": 8.95, "low": -0.5, "high": 13.3}, "+.1f")
    '+8.9 [-0.5, 13.3]'
    """
    if found is None or found["value"] is None:
        return ""
    low, high = found["low"], found["high"]
    interval = "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
    return f"{found['value']:{form}}{interval}"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _number(value: float) -> str:
    return f"{value:.1f}".replace("-", "\N{MINUS SIGN}")


def _round(rows: int) -> str:
    """Write a number with two digits that count.

    >>> _round(87), _round(1234)
    ('87', '1,200')
    """
    digits = max(0, len(str(rows)) - 2)
    return f"{round(rows, -digits):,}"
