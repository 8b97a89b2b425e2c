"""Adapt a loaded checkpoint to the present configuration and the present folder of the run.

- A checkpoint counts micro-batches. If the micro-batch or the number of devices has changed, the
  counters of Lightning are computed again from the optimizer step.
- A checkpoint restores learning rate, weight decay, betas and the patience of early stopping. The
  values of the present configuration replace them; the optimizer's means and step counts stay.
- A checkpoint holds the path of the best adapter, and the run folder may have moved since.
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import LambdaLR

from tell_lightning.callbacks.selection import BestCheckpoint, Patience


class Resume(pl.Callback):
    """Adapts a loaded checkpoint to the present configuration."""

    def __init__(self, patience: int | None) -> None:
        """Take the patience of the configuration."""
        self.patience = patience

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Correct the counters and the path of the best adapter, before Lightning reads them."""
        batches = checkpoint["global_step"] * trainer.accumulate_grad_batches
        restate(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"], batches)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, BestCheckpoint):
                folder, step = Path(str(callback.dirpath)), checkpoint["global_step"]
                state = checkpoint["callbacks"].get(callback.state_key, {})
                if not relocate(state, folder, step):
                    rank_zero_info(
                        f"{folder}: has no best adapter of the steps up to {step}; the best one of "
                        "the following steps is kept."
                    )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the optimizer, its schedule and the patience to their configured values."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Patience) and self.patience is not None:
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
        """Correct Lightning's step of logging, one too high after a resume at the run's end."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def restate(progress: dict[str, Any], batches: int) -> None:
    """Set the saved progress of the training loop to a number of micro-batches.

    Args:
        progress: State of Lightning's `_BatchProgress`; changed in place. `completed` may be one
            below `processed`: a checkpoint may be written just before Lightning counts the batch.
        batches: Micro-batches of the completed steps, in the present layout.
    """
    for counts in (progress["total"], progress["current"]):
        not_completed = counts["processed"] - counts["completed"]
        counts.update(ready=batches, started=batches, processed=batches)
        counts["completed"] = batches - not_completed


def relocate(state: dict[str, Any], folder: Path, step: int) -> bool:
    """Replace the folder in a saved state of `ModelCheckpoint` with the present one.

    Args:
        state: The state; changed in place. It is emptied if the best checkpoint is missing, or if
            it is of a step after `step`: those steps are trained again, maybe with other results.
        folder: The folder of the checkpoints.
        step: Optimizer step that the run resumes from.

    Returns:
        False if the state was emptied.
    """
    if not state.get("best_model_path"):
        return True

    def here(path: str) -> str:
        return str(folder / Path(path).name) if path else path

    best = Path(here(state["best_model_path"]))
    if not best.is_file() or torch.load(best, weights_only=True)["global_step"] > step:
        state.clear()
        return False
    state["dirpath"] = str(folder)
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = here(state[key])
    state["best_k_models"] = {here(path): v for path, v in state["best_k_models"].items()}
    return True
