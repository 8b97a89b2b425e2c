"""Say which micro-batch `data.micro_batch: auto` has found, and hand it on to be written down."""

from collections.abc import Callable

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from tell_lightning.data.datamodule import TellDataModule


class FoundMicroBatch(pl.Callback):
    """Waits until the data module has tried."""

    def __init__(self, data: TellDataModule, found: Callable[[int], None]) -> None:
        """Take what is called on rank 0, once, with the micro-batch."""
        self.data, self.found = data, found
        self._said = data.tried is not None  # by the session before a resume

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Look, right after the data module was set up."""
        if self._said or self.data.tried is None:
            return
        self._said = True
        passes = self.data.accumulation(trainer.world_size)
        rank_zero_info(
            f"data.micro_batch: auto has found {self.data.tried}, which makes {passes} forward "
            f"pass{'es' if passes > 1 else ''} an optimizer step on each device."
        )
        if trainer.is_global_zero:
            self.found(self.data.tried)
