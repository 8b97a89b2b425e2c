"""What an optimizer batch counts, and where a process stands among the others.

Units are examples, or bins of packed examples (`packing`). The units of one micro-step over all
ranks are contiguous, and rank r of W takes every W-th of them from r on. So all ranks together take
the same units for every W.

    micro-step 0          micro-step 1           world 2, micro-batch 2
    0 1 2 3               4 5 6 7                rank 0: 0 2 | 4 6     rank 1: 1 3 | 5 7
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

from tell_lightning.data.plan import Plan, Slot, Slots


class Units(Protocol):
    """What an optimizer batch counts: a numbered sequence, filled up with empty ones at its end."""

    unit: ClassVar[str]

    def at(self, units: range) -> list[list[Slot]]:
        """Return the slots of each unit; none for a unit behind the end of the plan."""
        ...

    def positions(self, units: int) -> int:
        """Return the least position that the first so many units stay below."""
        ...

    def blocks(self, units: int) -> Iterator[Slots]:
        """Look the positions of the first so many units up, ascending."""
        ...

    def units_for(self, positions: int) -> int:
        """Return how many units hold the first so many positions."""
        ...


@dataclass(frozen=True)
class Examples:
    """Units of one example each: unit n is position n of the plan, up to `stop`."""

    plan: Plan
    stop: int | None = None
    unit: ClassVar[str] = "examples"

    def at(self, units: range) -> list[list[Slot]]:
        """Return one slot a unit."""
        end = max(units.start, self.positions(units.stop))
        slots = [[slot] for slot in self.plan.at(range(units.start, end))]
        return slots + [[] for _ in range(units.stop - end)]

    def positions(self, units: int) -> int:
        """Return the number of units, or the stop where that comes first."""
        return units if self.stop is None else min(units, self.stop)

    def blocks(self, units: int) -> Iterator[Slots]:
        """Look them up block by block."""
        yield from self.plan.blocks(self.positions(units))

    def units_for(self, positions: int) -> int:
        """Return the number of positions."""
        return positions


@dataclass(frozen=True)
class Place:
    """Where a process stands: its rank, how many there are, and units per micro-batch."""

    rank: int
    world: int
    micro_batch: int

    @property
    def step(self) -> int:
        """Units that one micro-step takes over all ranks."""
        return self.world * self.micro_batch
