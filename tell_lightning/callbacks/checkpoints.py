"""The last checkpoint of a run, to resume from, and how checkpoint files are written."""

import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from tell_lightning.callbacks.any_rank import AnyRank
from tell_lightning.callbacks.folder import LAST, RunFolder
from tell_lightning.callbacks.termination import Termination


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a draft in the same folder and renames it, so a killed run keeps the old checkpoint.

    Lightning writes its draft to the temporary folder. If that is on another disk, moving the draft
    is a copy, and a kill leaves half a file.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write the file completely or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        try:
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except Exception:
            draft.unlink(missing_ok=True)  # the disk may be full
            raise


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` every few steps or minutes, and before SIGTERM or Ctrl+C ends the run.

    The checkpoint of a step is written when the first batch of the next step starts. By then the
    step is logged, the dev sets are scored and the best adapter is saved, so a resumed run repeats
    nothing and skips nothing. The last step of a run is saved when training ends.

    With several ranks, all hear of a signal one step later (`AnyRank`) and end at the same step.
    """

    def __init__(
        self,
        folder: RunFolder,
        termination: Termination,
        *,
        every_steps: int,
        every_minutes: float | None = None,
    ) -> None:
        """Choose when to save.

        Args:
            folder: The folder of the run.
            termination: Says when a signal ends the run.
            every_steps: Optimizer steps between two checkpoints.
            every_minutes: Minutes after which a step is saved that is not due by its number; None:
                steps alone count.
        """
        self.folder = folder
        self.termination = termination
        self.every_steps = every_steps
        self.every_minutes = every_minutes

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the step that is already saved."""
        self._saved, self._saved_at = trainer.global_step, time.monotonic()
        self._ranks = AnyRank()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save the step before this one if it is due."""
        step = trainer.global_step
        if batch_idx % trainer.accumulate_grad_batches:
            return
        ends, late = self._ranks.hear(trainer, self._own())
        if step > self._saved and (ends or late or step % self.every_steps == 0):
            self._save(trainer)
        if ends:
            self._ranks.end()
            self.termination.end(trainer)
        self._ranks.say(trainer, self._own())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last step."""
        self._ranks.end()
        self._save(trainer)
        self.termination.leave_training(trainer)

    def _own(self) -> tuple[bool, bool]:
        """Return whether this rank was asked to end, and whether its last checkpoint is old."""
        asked = self.termination.asked is not None
        if self.every_minutes is None:
            return asked, False
        return asked, time.monotonic() - self._saved_at >= 60 * self.every_minutes

    def _save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint, and the rows that loggers have not written yet."""
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.folder.checkpoints / LAST, weights_only=False)
        if trainer.is_global_zero:
            self.folder.keep_config()
        self._saved, self._saved_at = trainer.global_step, time.monotonic()
