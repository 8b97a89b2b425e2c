"""Over what is searched: a range for each setting of each arm, and what a point of it means.

    tell      lr, steps, task_share, force_response_prefix
    mixture   lr, steps, task_share                          task rows without their anchor
    sft       lr, steps, force_response_prefix

The ranges are around what `fit` takes by default: the learning rate from a quarter of it to four
times it, as runs of few examples were best within a factor of three (`experiments/defaults`,
`experiments/tuning`); the share from 0.05 to 0.5, as tuned runs took 0.06 to 0.5; the steps from
half of the default to twice of it. The first trial of an arm is what `fit` takes. The second trains
harder: twice the rate, as half of the tuned runs of the small base took, and the most steps. A
range that is left to the defaults is narrowed until the general rows last without repeats, and the
budget for a few trials; one that is given is refused instead.

Optuna knows each setting by arm and name, as `tell.lr`: what is good for one arm says little of
another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, cast

from tell_lightning.experiment.overlays import nested
from tell_lightning.settings import ConfigError
from tell_lightning.tuning.settings import Arm, Search

TURNS: tuple[Arm, ...] = ("tell", "sft", "mixture", "tell", "sft")
"""Whose turn it is, over and over. TELL and SFT are tried equally often: the verdict compares them,
and the better tuned one would win. The mixture, a control, gets half as many."""
ARMS: Mapping[Arm, Mapping[str, Any]] = {
    "tell": {"arm": "tell", "anchor": "given"},
    "sft": {"arm": "sft", "anchor": "given"},
    "mixture": {"arm": "tell", "anchor": "none"},
}
"""What each arm sets in data.mixture."""
RATE_FACTOR = 4.0
SECOND_RATE = 2.0
"""The rate of the second trial of an arm, as a multiple of that of the first."""
SHARES = (0.05, 0.5)
STEPS_FACTOR = 2.0
SHORTER = 1.1
"""By what a range of steps is shortened until it fits."""
FEWEST = 10
"""Fewest steps of a range that is left to the defaults."""
WANTED = 8
"""Trials that the search should have time for if they are longer than a run of `fit`."""
SHARE_GRID = (0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
"""Lower ends of the share that are tried where the general rows do not last."""

Point = Mapping[str, Any]
"""A value for each setting of an arm: lr, steps, and task_share and force_response_prefix where
they apply."""


@dataclass(frozen=True)
class Space:
    """The ranges; low and high are the same where a setting is fixed."""

    arms: tuple[Arm, ...]
    lr: tuple[float, float]
    steps: tuple[int, int]
    task_share: tuple[float, float]
    force: tuple[bool, ...]
    """Values of force_response_prefix; empty where no task has a response prefix."""
    usual_steps: int
    """The fewest steps that `fit` would take for one of the arms."""
    starts: Mapping[Arm, Point]
    """By arm, the point to begin with: what `fit` takes by default, within the ranges."""

    def first_points(self) -> list[tuple[Arm, Point]]:
        """Return the points of the first turns: what `fit` takes, then twice its rate, longer."""
        points: list[tuple[Arm, Point]] = []
        for number in range(len([arm for arm in TURNS if arm in self.arms])):
            arm = self.turn(number)
            point = dict(self.starts[arm])
            if arm in [each for each, _ in points]:
                rate = min(SECOND_RATE * point["lr"], self.lr[1])
                point |= {"lr": rate, "steps": self.steps[1]}
            points.append((arm, point))
        return points

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, which `from_plain` takes."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Space":
        """Make it from plain values, in which tuples may have become lists."""
        kept: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in values.items()
        }
        return cls(**kept)

    def turn(self, number: int) -> Arm:
        """Return the arm of the trial of a number."""
        turns = [arm for arm in TURNS if arm in self.arms]
        return turns[number % len(turns)]

    def lines(self) -> list[str]:
        """Say the ranges, one line each."""
        found = [f"arm: {', '.join(self.arms)}, in turn"]
        if set(self.arms) - {"sft"}:
            found.append(f"task share: {_range(self.task_share)}")
        short = self.steps[1] < self.usual_steps
        usual = f", where `fit` takes {self.usual_steps}" if short else ""
        found += [f"lr: {_range(self.lr)}", f"steps: {_range(self.steps)}{usual}"]
        if len(self.force) > 1:
            found.append("response prefix: generated or forced")
        return found


class Suggests(Protocol):
    """What is needed of a trial of Optuna."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: None = None, log: bool = False
    ) -> float:
        """Choose a number."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Choose a whole number."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Choose one of several values."""


@dataclass(frozen=True)
class Defaults:
    """What `fit` takes by default, and what the data allow."""

    lr: float
    task_share: float
    steps: Mapping[Arm, int]
    """By arm."""
    has_prefix: bool
    """Whether a task has a response prefix."""
    force: bool
    """Whether a task's answers are forced to begin with it now."""
    lasts: Callable[[float, int], bool]
    """Says of a task share and a number of steps whether the general rows last."""


