"""What a trial costs on this machine, and how many of them a budget allows.

The speeds are those that `plan --measure` finds, in a process like those that run the trials. They
are what a trial is expected to take; how long the first ones really take corrects that.

    budget   |-- search: half or more --|-- the adapter --|-- the verdict: the rest --|
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tell_lightning.settings import ConfigError
from tell_lightning.tuning.settings import Arm
from tell_lightning.tuning.space import Point, Space

SEARCH_SHARE = 0.5
"""Share of a budget of minutes for the search. The verdict needs as many fits as four trials to
compare two seeds, and two trials more for each further one."""
MOST_SEARCH = 0.65
"""The same where the verdict takes less: with a test set it has one fit for each seed and arm, and
not one for each fold."""
FINAL_SCORINGS = 3
"""Of the test rows for the adapter: before and after its training, and without the anchor."""
SETUP = 3.0
"""Seconds of a fit in a warm process besides its steps and scorings: the model is loaded, files are
read and written. The first trials correct it."""
LEAST_SEEDS = 2
"""Seeds of each arm that a verdict needs."""
LEAST = 2
"""Trials that are always run: one of each of the first two arms."""


@dataclass(frozen=True)
class Price:
    """What fits cost in one process."""

    tokens_per_second: float
    """Training."""
    rows: int
    """Rows or bins of an optimizer step."""
    task_tokens: float
    """Mean tokens of a task row; of a bin where rows are packed."""
    general_tokens: float
    """Mean tokens of a general row; of a bin where rows are packed."""
    scoring: float
    """Seconds of one scoring of the dev rows of a fold."""
    folds: int
    scorings: int
    """Scorings of a fit."""
    test_scoring: float = 0.0
    """Seconds of one scoring of the test rows; 0 where a task has none."""

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    def fit(self, point: Point) -> float:
        """Return the seconds of one fit."""
        share = point.get("task_share", 1.0)
        tokens = share * self.task_tokens + (1 - share) * self.general_tokens
        training = point["steps"] * self.rows * tokens / self.tokens_per_second
        return float(SETUP + training + self.scorings * self.scoring)

    def trial(self, point: Point) -> float:
        """Return the seconds of a trial."""
        return self.folds * self.fit(point)

    def rest(self, point: Point, arms: int, seeds: int = LEAST_SEEDS) -> float:
        """Return the seconds of the adapter, and of a verdict of so many seeds of each arm.

        A seed takes as many fits as a trial, or a single one where there are test rows.
        """
        final = self.fit(point) + FINAL_SCORINGS * self.test_scoring
        if self.test_scoring:
            return final + arms * seeds * (self.fit(point) + self.test_scoring)
        return final + arms * seeds * self.trial(point)


@dataclass(frozen=True)
class Budget:
    """How long the search may take, or how many trials."""

    seconds: float | None
    """Of the command, in all its sessions; None: as long as it takes."""
    trials: int | None
    """None: as many as the time allows."""
    workers: int
    """Trials at a time."""
    share: float = SEARCH_SHARE
    """Of the time, for the search."""

    @property
    def search(self) -> float | None:
        """The seconds of the search; None: as long as it takes."""
        return None if self.seconds is None else self.share * self.seconds

    def divided(self, price: Price, steps: int, arms: int, seeds: int) -> "Budget":
        """Return it with more time for the search if the verdict on test rows leaves that.

        Args:
            price: What fits cost.
            steps: Of a fit.
            arms: Arms of the verdict.
            seeds: Most seeds of the verdict.
        """
        if self.seconds is None or not price.test_scoring:
            return self
        rest = price.rest({"steps": steps, "task_share": 0.0}, arms, seeds) / self.workers
        share = min(MOST_SEARCH, max(SEARCH_SHARE, 1 - rest / self.seconds))
        return replace(self, share=share)

    def affords(self, price: Price, point: Point, trials: int, arms: int) -> bool:
        """Say whether there is time for so many trials, and for what comes after them."""
        if self.seconds is None or self.search is None:
            return True
        rest = price.rest(point, arms) / self.workers
        search = price.trial(point) * trials / self.workers
        return search <= self.search and rest <= self.seconds - self.search

    def check(self, price: Price, space: Space) -> None:
        """Refuse a budget below the cost of the two cheapest trials.

        Raises:
            ConfigError: It is below.
        """
        if self.seconds is None:
            return
        least = sum(sorted(price.trial(point) for point in cheapest(space))[:LEAST])
        if least > self.seconds * self.workers:
            raise ConfigError(
                f"--minutes: must be enough for the two cheapest trials, {_minutes(least)} min in "
                f"{_processes(self.workers)}, got {self.seconds / 60:g}. Give more minutes, or "
                "lower tune.search.steps or tune.folds."
            )

    def line(self, price: Price, space: Space, pace: float = 1.0) -> str:
        """Say how many trials it allows."""
        costs = [pace * price.trial(point) for point in space.starts.values()]
        mean = sum(costs) / len(costs)
        folds = f"{price.folds} folds" if price.folds > 1 else "one dev set"
        each = f"a trial takes about {_minutes(mean)} min ({folds})"
        if self.search is None:
            total = _minutes((self.trials or 0) * mean / self.workers)
            many = f"{self.trials} trials in {_processes(self.workers)}: about {total} min"
            return f"Budget: {each}; {many}, and then the verdict."
        number = max(LEAST, int(self.search * self.workers / mean))
        return (
            f"Budget: {each}; {self.search / 60:g} min in {_processes(self.workers)} allow about "
            f"{number}. The rest of the time is for the adapter and the verdict."
            f"{self._short(price, space, pace)}"
        )

    def _short(self, price: Price, space: Space, pace: float) -> str:
        """Say what trials as long as those of `fit` would need; nothing if they are."""
        if space.steps[1] >= space.usual_steps:
            return ""
        longest = {"steps": space.usual_steps, "task_share": space.task_share[0]}
        arms = len(space.arms)
        search, rest = arms * price.trial(longest), price.rest(longest, arms)
        seconds = pace * max(search / self.share, rest / (1 - self.share)) / self.workers
        return (
            "\nTrials are shorter than a run of `fit`, and so is the best one: "
            f"{space.usual_steps} steps would need about {_minutes(seconds)} min."
        )


def cheapest(space: Space) -> Iterable[Point]:
    """Return the points of each arm with the fewest steps; two of them if there is one arm."""
    for arm in (*space.arms, *(space.arms if len(space.arms) == 1 else ())):
        yield _least(space, arm)


def _least(space: Space, arm: Arm) -> Mapping[str, Any]:
    point = {"lr": space.lr[0], "steps": space.steps[0]}
    return point if arm == "sft" else point | {"task_share": space.task_share[1]}


def _minutes(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.2g}" if minutes < 10 else f"{minutes:,.0f}"


def _processes(number: int) -> str:
    return "one process" if number == 1 else f"{number} processes"
