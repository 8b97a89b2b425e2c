"""Progress of preparing a source: a bar on a terminal, else a plain line every ten seconds.

It goes to standard error. The first two seconds show nothing.

    preparing instructions: 1,240,000 rows, 24%, 9,120 rows/s
"""

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tell_lightning.data.formats import Meter

SILENT = 2.0
"""Seconds before anything is shown."""
EVERY = 10.0
"""Seconds between two plain lines."""


class PreparingProgress:
    """Shows the rows of one source as they are counted."""

    def __init__(self, name: str, meter: Meter, done: int) -> None:
        """Start with the rows that an earlier process has done; the meter gives the share."""
        self._name, self._meter = name, meter
        self._rows = self._before = done
        self._began = time.perf_counter()
        self._next = self._began + SILENT
        self._terminal = sys.stderr.isatty()  # asked now, for a shown bar replaces sys.stderr
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        """Show nothing yet."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the bar; it stays on the screen."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, rows: int) -> None:
        """Add rows, and show the progress if it is time."""
        self._rows += rows
        now = time.perf_counter()
        if now < self._next:
            return
        if self._terminal:
            self._show(now)
        else:
            self._next = now + EVERY
            sys.stderr.write(f"preparing {self._name}: {self._text(now)}\n")
            sys.stderr.flush()

    def _show(self, now: float) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn(f"preparing {self._name}", markup=False),
                BarColumn(),
                TextColumn("{task.description}", markup=False),
                TimeRemainingColumn(),
                console=Console(stderr=True, highlight=False),
                refresh_per_second=4,
            )
            self._bar.add_task("", total=1.0)
            self._bar.start()
        bar = self._bar.task_ids[0]
        self._bar.update(bar, completed=self._meter.share, description=self._text(now))

    def _text(self, now: float) -> str:
        rate = (self._rows - self._before) / (now - self._began)
        return f"{self._rows:,} rows, {self._meter.share:.0%}, {rate:,.0f} rows/s"
