"""What every scoring kind says: how answers are scored, shown, compared, and read one by one."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tell_lightning.metrics.characters import is_exact
from tell_lightning.metrics.intervals import RowSums
from tell_lightning.metrics.predictions import MetricError, Prediction
from tell_lightning.metrics.score_facts import ScoreFacts
from tell_lightning.metrics.settings import Scoring

Verdict = Literal["right", "wrong", "unreadable", "exact", ""]
"""What one answer is; nothing where that cannot be said of it alone."""


@dataclass(frozen=True)
class KindScores:
    """The scores of a set of predictions."""

    values: dict[str, float]
    """Number by name."""
    signatures: dict[str, str] = field(default_factory=dict)
    """How a score was computed, by its name: sacreBLEU's signature."""


@dataclass(frozen=True)
class Reading:
    """What one text says, an answer or a reference."""

    text: str
    """What a reader compares: all of it, or the thought in it."""
    label: str | None = None
    """The label that it gives; None where it gives none, or the kind has no labels."""


class ScoringKind(ABC):
    """How the answers to one kind of task are scored.

    A subclass names its scores in `facts`, and gives numbers for each row in `row_sums`, from whose
    sums the scores follow: then they have intervals, and two runs can be compared. Where a score is
    no function of such sums, `row_sums` returns nothing for it, and `score` computes it.
    """

    facts: Mapping[str, ScoreFacts]
    """The scores that it computes, by name, in the order of lists."""
    primary: str
    """The score that stands for a task, and by which adapters are chosen."""
    table: Sequence[str] = ()
    """The few scores in the table on the screen, also of those that every task has; none: the
    primary one and the three after it."""
    report: Sequence[str] = ()
    """The scores that stand first in the report; none: those of the table."""
    summary: Sequence[str] = ()
    """The scores in the line after each evaluation; none: those of the table."""
    only_with_intervals: frozenset[str] = frozenset()
    """Scores too slow for dev, which are computed where intervals are; none can be primary."""
    positive: str | None = None
    """The label that precision, recall and F1 are of, unless the settings name another one."""
    verdicts: Sequence[Verdict] = ("exact",)
    """What `verdict` may say, in the order in which it is counted."""

    def __init__(self, scoring: Scoring) -> None:
        """Take the settings.

        Raises:
            MetricError: A setting that does not fit the kind.
        """
        self.scoring = scoring
        self.primary = scoring.primary or self.primary
        names = [
            name
            for name, facts in self.facts.items()
            if facts.better != "neither" and name not in self.only_with_intervals
        ]
        if self.primary not in names:
            raise MetricError(
                f"scoring.primary: must be one of {', '.join(names)}, got {self.primary!r}. Name "
                "one of them; of each it must be known whether higher or lower is better."
            )

    @abstractmethod
    def row_sums(self, predictions: Sequence[Prediction]) -> list[RowSums]:
        """Split scores into what each row adds.

        Args:
            predictions: Every row of the set once, with references.

        Returns:
            Groups of scores that share their numbers, with a row of them for each prediction.

        Raises:
            MetricError: A reference that cannot be used.
        """

    def score(self, predictions: Sequence[Prediction]) -> KindScores:
        """Score a set of predictions; unless a subclass does otherwise, from `row_sums`.

        Args:
            predictions: Every row of the set once, with references.

        Raises:
            MetricError: A reference that cannot be used.
        """
        groups = self.row_sums(predictions)
        return KindScores({name: v for group in groups for name, v in group.whole().items()})

    def details(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return what is known of a set beside its scores, as plain values for `run.json`."""
        return {}

    def settled(self, references: Iterable[str], labels: Iterable[str] = ()) -> Scoring:
        """Return the settings, with what they leave open taken from the data.

        Args:
            references: Of all rows of the task.
            labels: Labels that are known beside.
        """
        return self.scoring

    def preview(self, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """Score as `score` does, but without torch where it can be left out, for `plan`."""
        return self.score(predictions).values

    def perfect(self, reference: str) -> str:
        """Return an answer that is right, as a model would write it."""
        return reference

    def check(self, predictions: Sequence[Prediction]) -> None:
        """Check the references of all rows that will be scored.

        Raises:
            MetricError: A reference that cannot be used.
        """
        for prediction in predictions:
            self.read(prediction.reference or "", reference=True)

    def notes(self, references: Sequence[str]) -> Iterator[str]:
        """Say before training what in the settings hardly fits the references.

        Args:
            references: Of a set that will be scored.
        """
        yield from ()

    def read(self, text: str, *, reference: bool = False) -> Reading:
        """Read one answer, or one reference, as the report shows it."""
        return Reading(text)

    def verdict(self, answer: Reading, reference: Reading) -> Verdict:
        """Say whether one answer, as it was read, is right."""
        return "exact" if is_exact(answer.text, reference.text) else ""

    def columns(self, answer: str, reference: str) -> dict[str, Any]:
        """Return what stands beside one answer in W&B's table: numbers, text, yes or no."""
        return {"exact_match": is_exact(answer, reference)}

    def saved(self, answer: str) -> dict[str, Any]:
        """Return what predictions files hold of one answer beside its text."""
        return {}

    @property
    def is_settled(self) -> bool:
        """Say whether `settled` takes nothing from the data."""
        return True

    @property
    def reading(self) -> list[Any] | None:
        """The settings that decide what `saved` returns, as plain values; None where none do."""
        return None
