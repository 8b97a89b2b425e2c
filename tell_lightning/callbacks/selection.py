"""Which adapter is the best one, and when training stops because nothing gets better.

The best adapter has the highest dev score. Of equal scores the one with the lower dev loss is
better. Training stops after `patience` scorings in a row with neither a better score nor the lowest
dev loss so far: where the score stays at 0, the loss still shows that something is learned.
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from tell_lightning.callbacks.evaluation import GenerationEvaluation, Scored


class BestCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`: the highest `val/score`, of equal ones the lowest dev loss."""

    def __init__(self, folder: Path, evaluation: GenerationEvaluation) -> None:
        """Write to `folder`; `evaluation` has the scores and losses of all scorings."""
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor="val/score",
            mode="max",
            enable_version_counter=False,
        )
        self._evaluation = evaluation

    @property
    def state_key(self) -> str:
        """The name that checkpoints know its state by: that of Lightning's class."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Say whether the last scoring is the best one so far."""
        *before, last = dev_history(self._evaluation)
        tied = [entry.loss for entry in before if entry.selection == last.selection]
        highest = last.selection == max(entry.selection for entry in (*before, last))
        return super().check_monitor_top_k(trainer, current) or (
            highest and bool(tied) and last.loss < min(tied)
        )


class Patience(EarlyStopping):
    """Stops training when `patience` scorings had neither a better score nor a new lowest loss.

    Attributes:
        stopped: Whether the last scoring has stopped the training.
    """

    def __init__(self, patience: int, evaluation: GenerationEvaluation) -> None:
        """Wait for `patience` scorings; `evaluation` has the losses of all scorings."""
        super().__init__("val/score", mode="max", patience=patience)
        self._evaluation = evaluation
        self.stopped = False

    @property
    def state_key(self) -> str:
        """The name that checkpoints know its state by: that of Lightning's class."""
        return super().state_key.replace(type(self).__qualname__, EarlyStopping.__qualname__)

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        stops, reason = super()._evaluate_stopping_criteria(current)
        *before, last = dev_history(self._evaluation)
        if self.wait_count and before and last.loss < min(entry.loss for entry in before):
            self.wait_count = 0
            self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
            return False, None
        return stops, reason

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if it is time, and say so unless this was the last step anyway."""
        stops_already = trainer.should_stop
        super().on_validation_end(trainer, pl_module)
        self.stopped = trainer.should_stop and not stops_already
        if self.stopped and trainer.global_step < trainer.max_steps:
            rank_zero_info(
                f"Stopped at step {trainer.global_step} of {trainer.max_steps}: the last "
                f"{self.wait_count} scorings had no better dev score and no lower dev loss "
                f"(eval.patience: {self.patience}). `fit --resume` goes on, and stops again at the "
                "first scoring that is no better; --eval.patience=N or null gives it more."
            )


def dev_history(evaluation: GenerationEvaluation) -> list[Scored]:
    """Return the scorings of adapters on dev, in order."""
    return [entry for entry in evaluation.history if entry.split == "dev" and entry.adapter]


def selected_from(evaluation: GenerationEvaluation, step: int) -> dict[str, Any]:
    """Describe how the adapter of a step was chosen, for the screen and for `run.json`.

    Returns:
        The `dev_loss` of the step in nats a token (None if unknown), and the `tied_steps`: all
        steps with its score.
    """
    history = dev_history(evaluation)
    chosen = next(entry for entry in reversed(history) if entry.step == step)
    tied = sorted({entry.step for entry in history if entry.selection == chosen.selection})
    return {"dev_loss": chosen.loss if isfinite(chosen.loss) else None, "tied_steps": tied}


def described(selected: Mapping[str, Any]) -> str:
    """Say in one line which adapter is exported, and how a tie was broken.

    >>> described({"by": "best dev score", "step": 30, "dev_loss": 3.0, "tied_steps": [9, 30]})
    'best dev score, of step 30; steps 9, 30 have this score, and it has the lowest dev loss, 3.000'
    """
    line = f"{selected['by']}, of step {selected['step']}"
    tied, loss = selected.get("tied_steps", ()), selected.get("dev_loss")
    if len(tied) < 2 or loss is None:
        return line
    steps = ", ".join(map(str, tied))
    return f"{line}; steps {steps} have this score, and it has the lowest dev loss, {loss:.3f}"
