"""Where logged numbers go: `metrics.csv` always, W&B where it is wanted and works.

W&B: WANDB_MODE is obeyed; without it, an API key means online and no key means offline. Trouble
with W&B never stops a run: it falls back to offline with one line that says so.
"""

import csv
import os
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.settings import RunSettings


class MetricsFile(CSVLogger):
    """Lightning's CSV logger, which goes on in `metrics.csv` on resume instead of deleting it."""

    kept_steps = 0
    """Optimizer steps whose rows are kept; those of later ones are trained and logged again."""

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
        if before and _is_rank_zero():
            heading, *rows = csv.reader(before.splitlines())
            step = heading.index("step")
            # A kill may have cut the last line off.
            rows = [row for row in rows if len(row) == len(heading)]
            with path.open("w", encoding="utf-8", newline="") as file:
                kept = (row for row in rows if int(row[step]) < self.kept_steps)
                csv.writer(file, lineterminator="\n").writerows([heading, *kept])
            writer.metrics_keys = heading
        return writer


def make_loggers(
    folder: RunFolder, run: RunSettings, config: dict[str, Any], *, step: int
) -> list[Logger]:
    """Return the loggers of a run.

    Args:
        folder: The run's folder.
        run: Names.
        config: The complete configuration, for W&B.
        step: Optimizer step that the run goes on from.
    """
    # An empty name and version put the file into the run folder itself.
    metrics = MetricsFile(str(folder.path), name="", version="")
    metrics.kept_steps = step
    loggers: list[Logger] = [metrics]
    wandb_logger = _wandb_logger(folder, run, config)
    return loggers + ([wandb_logger] if wandb_logger else [])


def _wandb_logger(
    folder: RunFolder, run: RunSettings, config: dict[str, Any]
) -> WandbLogger | None:
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled" or not _is_rank_zero():
        return None
    os.environ.setdefault("WANDB_SILENT", "true")  # also hides advice on what Lightning passes
    import wandb

    def logger(*, offline: bool) -> WandbLogger:
        made = WandbLogger(
            project=run.wandb_project,
            name=folder.path.name,
            save_dir=str(folder.path),
            offline=offline,
            config=config,
            settings=wandb.Settings(
                # WandbLogger's `offline` does not reach settings that are given.
                mode="offline" if offline else "online",
                init_timeout=60,
                console="off",
                silent=True,
            ),
        )
        made.experiment  # noqa: B018  (starts W&B now, where trouble can be met)
        return made

    wandb.setup(settings=wandb.Settings(silent=True))  # before WandbLogger's settings are made
    folder.path.mkdir(parents=True, exist_ok=True)
    offline = mode in {"offline", "dryrun"} or (mode is None and not _has_key())
    try:
        made = logger(offline=offline)
    except (wandb.Error, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        rank_zero_info(f"W&B: not reached ({reason}); this run is logged offline")
        offline = True
        try:
            made = logger(offline=True)
        except (wandb.Error, OSError):
            rank_zero_info("W&B: offline logging failed too; metrics.csv holds everything")
            return None
    if offline:
        rank_zero_info(f"W&B: offline; send it with `wandb sync {folder.path}/wandb/offline-run-*`")
    else:
        rank_zero_info(f"W&B: {made.experiment.url}")
    return made


def _is_rank_zero() -> bool:
    return rank_zero_only.rank == 0  # type: ignore[attr-defined,no-any-return]


def _has_key() -> bool:
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.Error:
        return False
