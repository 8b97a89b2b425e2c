"""On which rows the arms are compared, and by which rows each is chosen. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from tell_lightning.tuning.folds import Folds
from tell_lightning.tuning.records import Record
from tell_lightning.tuning.scores import Numbers, Row, Scorings, pooled, row_values

Part = int | None
"""A part of the rows with a choice of its own: a fold, or a part of the dev set; None: the test
rows."""


@dataclass(frozen=True)
class Ground:
    """What the arms are compared on."""

    scorings: Scorings
    folds: Folds
    has_test: bool

    @property
    def parts(self) -> list[Part]:
        """All parts."""
        if self.has_test:
            return [None]
        if self.folds.kind == "folds":
            return [*range(self.folds.count)]
        return [*sorted({part for of in self.folds.parts.values() for part in of.values()})]

    def fold(self, part: Part) -> int | None:
        """Return the fold whose training rows a part is answered by; None: all rows."""
        return part if part is None or self.folds.kind == "folds" else 0

    def part_of(self, fold: int | None, row: Row) -> Part:
        """Return the part of a row that a fit on a fold has answered."""
        if fold is None or self.folds.kind == "folds":
            return fold
        task, _, id = str(row["id"]).partition("/")
        return self.folds.parts[task][id]

    @property
    def words(self) -> str:
        """Say where the estimate comes from."""
        if self.has_test:
            return "test rows, which chose nothing"
        if self.folds.kind == "folds":
            return "task rows, each answered by what the other folds chose"
        return "dev rows, each answered by what the other parts of the dev set chose"


def choose(ground: Ground, records: Sequence[Record], part: Part) -> Record:
    """Choose a trial without the rows of a part: the first one, unless another is better.

    The first trial is what `fit` does by default. One with a higher score, or the same score and a
    lower loss, takes its place if its lead is larger than the standard error of the difference: in
    score, paired on rows, or in loss, paired on folds. Ten answers are mostly luck, and the
    luckiest of many trials is not the best. Losses are compared between arms that have the anchor
    or between arms without it: the response prefix counts in them.

    Args:
        ground: What the arms are compared on.
        records: Complete trials.
        part: The part that must not be looked at; None: all rows may be.

    Raises:
        MetricError: As `metrics.score.score`.
    """
    if part is not None and len(ground.parts) == 1:  # a dev set with one prompt has no other part
        part = -1
    rows = {int(record["number"]): _rows(ground, record, part) for record in records}
    losses = {int(record["number"]): _losses(ground, record, part) for record in records}

    def rank(record: Record) -> tuple[float, float, int]:
        number = int(record["number"])
        loss = float(losses[number].mean()) if len(losses[number]) else math.inf
        return -pooled(ground.scorings, rows[number]), loss, number

    def scores(record: Record) -> Numbers:
        return row_values(ground.scorings, rows[int(record["number"])])

    def is_better(record: Record) -> bool:
        """Say whether a trial that ranks above the first one is more than lucky."""
        if _is_more(scores(record) - scores(first)):
            return True
        own, its = losses[int(record["number"])], losses[int(first["number"])]
        alike = (record["arm"] == "mixture") == (first["arm"] == "mixture")
        return alike and len(own) == len(its) > 0 and _is_more(its - own)

    first = min(records, key=lambda record: int(record["number"]))
    above = takewhile(lambda record: record is not first, sorted(records, key=rank))
    return next(filter(is_better, above), first)


def _rows(ground: Ground, record: Record, part: Part) -> list[Row]:
    """Return the answers that may be looked at."""
    return [
        row
        for fold in record["folds"]
        for row in fold["rows"]
        if ground.part_of(fold["fold"], row) != part
    ]


def _losses(ground: Ground, record: Record, part: Part) -> Numbers:
    """Return the losses of the folds that may be looked at."""
    return np.array(
        [
            fold["loss"]
            for fold in record["folds"]
            if fold["loss"] is not None
            and any(ground.part_of(fold["fold"], row) != part for row in fold["rows"])
        ]
    )


def _is_more(values: Numbers) -> bool:
    """Say whether a mean is above 0 by more than its standard error."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()) > error
