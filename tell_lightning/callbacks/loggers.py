"""Where logged numbers go: `metrics.csv` always, W&B where it is wanted and works.

Both number their rows by the optimizer steps completed when a number was made: 0 is the base.
Lightning itself would give the scores after a step the number of the step, counted from 0.
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
from tell_lightning.callbacks.metrics_log import whole_lines
from tell_lightning.callbacks.settings import RunSettings
from tell_lightning.callbacks.wandb_record import open_wandb


class MetricsFile(CSVLogger):
    """Lightning's CSV logger, which goes on in `metrics.csv` on resume instead of deleting it."""

    def __init__(self, folder: RunFolder, trainer: pl.Trainer, *, kept_steps: int) -> None:
        """Write into the run folder itself.

        Args:
            folder: The run's folder.
            trainer: Knows the optimizer steps completed.
            kept_steps: Steps that the run goes on from; the rows of later ones are logged again,
                and so is the last scoring of the test sets.
        """
        super().__init__(str(folder.path), name="", version="")
        self._trainer = trainer
        self._kept_steps = kept_steps

    def log_hyperparams(self, params: Any = None) -> None:
        """Do nothing: the run's folder has the whole configuration in `config.yaml`."""

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Write a row, at the optimizer steps completed."""
        super().log_metrics(metrics, self._trainer.global_step)

    @property
    def experiment(self) -> Any:
        """Return the writer; the rows of an earlier session are put back when it is made."""
        if self._experiment is not None:
            return super().experiment
        path = Path(self.log_dir) / "metrics.csv"
        before = path.read_text(encoding="utf-8") if path.is_file() else None
        with warnings.catch_warnings():
            # The run folder holds more than metrics.csv; Lightning warns of any file in it.
            warnings.filterwarnings("ignore", message="Experiment logs directory .* exists")
            writer = super().experiment
        if before and (lines := whole_lines(before)) and _is_rank_zero():
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
    """Give the Trainer the loggers of a run while it runs, and tell W&B at last how it ended.

    Args:
        trainer: Gets the loggers.
        folder: The run's folder.
        run: Names.
        config: The complete configuration, for W&B.
        step: Optimizer step that the run goes on from.
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
