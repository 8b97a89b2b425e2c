"""How far training is: a bar on a terminal, one plain line every few steps elsewhere.

Both show the same numbers, read where the logs are written, and count in optimizer steps:

    step 100/300  loss 1.234  lr 4.1e-04  tokens/s 8,120  task 10.2%  dev 0.412  eta 0:01:10
"""

import logging
import sys
import time
from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Any, TextIO

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

SHOWN = {
    "train/loss": ("loss", ".3f"),
    "train/lr": ("lr", ".1e"),
    "train/tokens_per_second": ("tokens/s", ",.0f"),
    "task": ("task", ".1%"),
    "val/score": ("dev", ".3f"),
}
"""What is shown of the logged numbers, with label and form; task: its share of the examples."""
ROOM = 90
"""Columns of a terminal that has room for a bar beside the numbers."""


def progress_callback(tasks: Collection[str], *, terminal: bool) -> pl.Callback:
    """Choose a bar on a terminal, else plain lines; `tasks` are the names of the tasks."""
    return StepsBar(tasks) if terminal else PlainProgress(tasks)


class Pace:
    """The clock of a session of training, and what its numbers say now."""

    def __init__(self, trainer: pl.Trainer, tasks: Collection[str]) -> None:
        """Start the clock; a resumed run starts at its own step."""
        self._trainer, self._tasks = trainer, tasks
        self._since, self._from = time.perf_counter(), trainer.global_step
        self._every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._seen = trainer.global_step

    def advance(self) -> bool:
        """Return whether a step was taken whose numbers are logged, or the last one."""
        step = self._trainer.global_step
        new, self._seen = step != self._seen, step
        return new and (step % self._every == 0 or step == self._trainer.max_steps)

    def numbers(self) -> dict[str, str]:
        """Return the logged numbers by label, as they are shown."""
        metrics = {n: float(value) for n, value in self._trainer.callback_metrics.items()}
        start = "train/examples/"
        counts = {n.removeprefix(start): v for n, v in metrics.items() if n.startswith(start)}
        task = sum(counts.get(name, 0.0) for name in self._tasks)
        metrics["task"] = task / max(1.0, sum(counts.values()))
        return {
            label: f"{metrics[name]:{style}}"
            for name, (label, style) in SHOWN.items()
            if name in metrics
        }

    def eta(self) -> str:
        """Return the time left if the rest goes as fast as this session, scoring included."""
        step = self._trainer.global_step
        each = (time.perf_counter() - self._since) / max(1, step - self._from)
        return str(timedelta(seconds=round(each * (self._trainer.max_steps - step))))


class PlainProgress(pl.Callback):
    """Prints a line whenever the logs are written."""

    def __init__(self, tasks: Collection[str]) -> None:
        """Take the names of the tasks, whose share of the examples is shown."""
        self._tasks = tasks

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._pace = Pace(trainer, self._tasks)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Print at the steps that are logged."""
        if self._pace.advance():
            numbers = {"step": f"{trainer.global_step}/{trainer.max_steps}", **self._pace.numbers()}
            rank_zero_info(_line(numbers | {"eta": self._pace.eta()}))


class StepsBar(ProgressBar):
    """One bar from the first optimizer step to the last.

    Lightning's own counts micro-batches of an epoch, and the stream is one epoch without end.
    """

    def __init__(self, tasks: Collection[str]) -> None:
        """Show nothing before training; `tasks` are the names of the tasks."""
        super().__init__()
        self._tasks = tasks
        self._bar: Progress | None = None
        self._enabled = True
        self._text = ""
        self._streams: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def disable(self) -> None:
        """Stay silent; Lightning asks for it on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and show the bar."""
        self._pace = Pace(trainer, self._tasks)
        self._text = ""
        if not self._enabled:
            return
        console = Console(highlight=False)
        bar = [BarColumn(bar_width=None)] if console.width >= ROOM else []  # the numbers go first
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            *bar,
            TextColumn("{task.description}", markup=False),
            console=console,
            refresh_per_second=4,
            expand=bool(bar),
        )
        self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step)
        self._bar.start()
        self._take_logging()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move on; read the numbers at the steps that are logged."""
        if self._pace.advance():
            self._read()
            self._show(f"eta {self._pace.eta()}")
        elif self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=trainer.global_step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say why the bar stands still."""
        self._show("scoring dev")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the new score."""
        if self._bar is not None:
            self._read()
            self._show(f"eta {self._pace.eta()}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the bar as it stands."""
        self._stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the bar as it stands, so that the message comes below it."""
        self._stop()

    def _read(self) -> None:
        numbers = self._pace.numbers()
        numbers.pop("lr", None)  # the one that a narrow terminal has no room for
        self._text = _line(numbers)

    def _show(self, end: str) -> None:
        if self._bar is not None:
            text = f"{self._text}  {end}" if self._text else end
            done = self.trainer.global_step
            bar = self._bar.task_ids[0]
            self._bar.update(bar, completed=done, description=text, refresh=True)

    def _stop(self) -> None:
        if self._bar is not None:
            for handler, stream in self._streams:
                handler.setStream(stream)
            self._bar.stop()
        self._bar, self._streams = None, []

    def _take_logging(self) -> None:
        """Send Lightning's messages above the bar; its handler holds the bare stream."""
        bare = sys.__stderr__
        if bare is None or sys.stderr is bare:
            return
        for handler in _handlers(logging.getLogger("lightning.pytorch.utilities.rank_zero")):
            if isinstance(handler, logging.StreamHandler) and handler.stream is bare:
                self._streams.append((handler, bare))
                handler.setStream(sys.stderr)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _line(numbers: dict[str, str]) -> str:
    return "  ".join(f"{label} {value}" for label, value in numbers.items())
