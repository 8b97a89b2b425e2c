"""What is asked of the processes beside trials: trainings and scorings that belong to no search."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Fit:
    """One training, or one scoring of the base."""

    name: str
    """Of its result's file; the same name is the same work."""
    arm: str
    overlay: Mapping[str, Any] = field(compare=False)
    """What is merged over the configuration: the fold's rows and the settings of the arm."""
    fold: int | None
    """The fold whose rows it answers; None: it is trained on all rows."""
    seed: int
    """`seed_everything`: of initialisation, order and dropout."""
    split: Literal["dev", "test"]
    """The rows that it answers."""
    kind: Literal["train", "base", "few_shot"] = "train"
    """train: a training; base: the base with the anchor; few_shot: the base with rows of train as
    earlier turns (`tune.few_shot`)."""
