"""The progress of training: a bar on a terminal, otherwise a line at every logged step.

Both show the same logged numbers, and count optimizer steps. If steps are slow, plain lines come
every 20 seconds, too. Loading the model and computing losses are phases of their own (`Phases`).

    step 100/300  loss 1.234  lr 4.1e-04  tokens/s 8,120  task 10.2%  dev 0.412  eta 0:01:10
"""

import logging
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from math import inf
from typing import Any, TextIO

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Display

from tell_lightning.progress import EVERY, Progress, Ticker, show_below

SHOWN = {
    "train/loss": ("loss", ".3f"),
    "train/lr": ("lr", ".1e"),
    "train/tokens_per_second": ("tokens/s", ",.0f"),
    "task": ("task", ".1%"),
    "val/score": ("dev", ".3f"),
}
"""Label and format of each number shown; "task" is the share of task examples."""
ROOM = 90
"""Terminal columns that are needed for a bar beside the numbers."""


class Pace:
    """The clock of a training session, and its latest numbers."""

    def __init__(self, trainer: pl.Trainer, tasks: Collection[str]) -> None:
        """Start the clock at the present step, which is not 0 in a resumed run."""
        self._trainer, self._tasks = trainer, tasks
        self._since, self._from = time.perf_counter(), trainer.global_step
        self._every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._seen = trainer.global_step

    def advance(self) -> bool:
        """Return whether a new step was completed that is logged or is the last one."""
        step = self._trainer.global_step
        new, self._seen = step != self._seen, step
        return new and (step % self._every == 0 or step == self._trainer.max_steps)

    def numbers(self) -> dict[str, str]:
        """Return the logged numbers as text, by label."""
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
        """Return the time left at the speed of this session, which includes scoring."""
        step = self._trainer.global_step
        seconds = (time.perf_counter() - self._since) / max(1, step - self._from)
        return str(timedelta(seconds=round(seconds * (self._trainer.max_steps - step))))


class PlainProgress(pl.Callback):
    """Prints a line at every logged step, and every 20 seconds in between."""

    def __init__(self, tasks: Collection[str]) -> None:
        """Take the names of the tasks, to show their share of the examples."""
        self._tasks = tasks
        self._ticker: Ticker | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._pace = Pace(trainer, self._tasks)
        self._start(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Print a line if the step is logged."""
        if self._pace.advance():
            if self._ticker is not None:
                self._ticker.postpone()
            self._print(trainer, self._pace.numbers())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the screen to the phases of scoring."""
        self._stop()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on."""
        if trainer.training:
            self._start(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print nothing more."""
        self._stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Print nothing more."""
        self._stop()

    def _start(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            self._ticker = Ticker(lambda: self._print(trainer, {}), EVERY)

    def _print(self, trainer: pl.Trainer, numbers: dict[str, str]) -> None:
        step = {"step": f"{trainer.global_step}/{trainer.max_steps}"}
        rank_zero_info(_line(step | numbers | {"eta": self._pace.eta()}))

    def _stop(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()
        self._ticker = None


class Phases(pl.Callback):
    """Shows the phases before and beside training: loading the model, and the loss of rows."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._phase: Progress | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The model is loaded next, the first time."""
        if getattr(pl_module, "model", None) is None:
            self._begin(trainer, "loading the model")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The model is loaded."""
        self._end()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The losses come next."""
        self._begin(trainer, "loss of dev rows", trainer.num_val_batches)

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The losses come next."""
        self._begin(trainer, "loss of test rows", trainer.num_test_batches)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Count a batch."""
        if self._phase is not None:
            self._phase.advance(1)

    def on_test_batch_end(self, *_: Any) -> None:
        """Count a batch."""
        self.on_validation_batch_end()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The losses are computed; other callbacks generate and score."""
        self._end()

    on_test_epoch_end = on_validation_epoch_end

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Show nothing more."""
        self._end()

    def _begin(self, trainer: pl.Trainer, what: str, batches: Sequence[int | float] = ()) -> None:
        self._end()
        count = sum(batches)
        total = int(count) if 0 < count < inf else None
        shown = trainer.is_global_zero
        self._phase = Progress(what, total, unit="batches", shown=shown).__enter__()

    def _end(self) -> None:
        if self._phase is not None:
            self._phase.__exit__()
        self._phase = None


class StepsBar(ProgressBar):
    """One bar from the first optimizer step to the last.

    Lightning's own bar counts the micro-batches of an epoch, and our stream is one endless epoch.
    """

    def __init__(self, tasks: Collection[str]) -> None:
        """Take the names of the tasks, to show their share of the examples."""
        super().__init__()
        self._tasks = tasks
        self._bar: Display | None = None
        self._enabled = True
        self._text = ""
        self._streams: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def disable(self) -> None:
        """Show nothing. Lightning calls this on every rank except the first."""
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
        bar = [BarColumn(bar_width=None)] if console.width >= ROOM else []  # numbers need the room
        self._bar = Display(
            TextColumn("{task.fields[what]}", markup=False),
            MofNCompleteColumn(),
            *bar,
            TextColumn("{task.description}", markup=False),
            console=console,
            refresh_per_second=4,
            expand=bool(bar),
        )
        self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step, what="step")
        self._bar.start()
        show_below(self._bar)
        self._take_logging()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar, and show new numbers if the step is logged."""
        if self._pace.advance():
            self._read()
            self._show(f"eta {self._pace.eta()}")
        elif self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=trainer.global_step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say that the dev sets are being scored, since the bar does not move meanwhile."""
        self._show("scoring dev")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the new score."""
        if self._bar is not None:
            self._read()
            self._show(f"eta {self._pace.eta()}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the bar on the screen."""
        self._stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the bar on the screen, so that the error message appears below it."""
        self._stop()

    def _read(self) -> None:
        numbers = self._pace.numbers()
        numbers.pop("lr", None)  # a narrow terminal has no room for it
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
            show_below(None)
            self._bar.stop()
        self._bar, self._streams = None, []

    def _take_logging(self) -> None:
        """Print Lightning's messages above the bar; its handlers hold the original stderr."""
        original = sys.__stderr__
        if original is None or sys.stderr is original:
            return
        for handler in _handlers(logging.getLogger("lightning.pytorch.utilities.rank_zero")):
            if isinstance(handler, logging.StreamHandler) and handler.stream is original:
                self._streams.append((handler, original))
                handler.setStream(sys.stderr)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _line(numbers: dict[str, str]) -> str:
    return "  ".join(f"{label} {value}" for label, value in numbers.items())
