"""How a run goes on from a checkpoint, in the layout and with the values that are configured now.

A checkpoint counts in the micro-batches of the session that wrote it; where micro-batch or number
of devices have changed, Lightning's counters are restated. It also brings the optimizer's learning
rate, weight decay and betas back, and the patience of early stopping; but what is typed on resume
wins. Only its running means and counts are wanted. And it knows the best adapter by the folder that
the run was in then.
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info
from torch.optim.lr_scheduler import LambdaLR


class Resume(pl.Callback):
    """Makes a loaded checkpoint fit the configuration."""

    def __init__(self, patience: int | None) -> None:
        """Take the patience of the configuration."""
        self.patience = patience

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restate the counters and the best adapter's place, before Lightning takes them."""
        batches = checkpoint["global_step"] * trainer.accumulate_grad_batches
        restate(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"], batches)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor == "val/score":
                folder, step = Path(str(callback.dirpath)), checkpoint["global_step"]
                state = checkpoint["callbacks"].get(callback.state_key, {})
                if not relocate(state, folder, step):
                    rank_zero_info(
                        f"{folder}: holds no best adapter of the steps up to {step}; it is looked "
                        "for among those from here on."
                    )

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


def restate(progress: dict[str, Any], batches: int) -> None:
    """Make the saved progress of the training loop count `batches` micro-batches.

    Args:
        progress: State of Lightning's `_BatchProgress`; changed in place. A checkpoint is written
            at the end of an optimizer step, before or after Lightning counts it as completed.
        batches: Micro-batches that the completed steps take in the present layout.
    """
    for counts in (progress["total"], progress["current"]):
        behind = counts["processed"] - counts["completed"]
        counts.update(ready=batches, started=batches, processed=batches)
        counts["completed"] = batches - behind


def relocate(state: dict[str, Any], folder: Path, step: int) -> bool:
    """Make a saved state of `ModelCheckpoint` name the files of the folder where the run is now.

    Args:
        state: Changed in place; emptied where the best checkpoint is not in the folder, or a later
            one is, of steps that are taken again and may come out otherwise.
        folder: Where the checkpoints are.
        step: Optimizer step that the run goes on from.

    Returns:
        Whether the best checkpoint is there, or there was none.
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
