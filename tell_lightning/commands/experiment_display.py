"""How far an experiment is: one line for each run, and on a terminal a bar below them.

12 of 60  translate-tell-n10-s3  bleu 31.2  14 s  about 11 min left
"""

import math
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tell_lightning.commands.tables import print_rows
from tell_lightning.experiment.results import FAILED, Result, points
from tell_lightning.experiment.survey import Planned, State


class Display:
    """Shows how each run ended, and about how long the rest will take."""

    def __init__(self, title: str, *, total: int, there: int, ahead: Mapping[str, float]) -> None:
        """Begin without a bar.

        Args:
            title: Title of the bar.
            total: Number of all runs that are asked for.
            there: Number of those that have a result.
            ahead: Expected seconds of the others, by name.
        """
        self._total, self._done, self._ahead = total, there, dict(ahead)
        self._jobs = 1
        self._expected = self._spent = 0.0
        self._console = Console(highlight=False, soft_wrap=True)
        self._bar = Progress(
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=there, left="")

    def start(self, jobs: int) -> None:
        """Show the bar.

        Args:
            jobs: Runs at a time.
        """
        self._jobs = jobs
        self._bar.start()

    def stop(self) -> None:
        """Remove the bar."""
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False)

    def elsewhere(self, name: str) -> None:
        """Show that another process does a run."""
        self._ahead.pop(name)
        self._total -= 1
        self.say(f"{name}  is run by another process")

    def ended(self, result: Result) -> None:
        """Show how a run ended."""
        self._done += 1
        name, seconds = str(result["name"]), float(result["seconds"])
        self._expected += self._ahead.pop(name)
        self._spent += seconds
        # This machine is faster or slower than the one that the estimate comes from.
        pace = self._spent / self._expected if self._expected else 1.0
        left = sum(self._ahead.values()) * pace / self._jobs
        rest = f"about {duration(left)} left" if self._ahead else ""
        self._bar.update(self._task, completed=self._done, total=self._total, left=rest)
        line = f"{self._done} of {self._total}  {name}  {outcome(result)}  {seconds:.0f} s"
        self.say(f"{line}  {rest}" if rest and self._bar.disable else line)


def outcome(result: Result) -> str:
    """Describe in a few words how a run ended."""
    if result["status"] == FAILED:
        return f"FAILED: {result['reason'].splitlines()[0]}"
    score = result["score"]
    scored = result["test"] or result["dev"]
    return f"{score} {points(scored['values'][score], score):.1f}" if scored else "not scored"


def duration(seconds: float) -> str:
    """Format a time that is not known exactly, or not at all.

    >>> duration(20), duration(700), duration(9000), duration(math.nan)
    ('20 s', '12 min', '2.5 h', 'unknown')
    """
    if math.isnan(seconds):
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_survey(
    title: str,
    asked: Sequence[Planned],
    is_due: Callable[[Planned], bool],
    seconds: Callable[[Planned], float],
) -> float:
    """Print by testbed, arm and n how many results exist, and how long the other runs will take.

    Returns:
        Seconds of all these runs in one process.
    """
    states: list[State] = ["there", "missing", "failed", "other"]
    if any(each.state == "waiting" for each in asked):
        states.append("waiting")
    groups: dict[tuple[str, str, int], list[Planned]] = {}
    for each in asked:
        groups.setdefault((each.cell.testbed, each.cell.arm, each.cell.n), []).append(each)
    rows = [["testbed", "arm", "n", "runs", *states, "time"]]
    total = 0.0
    for (testbed, arm, n), cells in groups.items():
        ahead = [each for each in cells if is_due(each) or each.state == "waiting"]
        cost = sum(map(seconds, ahead))
        total += cost
        found = [each.state for each in cells]
        counts = [str(found.count(state)) for state in states]
        rows.append([testbed, arm, str(n), str(len(cells)), *counts, duration(cost)])
    print_rows(rows, title)
    return total
