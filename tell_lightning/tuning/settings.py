"""The section `tune` of the configuration: over what is searched, and by how many folds and seeds.

Only the command `tune` reads it; the other commands take a file that has it.
"""

from dataclasses import dataclass
from typing import Literal

from tell_lightning.settings import ConfigError, Range

RANGES = {
    "search.task_share": Range(above=0, below=1),
    "search.lr": Range(above=0),
    "search.steps": Range(1),
    "folds": Range(2),
    "seeds": Range(2),
}
"""The numbers that each key may have."""

Arm = Literal["tell", "sft", "mixture"]
Bounds = list[float]


@dataclass(frozen=True, kw_only=True)
class Search:
    """Over what is searched."""

    arm: tuple[Arm, ...] = ("tell", "sft", "mixture")
    """The arms that take turns. tell: task and general rows, the anchor on each task row; sft: task
    rows alone, with the anchor; mixture: as tell, without anchor and response prefix."""
    task_share: Bounds | None = None
    """Task slots over all slots: [low, high], or one number in brackets to fix it; null: 0.05 to
    0.5, as far as the general rows last."""
    lr: Bounds | None = None
    """Learning rate: [low, high], or one number in brackets; null: from a quarter of the rate of
    `fit` to four times it."""
    steps: Bounds | None = None
    """Optimizer steps: [low, high], or one number in brackets; null: from half of what `fit` would
    take to twice as many, as far as budget and general rows allow."""
    force_response_prefix: tuple[bool, ...] | None = None
    """Whether answers are forced to begin with the response prefix: [false, true] tries both, one
    value fixes it; null: both, where a task has a response prefix."""

    def __post_init__(self) -> None:
        """Check that the ranges are ranges.

        Raises:
            ConfigError: One is empty, has more than two ends or is upside down; no arm.
        """
        for name in ("task_share", "lr", "steps"):
            given = getattr(self, name)
            if given is not None and (len(given) not in {1, 2} or given[0] > given[-1]):
                raise ConfigError(
                    f"tune.search.{name}: must be [low, high], or one number in brackets, got "
                    f"{list(given)}. Write [{_example(name)}]."
                )
        for name in ("arm", "force_response_prefix"):
            if getattr(self, name) == ():
                raise ConfigError(
                    f"tune.search.{name}: must have one value or more, got none. Leave the key out "
                    "to try all."
                )


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How `tune` searches, and how it compares."""

    search: Search = Search()
    """The ranges."""
    folds: int | None = None
    """Folds of the cross-validation; null: five where there is no dev set or fewer than a hundred
    rows in all, else none."""
    seeds: int = 5
    """Most seeds of the verdict, the same ones for both arms; the budget may allow fewer."""


def _example(name: str) -> str:
    return {"task_share": "0.1, 0.5", "lr": "1e-4, 1e-3", "steps": "50, 300"}[name]
