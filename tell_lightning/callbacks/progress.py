"""One plain line every few steps, where the output is no terminal.

step 100/300  loss 1.234  lr 4.1e-04  tokens/s 8,120  task 10.2%  eta 0:01:10  score 0.412
"""

import time
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_info


def progress_callback(*, terminal: bool) -> pl.Callback:
    """Choose a bar on a terminal, else plain lines."""
    return StepsBar(leave=True) if terminal else PlainProgress()


class StepsBar(RichProgressBar):
    """Lightning's bar without the version number, which says nothing here."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return what stands behind the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class PlainProgress(pl.Callback):
    """Prints a line whenever the logs are written."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._since, self._from = time.perf_counter(), trainer.global_step
        self._printed = trainer.global_step
        self._every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Print at the steps that are logged."""
        step = trainer.global_step
        if step == self._printed or step % self._every:
            return
        self._printed = step
        left = (
            (time.perf_counter() - self._since) / (step - self._from) * (trainer.max_steps - step)
        )
        parts = [f"step {step}/{trainer.max_steps}", *self._values(trainer)]
        parts.append(f"eta {timedelta(seconds=round(left))}")
        rank_zero_info("  ".join(parts))

    def _values(self, trainer: pl.Trainer) -> list[str]:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        plan: Any = trainer.datamodule.plan  # type: ignore[attr-defined]
        counts = {s: metrics.get(f"train/examples/{s.name}", 0.0) for s in plan.sources}
        task = sum(count for source, count in counts.items() if source.kind == "task")
        metrics["task"] = task / max(1.0, sum(counts.values()))
        shown = {
            "train/loss": ("loss", ".3f"),
            "train/lr": ("lr", ".1e"),
            "train/tokens_per_second": ("tokens/s", ",.0f"),
            "task": ("task", ".1%"),
            "val/score": ("score", ".3f"),
        }
        return [
            f"{label} {metrics[name]:{style}}"
            for name, (label, style) in shown.items()
            if name in metrics
        ]
