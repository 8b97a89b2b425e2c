"""What SIGTERM does: training goes on to the end of its optimizer step, is saved and ends with 143.

Outside training there is nothing to save, and the run ends at once. Lightning's own handler calls a
collective from inside the handler and exits with 0, as if the run were complete.
"""

import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_info

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell reports for a process that SIGTERM ended: 143."""


class Terminated(SystemExit):
    """The run was asked to end and has saved what there was to save."""


class Termination(pl.Callback):
    """Takes SIGTERM over while a Trainer runs."""

    def __init__(self) -> None:
        """Wait for the signal.

        Attributes:
            asked: Whether this process got it.
        """
        self.asked = False
        self._training = False

    def asked_anywhere(self, trainer: pl.Trainer) -> bool:
        """Say whether any rank got the signal; a collective."""
        return bool(trainer.strategy.reduce_boolean_decision(self.asked, all=False))

    def leave_training(self, trainer: pl.Trainer) -> None:
        """End at once from here on, all steps being saved; and now where it was asked for."""
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
        # Lightning kills rank 0, which has a record to write, when a child of it fails.
        child = trainer.global_rank > 0 and isinstance(environment, LightningEnvironment)
        raise Terminated(0 if child else EXIT_CODE)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signal over from Lightning; from here on a step ends before the run does."""
        self._training = True
        self._install(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signal over from Lightning."""
        self._install(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signal over from Lightning."""
        self._install(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End at once again."""
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
            if trainer.received_sigterm:  # it came before the handler was ours
                handle(signal.SIGTERM, None)
