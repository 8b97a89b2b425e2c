"""Progress of a phase, such as scoring: a bar on a terminal, else a plain line every 20 seconds.

    scoring dev translate: 120 of 200 rows, 3.1 rows/s, eta 0:00:26

It goes to standard error. A thread shows it, so it is seen even while one long batch is computed.
Phases may lie inside each other. A phase that ends within two seconds shows nothing.
"""

import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Display

SILENT = 2.0
"""Seconds before a terminal shows anything."""
EVERY = 20.0
"""Seconds between two plain lines."""


class Ticker:
    """Calls a function every few seconds, in a thread of its own."""

    def __init__(self, tick: Callable[[], None], seconds: float) -> None:
        """Start at once; the first call comes after `seconds`."""
        self._tick, self._seconds = tick, seconds
        self._due = time.monotonic() + seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def postpone(self) -> None:
        """Wait for all of the seconds again."""
        self._due = time.monotonic() + self._seconds

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(max(0.0, self._due - time.monotonic())):
            if time.monotonic() >= self._due:
                self._tick()
                self.postpone()


class Progress:
    """Shows how much of a phase is done while a `with` block runs."""

    def __init__(
        self,
        what: str,
        total: int | None = None,
        *,
        done: int = 0,
        unit: str = "rows",
        share: Callable[[], float] | None = None,
        shown: bool = True,
    ) -> None:
        """Describe the phase.

        Args:
            what: What is done, such as "scoring dev".
            total: The number of units; None if it is not known.
            done: Units that were done before, which do not count for the speed.
            unit: What is counted.
            share: Returns the share that is done, 0 to 1, where `total` is not known.
            shown: Whether this process shows it.
        """
        self.what, self._total, self._unit, self._share = what, total, unit, share
        self._done = self._before = done
        self._shown = shown
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Start the clock."""
        self._began = time.perf_counter()
        if self._shown:
            self._terminal = sys.stderr.isatty() or _screen.busy
            self._ticker = Ticker(self._tick, SILENT if self._terminal else EVERY)
        return self

    def __exit__(self, *error: object) -> None:
        """Show nothing more."""
        if self._shown:
            self._ticker.stop()
            if self._task is not None:
                _screen.remove(self._task)

    def advance(self, units: int) -> None:
        """Count units that are done."""
        self._done += units
        if self._task is not None:
            _screen.update(self._task, self)

    def text(self) -> str:
        """Say how much is done, how fast, and how long the rest takes."""
        seconds = time.perf_counter() - self._began
        new = self._done - self._before
        share = self._share() if self._share else None
        parts = []
        if self._total is not None:
            parts.append(f"{self._done:,} of {self._total:,} {self._unit}")
        elif share is not None:
            parts.append(f"{self._done:,} {self._unit}, {share:.0%}")
        if not new:
            return ", ".join([*parts, f"{seconds:.0f} s"])
        rate = new / seconds
        if rate < 1:
            parts.append(f"{60 * rate:.1f} {self._unit}/min")
        else:
            parts.append(f"{rate:,.{1 if rate < 10 else 0}f} {self._unit}/s")
        if self._total is not None:
            parts.append(f"eta {_time(seconds * (self._total - self._done) / new)}")
        elif share:
            parts.append(f"eta {_time(seconds * (1 - share) / share)}")
        return ", ".join(parts)

    @property
    def line(self) -> dict[str, Any]:
        """The line of the phase in a display."""
        share = self._share() if self._share and self._total is None else None
        return {
            "what": self.what,
            "completed": self._done if share is None else share,
            "total": self._total if share is None else 1.0,
            "description": self.text(),
        }

    def _tick(self) -> None:
        if not self._terminal:
            sys.stderr.write(f"{self.what}: {self.text()}\n")
            sys.stderr.flush()
        elif self._task is None:
            self._task = _screen.add(self)
        else:
            _screen.update(self._task, self)


class _Screen:
    """The one display of a terminal; phases are lines of it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._display: Display | None = None
        self._borrowed = False
        self._lines = 0

    @property
    def busy(self) -> bool:
        """Whether a bar is shown; `sys.stderr` then says that it is no terminal."""
        return self._display is not None

    def borrow(self, display: Display | None) -> None:
        """Show phases below the bar of `display`; None: in a display of their own."""
        with self._lock:
            self._display, self._borrowed = display, display is not None

    def add(self, phase: Progress) -> TaskID:
        """Add the line of a phase."""
        with self._lock:
            if self._display is None:
                self._display = Display(
                    TextColumn("{task.fields[what]}", markup=False),
                    BarColumn(),
                    TextColumn("{task.description}", markup=False),
                    console=Console(stderr=True, highlight=False),
                    refresh_per_second=4,
                    transient=True,
                )
                self._display.start()
            self._lines += 1
            return self._display.add_task(**phase.line)

    def update(self, task: TaskID, phase: Progress) -> None:
        """Change the line of a phase."""
        with self._lock:
            if self._display is not None:
                self._display.update(task, **phase.line)

    def remove(self, task: TaskID) -> None:
        """Remove the line of a phase, and the display with its last line."""
        with self._lock:
            self._lines -= 1
            if self._display is None:
                return
            self._display.remove_task(task)
            if not self._lines and not self._borrowed:
                self._display.stop()
                self._display = None


_screen = _Screen()
show_below = _screen.borrow


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
