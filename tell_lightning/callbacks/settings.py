"""The `eval` and `run` sections of the configuration. Plain values: no torch, no Lightning."""

from dataclasses import dataclass
from typing import Literal

LEAST: dict[str, dict[str, float]] = {
    "run": {"checkpoint_every_steps": 1},
    "eval": {
        "every_steps": 1,
        "dev_rows": 1,
        "test_rows": 1,
        "batch_tokens": 1,
        "temperature": 0.0,
        "samples": 0,
        "table_rows": 0,
        "patience": 1,
    },
}
"""The least that a number of a section may be, where a smaller one would fail late."""


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """When the model is scored, on how many rows, and which adapter is kept."""

    every_steps: int | None = None
    """Optimizer steps between two scorings on dev; null: a fifth of the run."""
    dev_rows: int | None = 64
    """Rows of each dev set to generate for, from the first on; null: all."""
    test_rows: int | None = None
    """Rows of each test set to generate for, from the first on; null: all."""
    before: bool = True
    """Whether `fit` scores the base before training, with the same prompts."""
    test: bool = True
    """Whether `fit` scores the test sets, with the base before and with the adapter after."""
    anchor_check: bool = True
    """Whether the test rows are scored once more after training with the anchor taken off (or put
    on, where training had none): is what was learned bound to it?"""
    batch_tokens: int = 16384
    """Tokens of a generation batch, padding and answers included; lower it to save memory."""
    temperature: float = 0.0
    """0: greedy; above: tokens are drawn, by seed_everything and the row's id."""
    samples: int = 3
    """Predictions of each task to print after the adapter is scored on test."""
    table_rows: int = 32
    """Predictions of each task to send to W&B after a scoring."""
    select: Literal["best", "last"] = "best"
    """Which adapter is exported: best by the dev score, or last."""
    patience: int | None = 5
    """Scorings without a better dev score before training stops; null: never."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where a run goes and what it is called."""

    name: str = "run"
    """Last part of the folder's name, and the name in W&B."""
    dir: str = "runs"
    """Folder that gets one folder for each run."""
    checkpoint_every_steps: int = 100
    """Optimizer steps between two checkpoints to resume from."""
    wandb_project: str = "tell_lightning"
    """W&B project; WANDB_MODE says whether W&B is online, offline or disabled."""