def space_of(search: Search, defaults: Defaults, afford: Callable[[int, int], bool]) -> Space:
    """Settle the ranges.

    Args:
        search: The ranges that are given.
        defaults: What `fit` takes by default.
        afford: Says of a number of steps whether the budget allows so many trials of them.

    Raises:
        ConfigError: The general rows do not last for the ranges that are given.
    """
    lr = _given(search.lr) or (defaults.lr / RATE_FACTOR, defaults.lr * RATE_FACTOR)
    mixes = set(search.arm) - {"sft"}
    wanted = _given(search.task_share)
    share = wanted or SHARES
    steps = _whole(search.steps) or _default_steps(search, defaults, afford, share[1])
    if mixes and not defaults.lasts(share[0], steps[1]):
        lasting = [low for low in SHARE_GRID if low <= share[1] and defaults.lasts(low, steps[1])]
        if wanted is not None or not lasting:
            raise ConfigError(_too_long(search, share, steps))
        share = (lasting[0], share[1])
    force = () if not defaults.has_prefix else (search.force_response_prefix or (False, True))
    usual = min(defaults.steps[arm] for arm in search.arm)
    space = Space(search.arm, lr, steps, share, force, usual, {})
    return replace(space, starts={arm: _start(space, arm, defaults) for arm in search.arm})


def suggest(space: Space, arm: Arm, trial: Suggests) -> dict[str, Any]:
    """Let a sampler choose a point of an arm."""
    point: dict[str, Any] = {
        "lr": trial.suggest_float(f"{arm}.lr", *space.lr, log=True),
        "steps": trial.suggest_int(f"{arm}.steps", *space.steps, log=True),
    }
    if arm != "sft":
        point["task_share"] = trial.suggest_float(f"{arm}.task_share", *space.task_share, log=True)
    if arm != "mixture" and space.force:
        point["force_response_prefix"] = trial.suggest_categorical(
            f"{arm}.force_response_prefix", space.force
        )
    return point


def overlay(arm: Arm, point: Point, prefixed: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of a point, to lay over the user's.

    Args:
        arm: The arm.
        point: Its settings.
        prefixed: Names of the tasks that have a response prefix.
    """
    settings: dict[str, Any] = {
        **{f"data.mixture.{key}": value for key, value in ARMS[arm].items()},
        "data.mixture.cycles": None,
        "model.optimizer.lr": point["lr"],
        "trainer.max_steps": point["steps"],
    }
    if "task_share" in point:
        settings |= {
            "data.mixture.task_share": point["task_share"],
            "data.mixture.task_passes": None,
        }
    found = nested(settings)
    if (forced := point.get("force_response_prefix")) is not None:
        tasks = {name: {"force_response_prefix": forced} for name in prefixed}
        found["data"]["tasks"] = tasks
    return found


def described(arm: str, point: Point) -> str:
    """Say a point in one line.

    >>> described("tell", {"lr": 0.00123456, "steps": 150, "task_share": 0.2083})
    'tell, lr 0.00123, 150 steps, share 0.208'
    """
    parts = [arm, f"lr {point['lr']:.3g}", f"{point['steps']} steps"]
    if "task_share" in point:
        parts.append(f"share {point['task_share']:.3g}")
    if point.get("force_response_prefix"):
        parts.append("prefix forced")
    return ", ".join(parts)


def _default_steps(
    search: Search, defaults: Defaults, afford: Callable[[int, int], bool], share: float
) -> tuple[int, int]:
    """Return a range around the defaults, as far as budget and general rows allow."""
    lengths = [defaults.steps[arm] for arm in search.arm]
    low = max(FEWEST, round(min(lengths) / STEPS_FACTOR))
    high = max(low, round(max(lengths) * STEPS_FACTOR))
    mixes = bool(set(search.arm) - {"sft"})

    def lasts(steps: int) -> bool:
        return not mixes or defaults.lasts(share, steps)

    # A small budget has fewer trials before it has trials that are too short to learn much.
    while low > FEWEST and not (afford(low, len(search.arm)) and lasts(low)):
        low = max(FEWEST, round(low / SHORTER))
    usual = max(lengths)
    while high > usual and not (afford(high, WANTED) and lasts(high)):
        high = max(usual, round(high / SHORTER))
    while high > low and not (afford(high, len(search.arm)) and lasts(high)):
        high = max(low, round(high / SHORTER))
    return low, high


def _start(space: Space, arm: Arm, defaults: Defaults) -> dict[str, Any]:
    steps = min(max(defaults.steps[arm], space.steps[0]), space.steps[1])
    point: dict[str, Any] = {
        "lr": min(max(defaults.lr, space.lr[0]), space.lr[1]),
        "steps": steps,
    }
    if arm != "sft":
        low, high = space.task_share
        point["task_share"] = min(max(defaults.task_share, low), high)
    if arm != "mixture" and space.force:
        forced = defaults.force
        point["force_response_prefix"] = forced if forced in space.force else space.force[0]
    return point


def _given(bounds: Sequence[float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (float(bounds[0]), float(bounds[-1]))


def _whole(bounds: Sequence[float] | None) -> tuple[int, int] | None:
    found = _given(bounds)
    if found is None:
        return None
    if any(value != int(value) for value in found):
        raise ConfigError(
            f"tune.search.steps: must be whole numbers, got {list(bounds or ())}. Write [50, 300]."
        )
    return cast("tuple[int, int]", tuple(map(int, found)))


def _too_long(search: Search, share: tuple[float, float], steps: tuple[int, int]) -> str:
    return (
        f"tune.search.{'steps' if search.steps is not None else 'task_share'}: the general rows "
        f"must last without repeats, got up to {steps[1]} steps at a task share from {share[0]:g} "
        f"to {share[1]:g}. Lower the steps, raise the share, add general rows, or set "
        "data.mixture.general_repeat: true."
    )


def _range(bounds: tuple[float, float]) -> str:
    """Write a range.

    >>> _range((0.05, 0.5)), _range((30, 30))
    ('0.05 to 0.5', '30')
    """
    low, high = bounds
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
