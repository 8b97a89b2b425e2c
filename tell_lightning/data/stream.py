"""The training stream: units of the plan, cut into micro-batches, read and delivered in order.

Enters: the units (examples, or bins of packed examples), the prepared rows, and where this process
stands (rank, world size). Leaves: `Batch`es. The block of units that one micro-step covers over all
ranks is contiguous, and rank r of W takes every W-th from r on, so that the union over ranks is the
same block for every W. The main process decides what to read; workers only read it: the order does
not depend on them.

    micro-step 0          micro-step 1           world 2, micro-batch 2
    0 1 2 3               4 5 6 7                rank 0: 0 2 | 4 6     rank 1: 1 3 | 5 7
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tell_lightning.data.batches import Batch, Item, lay_out, unpack
from tell_lightning.data.plan import Plan, Slot, Slots

BLOCK = 4096


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


class MicroBatches(Sampler[list[list[Slot]]]):
    """Yields the units of each micro-batch of this rank, from a unit on to an end."""

    def __init__(self, units: Units, place: Place, start: int, stop: int) -> None:
        """Stand at `start`; both ends count units and are multiples of a micro-step."""
        super().__init__()
        self.units, self.place, self.start, self.stop = units, place, start, stop

    def __len__(self) -> int:
        """Count the micro-batches from start to stop."""
        return (self.stop - self.start) // self.place.step

    def __iter__(self) -> Iterator[list[list[Slot]]]:
        """Yield lists of units; they are looked up in large blocks."""
        step = self.place.step
        block = max(1, BLOCK // step) * step
        for begin in range(self.start, self.stop, block):
            units = self.units.at(range(begin, min(begin + block, self.stop)))
            for first in range(0, len(units), step):
                yield units[first + self.place.rank : first + step : self.place.world]


class PreparedRows(Dataset[list[Item]]):
    """Map-style access by units to the prepared rows of every source."""

    def __init__(self, sources: Sequence[Any]) -> None:
        """Keep one prepared data set for each source of the plan, in its order."""
        self.sources = sources

    def __getitem__(self, unit: list[Slot]) -> list[Item]:
        """Read one unit."""
        return self.__getitems__([unit])[0]

    def __getitems__(self, units: Sequence[list[Slot]]) -> list[list[Item]]:
        """Read a micro-batch with one access to each source."""
        items: dict[int, Item] = {}
        slots = [slot for unit in units for slot in unit]
        for source in {slot[1] for slot in slots}:
            chosen = [slot for slot in slots if slot[1] == source]
            rows = self.sources[source][[slot[2] for slot in chosen]]
            for (position, _, row), ids, supervised in zip(
                chosen, rows["input_ids"], rows["supervised"], strict=True
            ):
                items[position] = Item(ids, supervised, source, row, position)
        return [[items[slot[0]] for slot in unit] for unit in units]


@dataclass(frozen=True)
class Workers:
    """Who reads the rows; nothing of it changes the order.

    Attributes:
        number: Processes; 0 for the main one.
        prefetch: Micro-batches that each reads ahead; None for PyTorch's default.
        start: How they are started; None for Python's default.
    """

    number: int = 0
    prefetch: int | None = None
    start: Literal["fork", "spawn", "forkserver"] | None = None


class Stream:
    """What the Trainer iterates: a sized loader that starts at the unit consumed so far.

    It is not a `DataLoader`, so that Lightning injects no sampler of its own.
    """

    def __init__(
        self, order: MicroBatches, rows: PreparedRows, *, total: int, workers: Workers | None = None
    ) -> None:
        """Deliver `order`; `total` counts the micro-batches of the whole run, for len()."""
        self.order, self.rows, self.total = order, rows, total
        self.workers = workers or Workers()

    def __len__(self) -> int:
        """Count the micro-batches of the whole run, those before a resume included."""
        return self.total

    def __iter__(self) -> Iterator[Batch]:
        """Deliver the micro-batches in order."""
        several = self.workers.number > 0
        loader: DataLoader[list[Item]] = DataLoader(
            self.rows,
            batch_sampler=self.order,
            collate_fn=lay_out,
            num_workers=self.workers.number,
            prefetch_factor=self.workers.prefetch if several else None,
            multiprocessing_context=self.workers.start if several else None,
            pin_memory=torch.cuda.is_available(),
        )
        parts: Any
        for parts in loader:
            yield unpack(*parts)

    def state_dict(self) -> dict[str, Any]:
        """Tell Lightning that a resume is exact; the data module's state says where it starts."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: `order` stands where the data module's state says."""
