"""What is known of each score: what it is called, how it is written, whether less is better.

Screen, report, W&B and dashboard say the same of a score, because they ask here. Each scoring kind
describes its own scores; those of every task are described in this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
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

    def written(self, value: float | None) -> str:
        """Write a number, its unit left out; None, which files have for it, is no number.

        >>> facts_of("exact_match").written(0.8125), facts_of("rows").written(2000.0)
        ('81.2', '2,000')
        """
        if value is None:
            return "NaN"
        value = value * 100 if self.scale == "share" else value
        return f"{value:.4g}" if self.decimals is None else f"{value:,.{self.decimals}f}"

    def selection(self, value: float) -> float:
        """Bring a score to 0..1, higher being better, without a change of the order.

        Points are divided by 100, ratios and shares stay as they are. Where lower is better that is
        1 / (1 + value), since error rates have no upper end. A number on no known scale goes
        through value / (1 + |value|), from -1..1 to 0..1.

        >>> facts_of("bleu").selection(47.0), facts_of("ter_lines").selection(100.0)
        (0.47, 0.5)
        >>> ScoreFacts("errors", better="lower").selection(3.0)
        0.125
        """
        if self.scale == "number":
            squashed = value / (1 + abs(value))
            return (1 + (squashed if self.better == "higher" else -squashed)) / 2
        value = value / 100 if self.scale == "points" else value
        return value if self.better == "higher" else 1 / (1 + value)


def points(label: str, group: str) -> ScoreFacts:
    """Describe a score from 0 to 100."""
    return ScoreFacts(label, "points", 1, group=group)


def ratio(label: str, group: str) -> ScoreFacts:
    """Describe a score from 0, or -1, to 1."""
    return ScoreFacts(label, "ratio", 2, group=group)


EXACT_MATCH = ScoreFacts("exact match", "share", 1, group="Words")
JSON_VALID = ScoreFacts("valid JSON", "share", 0, group="Form of the answer")

OF_EVERY_TASK: Mapping[str, ScoreFacts] = {
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
"""Scores of every task, whatever its kind."""
PROBE: Mapping[str, ScoreFacts] = {
    "loss": ScoreFacts("loss: chat", "nats", 3, "lower"),
    "unchanged": ScoreFacts("chat kept", "share", 0),
    "rows": ScoreFacts("chat probe prompts", "count", 0, "neither"),
}
"""What is measured of a hundred chat prompts that no training source holds."""
LOSS = ScoreFacts("loss", "nats", 3, "lower")
DEV_SCORE = ScoreFacts("dev score", "ratio", 3)
"""The mean of the tasks' primary scores, which adapters are chosen by."""


@cache
def all_facts() -> Mapping[str, ScoreFacts]:
    """Return the facts of every score that comes with the package, in the order of lists."""
    # The kinds describe their scores by the class above.
    from tell_lightning.metrics.kinds.registry import BUILT_IN, built_in

    kinds = [built_in(name).facts for name in BUILT_IN]
    return {name: facts for each in (*kinds, OF_EVERY_TASK) for name, facts in each.items()}


def facts_of(name: str, more: Mapping[str, ScoreFacts] | None = None) -> ScoreFacts:
    """Return what is known of a score; of one that nobody has described, its name.

    Args:
        name: The score.
        more: What is known of the scores of a class of the user's.

    >>> facts_of("my_own").label, facts_of("my_own").written(1234.5678), facts_of("my_own").better
    ('my own', '1235', 'neither')
    """
    found = (more or {}).get(name) or all_facts().get(name)
    return found or ScoreFacts(name.replace("_", " "), better="neither")
