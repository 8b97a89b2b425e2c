"""The units that an optimizer batch counts, and the place of a process among the others.

A unit is an example, or a bin of packed examples (`packing`). One micro-step takes contiguous units
over all ranks: rank r of W takes every W-th unit from r on. So all ranks together take the same
units for every W.

    micro-step 0          micro-step 1           world 2, micro-batch 2
    0 1 2 3               4 5 6 7                rank 0: 0 2 | 4 6     rank 1: 1 3 | 5 7
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

from tell_lightning.data.plan import Plan, Slot, Slots


class Units(Protocol):
    """The numbered units of a run; units past its end are empty."""

    unit: ClassVar[str]

    def at(self, units: range) -> list[list[Slot]]:
        """Return the slots of each unit; an empty list for a unit past the end."""

    def positions(self, units: int) -> int:
        """Return the last position in the first `units` units, plus one."""

    def blocks(self, units: int) -> Iterator[Slots]:
        """Look up the positions of the first `units` units, ascending, block by block."""

    def units_for(self, positions: int) -> int:
        """Return the number of units that hold the first `positions` positions."""


@dataclass(frozen=True)
class Examples:
    """Units of one example each: unit n is position n of the plan, below `stop`."""

    plan: Plan
    stop: int | None = None
    unit: ClassVar[str] = "examples"

    def at(self, units: range) -> list[list[Slot]]:
        """Return one slot for each unit."""
        end = max(units.start, self.positions(units.stop))
        slots = [[slot] for slot in self.plan.at(range(units.start, end))]
        return slots + [[] for _ in range(units.stop - end)]

    def positions(self, units: int) -> int:
        """Return the number of units, but not more than `stop`."""
        return units if self.stop is None else min(units, self.stop)

    def blocks(self, units: int) -> Iterator[Slots]:
        """Look up the positions block by block."""
        yield from self.plan.blocks(self.positions(units))

    def units_for(self, positions: int) -> int:
        """Return the number of positions."""
        return positions


@dataclass(frozen=True)
class Place:
    """The place of a process: its rank, the number of ranks, and the units of a micro-batch."""

    rank: int
    world: int
    micro_batch: int

    @property
    def step(self) -> int:
        """Units of one micro-step over all ranks."""
        return self.world * self.micro_batch
