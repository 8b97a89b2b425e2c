"""Tokens per second and peak memory of training, and the time that training and scoring take.

Padding does not count. The clock of training includes the time spent waiting for data, but not
validation; that of scoring includes the losses of rows and the answers.
"""

import time
from typing import Any

import lightning.pytorch as pl
import torch

from tell_lightning.data.batches import PADDING, Batch
from tell_lightning.memory import peak_resident_bytes


def peak_memory_bytes() -> int:
    """Return the peak memory: of the GPU if there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return peak_resident_bytes()


class Throughput(pl.Callback):
    """Measures the time of training and counts its tokens."""

    def __init__(self) -> None:
        """Start at zero.

        Attributes:
            seconds: Seconds of training, without validation.
            scoring: Seconds of scoring: validation and test.
            first_step: Seconds of the first optimizer step, which holds what is done once, such as
                compiling; None: not taken yet.
            tokens: Tokens of this rank's examples, a scalar tensor on the training device.
        """
        self.seconds = self.scoring = 0.0
        self.first_step: float | None = None
        self.tokens: torch.Tensor | None = None
        self._since: float | None = None  # while the clock stands
        self._scoring_since: float | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._since = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of training, and start that of scoring."""
        self._count()
        self._scoring_since = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of training again, if this was a pause of it."""
        self._count_scoring()
        if self._since is not None:
            self._since = time.perf_counter()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of scoring."""
        self._scoring_since = time.perf_counter()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it."""
        self._count_scoring()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._since = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the tokens of the batch and the time since the batch before."""
        tokens = (batch.examples != PADDING).sum()
        self.tokens = tokens if self.tokens is None else self.tokens + tokens
        self._count()
        ended = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if ended and self.first_step is None:
            self.first_step = round(self.seconds, 2)
        if ended and trainer.global_step % self._every == 0:  # the read waits for the device
            pl_module.log("train/tokens_per_second", self.tokens_per_second(trainer))

    def spent(self) -> dict[str, float]:
        """Return the seconds of training and of scoring."""
        return {"training": self.seconds, "scoring": self.scoring}

    def _count_scoring(self) -> None:
        if self._scoring_since is not None:
            self.scoring += time.perf_counter() - self._scoring_since
        self._scoring_since = None

    def _count(self) -> None:
        if self._since is None:
            return
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now

    def tokens_per_second(self, trainer: pl.Trainer) -> float:
        """Return the tokens per second of all ranks, estimated from this rank."""
        if self.tokens is None or not self.seconds:
            return 0.0
        return float(self.tokens) * trainer.world_size / self.seconds
