"""The search: trials are asked for, run in warm processes, and told, until the budget is spent.

trial 7: tell, lr 0.0012, 150 steps, share 0.21: score 41.2, loss 0.830, 38 s
8 of about 12 trials; best 45.0 (trial 3, tell); about 3 min left
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tell_lightning.experiment.pool import Pool
from tell_lightning.settings import ConfigError
from tell_lightning.tuning.budget import LEAST, Budget, Price
from tell_lightning.tuning.fits import TrialWork
from tell_lightning.tuning.folder import TuneFolder
from tell_lightning.tuning.records import COMPLETE, FAILED, Record, ranked, write_record
from tell_lightning.tuning.space import Space, described
from tell_lightning.tuning.study import Asked, Search

ALIKE = 3
"""If this many first trials all fail for the same reason, no more are started."""


class Clock:
    """The seconds that have been spent, over all sessions of a folder."""

    def __init__(self, folder: TuneFolder) -> None:
        """Go on from what the folder knows."""
        known = folder.read()
        self._folder = folder
        self._before = float(known.get("seconds", 0.0))
        self._searched = float(known.get("search_seconds", 0.0))
        self._started = time.monotonic()
        self._search_started: float | None = None

    @property
    def seconds(self) -> float:
        """Return the seconds of everything."""
        return self._before + time.monotonic() - self._started

    @property
    def search(self) -> float:
        """Return the seconds of the search, which has a share of the budget of its own."""
        began = self._search_started
        return self._searched + (0.0 if began is None else time.monotonic() - began)

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Count what happens in the body as search."""
        self._search_started = time.monotonic()
        try:
            yield
        finally:
            self._searched, self._search_started = self.search, None
            self.keep()

    def keep(self) -> None:
        """Write them down."""
        seconds, search = round(self.seconds, 1), round(self.search, 1)
        self._folder.write(seconds=seconds, search_seconds=search)


class Progress:
    """What is known of the trials so far, and the lines about them."""

    def __init__(self, search: Search, space: Space, price: Price, budget: Budget) -> None:
        """Begin with what the study holds."""
        self.search, self.space, self.price, self.budget = search, space, price, budget
        self._expected = self._taken = 0.0
        for record in search.records():
            self.learn(record)

    @property
    def pace(self) -> float:
        """How much longer trials take here than they were expected to."""
        return self._taken / self._expected if self._expected else 1.0

    def mean_cost(self) -> float:
        """Return the seconds that the next trial is expected to take."""
        costs = [self.price.trial(point) for point in self.space.starts.values()]
        return self.pace * sum(costs) / len(costs)

    def may_start(self, seconds: float) -> bool:
        """Say whether there is room for one more trial.

        Args:
            seconds: What the search has taken so far.
        """
        begun = self.search.count()
        if self.budget.trials is not None and begun >= self.budget.trials:
            return False
        if self.budget.search is None or begun < LEAST:
            return True
        return self.budget.search - seconds >= self.mean_cost() / 2

    def lines(self, record: Record, seconds: float) -> Iterator[str]:
        """Say how a trial has ended, and how far the search is."""
        yield f"trial {record['number']}: {outcome(record)}"
        done = len(self.search.records())
        parts = [f"{done} of about {max(done, self._total(done, seconds))} trials"]
        if best := ranked(self.search.records()):
            score = f"{100 * best[0]['score']:.1f}"
            parts.append(f"best {score} (trial {best[0]['number']}, {best[0]['arm']})")
        if self.budget.search is not None:
            left = max(0.0, self.budget.search - seconds)
            parts.append(f"about {left / 60:.1f} min of the search left")
        yield "; ".join(parts)

    def _total(self, done: int, seconds: float) -> int:
        if self.budget.trials is not None:
            return self.budget.trials
        assert self.budget.search is not None
        left = max(0.0, self.budget.search - seconds)
        return done + round(left * self.budget.workers / self.mean_cost())

    def learn(self, record: Record) -> None:
        """Correct the price by what a trial has taken."""
        if record["state"] == COMPLETE and record.get("params"):
            self._expected += self.price.trial(record["params"])
            self._taken += float(record["seconds"])


class _Asker:
    """Gives the pool a trial whenever there is room for one."""

    def __init__(
        self, progress: Progress, clock: Clock, make: Callable[[Asked], TrialWork]
    ) -> None:
        self.progress, self.clock, self.make = progress, clock, make
        self.running: dict[int, Asked] = {}

    def __iter__(self) -> "_Asker":
        return self

    def __next__(self) -> TrialWork:
        if not self.progress.may_start(self.clock.search):
            raise StopIteration
        asked = self.progress.search.ask(self.progress.space)
        self.running[asked.number] = asked
        return self.make(asked)


def run_search(
    progress: Progress,
    clock: Clock,
    pool: Pool,
    folder: Path,
    *,
    make: Callable[[Asked], TrialWork],
    failed: Callable[[TrialWork, str, float], dict[str, Any]],
    say: Callable[[str], None],
) -> list[Record]:
    """Run trials until the budget is spent.

    Args:
        progress: The study and its budget.
        clock: What has been spent.
        pool: Runs a trial, and returns its record.
        folder: Where the records go.
        make: Makes the work of a trial.
        failed: Makes the record of a trial whose process ended.
        say: Prints a line.

    Returns:
        The trials of all machines.

    Raises:
        ConfigError: The first trials have all failed alike, or none has ended well.
    """
    search, asker = progress.search, _Asker(progress, clock, make)
    reasons: list[str | None] = []
    for record in search.records():
        write_record(folder, record)
    with clock.searching():
        for ended in pool.run(asker):
            work: TrialWork = ended.work
            record = ended.value or failed(work, ended.reason or "", ended.seconds)
            search.tell(asker.running.pop(work.number), record)
            write_record(folder, record)
            progress.learn(record)
            clock.keep()
            for line in progress.lines(record, clock.search):
                say(line)
            reasons.append(record["reason"] if record["state"] == FAILED else None)
            _check_alike(reasons)
    records = search.records()
    for record in records:  # those of other machines, too
        write_record(folder, record)
    if not ranked(records):
        reason = next((r["reason"] for r in records if r["reason"]), "no trial has ended")
        raise ConfigError(
            f"tune: one trial at least must end well, got {len(records)} without a score: {reason} "
            "Correct the cause, and give another --folder."
        )
    return records


def outcome(record: Record) -> str:
    """Describe in a few words how a trial ended."""
    point = described(record["arm"], record["params"])
    if record["state"] == FAILED:
        return f"{point}: FAILED: {record['reason'].splitlines()[0]}"
    score, loss = f"score {100 * record['score']:.1f}", record["loss"]
    parts = [score, *([f"loss {loss:.3f}"] if loss is not None else ())]
    if record["state"] != COMPLETE:
        parts.append(f"stopped, {record['reason']}")
    return f"{point}: {', '.join(parts)}, {record['seconds']:.0f} s"


def _check_alike(reasons: list[str | None]) -> None:
    """Stop when the first trials have all failed for the same reason.

    Raises:
        ConfigError: They have.
    """
    first = reasons[:ALIKE]
    if len(reasons) == ALIKE and None not in first and len(set(first)) == 1:
        raise ConfigError(
            f"tune: the first trials must not all fail alike, got {ALIKE} times: {first[0]} "
            "Correct the cause, and give another --folder."
        )
