"""The loggers of a run: always `metrics.csv`, and W&B unless it is disabled or fails.

The step of a row is the number of optimizer steps completed when its numbers were computed; step 0
is the base. Lightning's own numbers are one lower: it counts steps from 0.
"""

import csv
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.metrics_log import complete_lines
from tell_lightning.callbacks.settings import RunSettings
from tell_lightning.callbacks.wandb_record import open_wandb


class MetricsFile(CSVLogger):
    """Lightning's CSV logger, except that a resumed run adds to `metrics.csv`."""

    def __init__(self, folder: RunFolder, trainer: pl.Trainer, *, kept_steps: int) -> None:
        """Write to the run folder itself.

        Args:
            folder: The folder of the run.
            trainer: Gives the number of optimizer steps completed.
            kept_steps: Optimizer step that the run resumes from. Rows of later steps and of the
                last test scoring are removed, because they will be logged again.
        """
        super().__init__(str(folder.path), name="", version="")
        self._trainer = trainer
        self._kept_steps = kept_steps

    def log_hyperparams(self, params: Any = None) -> None:
        """Do nothing: `config.yaml` has the complete configuration."""

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Write a row; its step is the number of optimizer steps completed."""
        super().log_metrics(metrics, self._trainer.global_step)

    @property
    def experiment(self) -> Any:
        """Return the writer. A new writer first restores the rows of earlier sessions."""
        if self._experiment is not None:
            return super().experiment
        path = Path(self.log_dir) / "metrics.csv"
        before = path.read_text(encoding="utf-8") if path.is_file() else None
        with warnings.catch_warnings():
            # Lightning warns of any file in the folder, and a run folder holds several.
            warnings.filterwarnings("ignore", message="Experiment logs directory .* exists")
            writer = super().experiment
        if before and (lines := complete_lines(before)) and _is_rank_zero():
            heading, *rows = lines
            with path.open("w", encoding="utf-8", newline="") as file:
                kept = (row for row in rows if self._keeps(dict(zip(heading, row, strict=True))))
                csv.writer(file, lineterminator="\n").writerows([heading, *kept])
            writer.metrics_keys = heading
        return writer

    def _keeps(self, row: Mapping[str, str]) -> bool:
        step = int(row["step"])
        tested = any(value for name, value in row.items() if name.startswith("test"))
        return step <= self._kept_steps and not (step and tested)


@contextmanager
def logged(
    trainer: pl.Trainer, folder: RunFolder, run: RunSettings, config: dict[str, Any], *, step: int
) -> Iterator[None]:
    """Add the loggers of a run to the Trainer, and end the W&B run with its exit code.

    Args:
        trainer: The Trainer.
        folder: The folder of the run.
        run: Name and W&B project of the run.
        config: The complete configuration, for W&B.
        step: Optimizer step that the run resumes from, or 0.
    """
    metrics = MetricsFile(folder, trainer, kept_steps=step)
    wandb_record = None
    if _is_rank_zero():
        wandb_record = open_wandb(folder, run, config, trainer, step=step)
    trainer.loggers = [*trainer.loggers, metrics, *([wandb_record] if wandb_record else [])]
    exit_code = 1
    try:
        yield
        exit_code = 0
    except SystemExit as exit_:
        exit_code = exit_.code if isinstance(exit_.code, int) else 1
        raise
    finally:
        if wandb_record:
            wandb_record.close(exit_code)


def _is_rank_zero() -> bool:
    return rank_zero_only.rank == 0  # type: ignore[attr-defined,no-any-return]
