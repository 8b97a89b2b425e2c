"""Stops a run whose dev scores are behind those of other runs."""

from collections.abc import Callable

import lightning.pytorch as pl


class StopBehind(pl.Callback):
    """Reports `val/score` and the mean loss of the tasks after each scoring on dev.

    The last scoring of a run is reported, too, and stops nothing.
    """

    def __init__(self, report: Callable[[float, float], bool], stopped: list[float]) -> None:
        """Report to a function.

        Args:
            report: Takes score and loss; returns whether the run is behind, and should stop.
            stopped: Receives the share of the steps after which it has stopped the run.
        """
        self._report = report
        self._stopped = stopped

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, and stop the run if it is behind."""
        metrics = trainer.callback_metrics
        if trainer.sanity_checking or trainer.global_step == 0 or "val/score" not in metrics:
            return
        tasks = getattr(getattr(trainer, "datamodule", None), "evaluation", {}).get("dev", {})
        losses = [float(metrics[key]) for name in tasks if (key := f"val/loss/{name}") in metrics]
        loss = sum(losses) / len(losses) if losses else 0.0
        behind = self._report(float(metrics["val/score"]), loss)
        if behind and trainer.global_step < trainer.max_steps:
            self._stopped.append(trainer.global_step / trainer.max_steps)
            trainer.should_stop = True
