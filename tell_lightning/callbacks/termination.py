"""After SIGTERM, SIGUSR1 or Ctrl+C, training finishes its optimizer step, saves it and exits.

The exit code is 143, 138 or 130, as shells report it, and the same on all ranks. SIGUSR1 is what
SLURM is asked to send before the time is over (`configs/cluster`). Outside training there is
nothing to save, and the run ends at once; so it does when Ctrl+C is pressed again. This replaces
Lightning's handlers: that of SIGTERM calls a collective inside the signal handler and exits with 0
as if the run were complete, that of SIGUSR1 saves inside the handler and trains on, and that of
Ctrl+C saves nothing. In every micro-batch on several devices, Lightning asks rank 0 whether its
handler was called, and waits for the answer; without the handler that is not needed.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_info

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1", signal.SIGINT: "Ctrl+C"}
"""The signals that end a run, as the user knows them."""


class Terminated(SystemExit):
    """The run ends because of a signal, and everything is saved."""

    def __init__(self, number: int, code: int | None = None) -> None:
        """Take the number of the signal; the exit code is 128 + number unless it is given."""
        super().__init__(128 + number if code is None else code)
        self.signal = signal.Signals(number).name


class Termination(pl.Callback):
    """Handles SIGTERM and Ctrl+C while a Trainer runs."""

    def __init__(self) -> None:
        """Wait for a signal.

        Attributes:
            asked: The signal that this process has received first, if any.
        """
        self.asked: int | None = None
        self._training = False
        self._ended = False

    def leave_training(self, trainer: pl.Trainer) -> None:
        """Say that all steps are saved: a signal ends the run at once, even an earlier one."""
        self._training = False
        asked = self.asked is not None
        if trainer.strategy.reduce_boolean_decision(asked, all=False):
            self.end(trainer)

    def end(self, trainer: pl.Trainer) -> None:
        """End the process. All ranks must call this.

        Raises:
            Terminated: Always.
        """
        self._ended = True
        # Other ranks may have received it, or another one: all end alike.
        asked = torch.tensor(float(self.asked or 0), device=trainer.strategy.root_device)
        number = signal.Signals(int(trainer.strategy.reduce(asked, reduce_op="max")))
        step = trainer.global_step
        saved = f"step {step}" if step else "nothing"
        rank_zero_info(f"{NAMES[number]}: {saved} is saved; the run ends.")
        environment = trainer._accelerator_connector.cluster_environment
        # If a child process fails, Lightning kills rank 0, which still has to write the record.
        child = trainer.global_rank > 0 and isinstance(environment, LightningEnvironment)
        raise Terminated(number, code=0 if child else None)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handler; from now on a step is finished before the run ends."""
        self._training = True
        self._install(trainer)
        loop: Any = trainer.fit_loop.epoch_loop
        loop._broadcast_sigterm_tensor = lambda: None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handler."""
        self._install(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handler."""
        self._install(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Let a signal end the run at once again."""
        self._training = False

    def _install(self, trainer: pl.Trainer) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            again, self.asked = self.asked is not None, self.asked or number
            now = not self._training or (again and number == signal.SIGINT)
            if now and not self._ended:
                self._ended = True
                launcher: Any = trainer.strategy.launcher
                if launcher is not None:
                    launcher.kill(number)
                raise Terminated(number)
            if number == signal.SIGINT and not again and trainer.is_global_zero:
                # Not by a logger or a stream: the signal may have interrupted one.
                os.write(2, b"\nCtrl+C: the run saves its step and ends; again: at once.\n")

        if threading.current_thread() is not threading.main_thread():
            return
        for number in NAMES:
            if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` and `&` set it
                signal.signal(number, handle)
        if trainer.received_sigterm:  # Lightning's handler received it before
            handle(signal.SIGTERM, None)
