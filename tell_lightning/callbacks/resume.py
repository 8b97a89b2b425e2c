"""What a checkpoint must not decide when a run goes on.

It brings the optimizer's learning rate, weight decay and betas back, and the patience of early
stopping; but what is typed on resume wins. Only its running means and counts are wanted.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim.lr_scheduler import LambdaLR


class Resume(pl.Callback):
    """Puts the configuration's values back after a checkpoint was loaded."""

    def __init__(self, patience: int | None) -> None:
        """Take the patience of the configuration."""
        self.patience = patience

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Correct the optimizer, its schedule and the patience."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and self.patience is not None:
                callback.patience = self.patience
        configured: Any = pl_module.configure_optimizers()
        fresh = configured["lr_scheduler"]["scheduler"]
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            assert isinstance(scheduler, LambdaLR)
            scheduler.base_lrs = list(fresh.base_lrs)
            groups = zip(
                scheduler.optimizer.param_groups,
                fresh.optimizer.param_groups,
                scheduler.base_lrs,
                scheduler.lr_lambdas,
                strict=True,
            )
            for group, wanted, lr, share in groups:
                group.update({key: v for key, v in wanted.items() if key != "params"})
                group["lr"] = lr * share(scheduler.last_epoch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log at the optimizer step: after a resume at a run's end, Lightning is one ahead."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
