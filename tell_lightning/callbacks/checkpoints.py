"""Which checkpoints are kept: the best on dev, and the last one to resume from."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.settings import EvalSettings, RunSettings


def checkpoint_callbacks(
    folder: RunFolder, evaluation: EvalSettings, run: RunSettings, *, has_dev: bool
) -> list[pl.Callback]:
    """Return the callbacks that keep checkpoints and stop early.

    Args:
        folder: The run's folder.
        evaluation: Selection and patience.
        run: How often to save the last one.
        has_dev: Whether there is a dev score to go by.
    """
    callbacks: list[pl.Callback] = [
        ModelCheckpoint(
            dirpath=folder.checkpoints,
            filename="last",
            every_n_train_steps=run.checkpoint_every_steps,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    ]
    if has_dev:
        callbacks.append(
            ModelCheckpoint(
                dirpath=folder.checkpoints,
                filename="best",
                monitor="val/score",
                mode="max",
                enable_version_counter=False,
            )
        )
        if evaluation.patience is not None:
            callbacks.append(EarlyStopping("val/score", mode="max", patience=evaluation.patience))
    return callbacks
