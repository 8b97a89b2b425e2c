"""The sections `eval` and `run` of the configuration. Needs neither torch nor Lightning."""

from dataclasses import dataclass
from typing import Literal

from tell_lightning.settings import Range

RUN_RANGES = {"checkpoint_every_steps": Range(1), "checkpoint_every_minutes": Range(0)}
EVAL_RANGES = {
    "every_steps": Range(1),
    "dev_rows": Range(1),
    "test_rows": Range(1),
    "loss_rows": Range(1),
    "batch_tokens": Range(1),
    "temperature": Range(0),
    "samples": Range(0),
    "table_rows": Range(0),
    "patience": Range(1),
}
"""The numbers that each key may have."""
SPLITS = ("dev", "test")
SWAPPED = ("test_without_anchor", "test_with_anchor")
"""The test rows without their anchor, or with it if training had none."""
SWAPPED_ROWS = 200
"""Most rows of a task that are scored with a swapped anchor."""


def most_rows(split: str, dev_rows: int | None, test_rows: int | None) -> int | None:
    """Return how many rows of each task, from the first on, are scored on a split; None: all.

    >>> most_rows("dev", 64, 300), most_rows("test_without_anchor", 64, 300)
    (64, 200)
    """
    if split == "dev":
        return dev_rows
    if split in SWAPPED:
        return min(test_rows or SWAPPED_ROWS, SWAPPED_ROWS)
    return test_rows


def most_loss_rows(
    split: str, dev_rows: int | None, test_rows: int | None, loss_rows: int | None
) -> int | None:
    """Return how many rows of each source have their loss computed on a split; None: all.

    >>> most_loss_rows("test", 64, None, 100), most_loss_rows("dev", 64, None, 100)
    (100, 64)
    """
    limits = (most_rows(split, dev_rows, test_rows), loss_rows)
    return min((most for most in limits if most is not None), default=None)


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """When the model is scored, on how many rows, and which adapter is kept."""

    every_steps: int | None = None
    """Optimizer steps between two scorings on dev; null: one fifth of the run. The last step is
    scored, too."""
    dev_rows: int | None = 64
    """Number of rows of each dev set to score, answers and loss, from the first on, and of held-out
    rows whose loss is computed with them; null: all."""
    test_rows: int | None = None
    """Number of rows of each test set to score, answers and loss, from the first on, and of
    held-out rows whose loss is computed with them; null: all."""
    loss_rows: int | None = None
    """Number of rows of each dev, test and held-out set whose loss is computed, from the first on;
    null: as many as are scored. A loss needs fewer rows than a score."""
    before: bool = True
    """Whether `fit` also scores the base before training, with the same prompts."""
    test: bool = True
    """Whether `fit` scores the test sets: the base before training, the adapter after it."""
    anchor_check: bool = True
    """Whether to score the test rows, at most 200 of each task, once more after training, without
    the anchor (or with it, if training had none). The scores show whether the adapter depends on
    the anchor."""
    batch_tokens: int = 16384
    """Tokens of a generation batch, including padding and answers; lower it to save memory."""
    temperature: float = 0.0
    """0: greedy decoding; above 0: random tokens, seeded by seed_everything and the row's id."""
    samples: int = 3
    """Number of predictions of each task to print after the test."""
    table_rows: int = 32
    """Number of predictions of each task to send to W&B after a scoring."""
    probe: bool | None = None
    """Whether to see if the base's chat changes: a hundred short prompts that no training source
    holds are answered with every scoring of test. null: where the base can chat, by a chat template
    and at least 8,000 tokens."""
    select: Literal["best", "last"] = "best"
    """The adapter to export: the best by dev score, of equal ones by dev loss; or the last."""
    patience: int | None = 5
    """Stop training after this many scorings with neither a better dev score nor the lowest dev
    loss so far; null: never."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The folder and the name of a run."""

    name: str = "run"
    """Last part of the folder's name, which is also the name in W&B."""
    dir: str = "runs"
    """Folder in which each run gets a folder of its own."""
    checkpoint_every_steps: int = 100
    """Optimizer steps between two checkpoints to resume from."""
    checkpoint_every_minutes: float | None = 10.0
    """Minutes after which a checkpoint is written even if its step is not due; null: never."""
    wandb_project: str = "tell_lightning"
    """W&B project. The variable WANDB_MODE makes W&B online, offline or disabled."""
