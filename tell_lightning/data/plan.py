"""The plan: which row of which source stands at which position of the training stream.

A plan follows from the proportions (`Mixture`) and the number of rows of each source. It is a pure
function position -> (source, row), without state and in constant memory, so ranks, workers,
accumulation and restarts only need arithmetic on the position.

    cycle 0                        cycle 1
    g g T g g g g T g g | g T g g g g g g T g | ...      task share 0.2, K = 2 task examples

A cycle holds E passes over the K task examples and M general slots. Each cycle mixes its
L = E*K + M slots by its own permutation. General rows do not repeat from cycle to cycle.

Source: TELL, arXiv 2404.00914 ("extensively shuffled"); the proportions are ours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from tell_lightning.data.orders import mix
from tell_lightning.data.permutation import ALGORITHM, Indices, derive_key, permute
from tell_lightning.data.settings import Mixture, Order
from tell_lightning.errors import TellError

BLOCK = 65_536
"""Positions looked up at once."""

LONGEST = 10**15
"""Most slots of a cycle: positions are 64-bit integers."""

Slot = tuple[int, int, int]
"""Position, index of the source in the plan, row of that source."""

GeneralRows = Mapping[str, tuple[int, float | None]]
"""Rows and weight of each general source; weight None: its number of rows."""


class PlanError(TellError):
    """Proportions that cannot be met."""


@dataclass(frozen=True)
class PlanSource:
    """A pool of rows and its slots in each cycle."""

    name: str
    kind: Literal["task", "general"]
    rows: int
    slots: int


@dataclass(frozen=True)
class Slots:
    """The source and the row at each of several positions; arrays of one length."""

    positions: Indices
    sources: Indices
    rows: Indices

    def __iter__(self) -> Iterator[Slot]:
        """Yield (position, source, row) as plain integers."""
        return zip(self.positions.tolist(), self.sources.tolist(), self.rows.tolist(), strict=True)


@dataclass(frozen=True)
class Plan:
    """The resolved mixture.

    Attributes:
        seed: Seed of the order.
        sources: The sources, tasks first. Slots and batches name a source by its index here.
        order: How the slots of a cycle are mixed.
    """

    seed: int
    sources: tuple[PlanSource, ...]
    order: Order = "random"

    @property
    def cycle(self) -> int:
        """Slots of one cycle."""
        return sum(source.slots for source in self.sources)

    @property
    def task_slots(self) -> int:
        """Slots of a cycle that hold task examples."""
        return sum(source.slots for source in self.sources if source.kind == "task")

    @property
    def task_share(self) -> float:
        """Task slots over all slots of a cycle, 0 to 1."""
        return self.task_slots / self.cycle

    def blocks(self, positions: int) -> Iterator[Slots]:
        """Look up the positions from 0 to `positions`, block by block."""
        for start in range(0, positions, BLOCK):
            yield self.at(range(start, min(start + BLOCK, positions)))

    def stop(self, cycles: float) -> int:
        """Return the number of positions in `cycles` cycles, at least 1.

        Raises:
            PlanError: `cycles` is not a finite number above 0.
        """
        if not 0 < cycles < inf:
            raise PlanError(
                f"data.mixture.cycles: must be above 0, got {cycles}. Set 1 for every slot once."
            )
        return max(1, round(cycles * self.cycle))

    def at(self, positions: Indices | range) -> Slots:
        """Look up positions.

        Args:
            positions: Non-negative positions, in any order.

        Returns:
            The source and the row at each position.
        """
        positions = np.asarray(positions, dtype=np.int64)
        cycles, within = np.divmod(positions, self.cycle)
        mixed = np.empty_like(within)
        for cycle in np.unique(cycles).tolist():
            chosen = cycles == cycle
            key = derive_key(self.seed, "mix", cycle)
            mixed[chosen] = mix(within[chosen], self.task_slots, self.cycle, self.order, key)
        edges = np.cumsum([source.slots for source in self.sources])
        sources = np.searchsorted(edges, mixed, side="right").astype(np.int64)
        rows = np.empty_like(within)
        for index, source in enumerate(self.sources):
            chosen = sources == index
            occurrence = mixed[chosen] - (edges[index] - source.slots)
            rows[chosen] = self._rows(source, cycles[chosen] * source.slots + occurrence)
        return Slots(positions, sources, rows)

    def _rows(self, source: PlanSource, uses: Indices) -> Indices:
        """Return the row of each use of a source; each pass over the rows has its own order."""
        passes, within = np.divmod(uses, source.rows)
        rows = np.empty_like(uses)
        for number in np.unique(passes).tolist():
            chosen = passes == number
            key = derive_key(self.seed, "rows", source.name, number)
            rows[chosen] = permute(within[chosen], source.rows, key)
        return rows

    def describe(self) -> dict[str, object]:
        """Return as plain values all that the order depends on."""
        return {
            "algorithm": ALGORITHM,
            "order": self.order,
            "order_seed": self.seed,
            "cycle": self.cycle,
            "task_share": self.task_share,
            "sources": [vars(source) for source in self.sources],
        }


def draw(pool: int, count: int | None, seed: int, name: str) -> Indices:
    """Draw task examples: the first `count` of one keyed order. A small draw is part of a larger.

    Raises:
        PlanError: The pool is smaller than the draw.
    """
    if count is None:
        return np.arange(pool, dtype=np.int64)
    if not 0 < count <= pool:
        raise PlanError(
            f"data.mixture.task_examples: must be 1 to {pool}, the training rows of task "
            f"'{name}', got {count}. Lower it, or set null for all."
        )
    return permute(range(count), pool, derive_key(seed, "draw", name))


def resolve_plan(
    mixture: Mixture,
    tasks: Mapping[str, int],
    general: GeneralRows,
    *,
    seed: int,
    mean_tokens: Mapping[str, float] | None = None,
) -> Plan:
    """Turn proportions into exact counts.

    Args:
        mixture: The proportions.
        tasks: Number of training examples of each task.
        general: Rows and weight of each general source.
        seed: Seed of the order.
        mean_tokens: Mean tokens of an example of each source, for `task_share_in: tokens`.

    Raises:
        PlanError: The proportions cannot be met. The message says what to change.
    """
    with_tasks, with_general = mixture.arm != "general_only", mixture.arm != "sft"
    if with_tasks and not tasks:
        raise PlanError(
            f"data.tasks: arm '{mixture.arm}' trains on tasks, got none with training rows. "
            "Add a task with `train`, or set data.mixture.arm: general_only."
        )
    if with_general and not general:
        raise PlanError(
            f"data.general: arm '{mixture.arm}' mixes general rows in, got no source. "
            "Add a general source, or set data.mixture.arm: sft."
        )
    task_passes, general_slots = _counts(mixture, tasks, general, mean_tokens)
    cycle = task_passes * sum(tasks.values()) + general_slots
    if cycle > LONGEST:
        raise PlanError(
            f"data.mixture: a cycle must have at most {LONGEST:.0e} slots, got {cycle:.0e}. "
            "Raise task_share, or lower task_passes."
        )
    pools = [
        PlanSource(name, "task", rows, rows * task_passes)
        for name, rows in tasks.items()
        if with_tasks
    ]
    if with_general:
        slots = _split(general_slots, general)
        pools += [
            PlanSource(name, "general", rows, slots[name]) for name, (rows, _) in general.items()
        ]
    return Plan(seed, tuple(pools), mixture.order)


def steps_for(positions: int, optimizer_batch: int) -> int:
    """Return the optimizer steps that cover all positions; the last batch may be short."""
    return -(-positions // optimizer_batch)


def check_supply(plan: Plan, positions: int, *, general_repeat: bool) -> None:
    """Refuse a run that would see general rows twice, unless the settings allow it.

    Args:
        plan: The resolved plan.
        positions: Length of the run in examples.
        general_repeat: Whether repeats are allowed.

    Raises:
        PlanError: A general source runs out.
    """
    if general_repeat:
        return
    for source in plan.sources:
        # Any slot of a cycle may come first, so a started cycle counts as a full one.
        cycles = -(-positions // plan.cycle)
        if source.kind == "general" and cycles * source.slots > source.rows:
            raise PlanError(
                f"data.general.{source.name}: {positions} training examples, which is {cycles} "
                f"cycle(s) of {source.slots} slots of this source, need "
                f"{cycles * source.slots} distinct rows, got {source.rows}. Lower "
                "trainer.max_steps or data.mixture.cycles, raise data.mixture.task_share, add "
                "rows, or set data.mixture.general_repeat: true."
            )


def _counts(
    mixture: Mixture,
    tasks: Mapping[str, int],
    general: GeneralRows,
    mean_tokens: Mapping[str, float] | None,
) -> tuple[int, int]:
    """Return the task passes and the general slots of a cycle."""
    share, passes = mixture.task_share, mixture.task_passes
    if mixture.arm == "sft":
        return 1, 0
    if mixture.arm == "general_only":
        return 0, _one_pass(general)
    if share is None and passes is None:
        raise PlanError(
            "data.mixture: needs task_share, task_passes or both, got neither. Set task_share: 0.1."
        )
    if passes is not None and passes < 1:
        raise PlanError(f"data.mixture.task_passes: must be at least 1, got {passes}. Raise it.")
    if share is None:
        assert passes is not None
        return passes, _one_pass(general)
    if not 0 < share < 1:
        raise PlanError(
            f"data.mixture.task_share: must lie between 0 and 1, got {share}. For task rows "
            "alone set data.mixture.arm: sft, for none of them general_only."
        )
    passes, one_pass = passes or 1, float(sum(tasks.values()))
    if mixture.task_share_in == "tokens":
        assert mean_tokens is not None
        one_pass = _worth(tasks, general, mean_tokens)
    return passes, max(1, round(passes * one_pass * (1 - share) / share))


def _worth(
    tasks: Mapping[str, int], general: GeneralRows, mean_tokens: Mapping[str, float]
) -> float:
    """Return how many general slots hold as many tokens as one pass over the tasks."""
    weights = _weights(general)
    mean = sum(weight * mean_tokens[name] for name, weight in weights.items())
    mean /= sum(weights.values())
    return sum(rows * mean_tokens[name] for name, rows in tasks.items()) / mean


def _weights(general: GeneralRows) -> dict[str, float]:
    weights = {
        name: float(rows if weight is None else weight) for name, (rows, weight) in general.items()
    }
    for name, weight in weights.items():
        if weight <= 0:
            raise PlanError(
                f"data.general.{name}.weight: must be above 0, got {weight}. "
                "Remove the source, or raise its weight."
            )
    given = {weight is None for _, weight in general.values()}
    if len(given) > 1:
        raise PlanError(
            "data.general: either every source has a weight or none, got some of each. "
            "Set `weight` on all of them."
        )
    return weights


def _one_pass(general: GeneralRows) -> int:
    """Return the largest number of slots that repeats no row, if slots are split by weight."""
    weights = _weights(general)
    total = sum(weights.values())
    return int(min(rows * total / weights[name] for name, (rows, _) in general.items()) + 1e-9)


def _split(slots: int, general: GeneralRows) -> dict[str, int]:
    """Split slots over the sources by weight; the largest remainders are rounded up."""
    weights = _weights(general)
    total = sum(weights.values())
    exact = {name: slots * weight / total for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: slots - sum(counts.values())]:
        counts[name] += 1
    for name, count in counts.items():
        if count == 0:
            raise PlanError(
                f"data.general.{name}: gets none of the {slots} general slots of a cycle. "
                "Raise its weight, lower data.mixture.task_share, or remove the source."
            )
    return counts
