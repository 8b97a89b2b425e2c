"""After SIGTERM, training finishes its optimizer step, saves it and exits with 143.

Outside training there is nothing to save, and the run ends at once. This replaces Lightning's
handler, which calls a collective inside the signal handler and exits with 0 as if the run were
complete.
"""

import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_info

EXIT_CODE = 128 + signal.SIGTERM
"""143, the exit status that shells report for a process ended by SIGTERM."""


class Terminated(SystemExit):
    """The run ends because of SIGTERM, and everything is saved."""


class Termination(pl.Callback):
    """Handles SIGTERM while a Trainer runs."""

    def __init__(self) -> None:
        """Wait for the signal.

        Attributes:
            asked: Whether this process has received it.
        """
        self.asked = False
        self._training = False

    def asked_anywhere(self, trainer: pl.Trainer) -> bool:
        """Return whether any rank has received the signal. All ranks must call this."""
        return bool(trainer.strategy.reduce_boolean_decision(self.asked, all=False))

    def leave_training(self, trainer: pl.Trainer) -> None:
        """Say that all steps are saved: SIGTERM ends the run at once, also one already received."""
        self._training = False
        if self.asked_anywhere(trainer):
            self.end(trainer)

    def end(self, trainer: pl.Trainer) -> None:
        """End the process.

        Raises:
            Terminated: Always.
        """
        step = trainer.global_step
        rank_zero_info(f"SIGTERM: {f'step {step}' if step else 'nothing'} is saved; the run ends.")
        environment = trainer._accelerator_connector.cluster_environment
        # If a child process fails, Lightning kills rank 0, which still has to write the record.
        child = trainer.global_rank > 0 and isinstance(environment, LightningEnvironment)
        raise Terminated(0 if child else EXIT_CODE)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handler; from now on a step is finished before the run ends."""
        self._training = True
        self._install(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handler."""
        self._install(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handler."""
        self._install(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Let SIGTERM end the run at once again."""
        self._training = False

    def _install(self, trainer: pl.Trainer) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            first, self.asked = not self.asked, True
            if first and not self._training:
                launcher: Any = trainer.strategy.launcher
                if launcher is not None:
                    launcher.kill(number)
                raise Terminated(EXIT_CODE)

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handle)
            if trainer.received_sigterm:  # Lightning's handler received it before
                handle(signal.SIGTERM, None)
