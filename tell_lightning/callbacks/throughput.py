"""Tokens per second and peak memory of training.

Tokens are those of the examples, padding not counted, summed over all ranks. The clock runs while
data are awaited, too; it stands still during validation.
"""

import resource
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch

from tell_lightning.data.batches import PADDING, Batch


def peak_memory_bytes() -> int:
    """Return the most memory that was in use: of the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Throughput(pl.Callback):
    """Times training and counts its tokens."""

    def __init__(self) -> None:
        """Start at zero.

        Attributes:
            seconds: Time spent on training, validation left out.
            tokens: Tokens of this rank's examples, as a tensor on the training device.
        """
        self.seconds = 0.0
        self.tokens: torch.Tensor | None = None
        self._since = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._since = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._count()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the tokens of a batch and the time since the last one."""
        tokens = (batch.examples != PADDING).sum()
        self.tokens = tokens if self.tokens is None else self.tokens + tokens
        self._count()
        ended = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if ended and trainer.global_step % self._every == 0:  # reading it waits for the device
            pl_module.log("train/tokens_per_second", self.tokens_per_second(trainer))

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now

    def tokens_per_second(self, trainer: pl.Trainer) -> float:
        """Return tokens of all ranks over the seconds of this one."""
        if self.tokens is None or not self.seconds:
            return 0.0
        return float(self.tokens) * trainer.world_size / self.seconds
