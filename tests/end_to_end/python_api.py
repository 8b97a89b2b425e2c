"""The parts from Python, without the command line: `python python_api.py FOLDER DEVICES`.

What a notebook does, with a plain Trainer and three loggers, on the embedded default. The folder
gets the adapter and the checkpoints.
"""

import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from tell_lightning import GenerationEvaluation, TellDataModule, TellModule, save_adapter

STEPS, ROWS, CLIP = 3, 6, 1.0
DEFAULT: dict[str, Any] = yaml.safe_load((files("tell_lightning") / "default.yaml").read_text())


def train(folder: Path, devices: int = 1) -> tuple[pl.Trainer, TellModule, TellDataModule]:
    """Train for a few steps on the default data, test, and save the adapter."""
    data = TellDataModule(**DEFAULT["data"], tokenizer="microworld")
    model = TellModule(**DEFAULT["model"])
    checkpoint = ModelCheckpoint(folder / "checkpoints", filename="last")
    trainer = pl.Trainer(
        max_steps=STEPS,
        devices=devices,
        accelerator="cpu",
        gradient_clip_val=CLIP,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            GenerationEvaluation(
                every_steps=STEPS, dev_rows=ROWS, test_rows=ROWS, folder=folder / "predictions"
            ),
            checkpoint,
        ],
        logger=[
            CSVLogger(folder / "csv"),
            WandbLogger(project="api", save_dir=folder, offline=True),
            TensorBoardLogger(folder / "tensorboard"),
        ],
    )
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        save_adapter(folder / "adapter", model, data)
    return trainer, model, data


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]))
