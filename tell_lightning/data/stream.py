"""The training stream: plan positions, cut into micro-batches, read and delivered in order.

Enters: the plan, the prepared rows, and where this process stands (rank, world size). Leaves:
`Batch`es. The block of positions that one micro-step covers over all ranks is contiguous, and rank
r of W takes every W-th from r on, so that the union over ranks is the same block for every W. The
main process decides what to read; workers only read it: the order does not depend on them.

    micro-step 0          micro-step 1           world 2, micro-batch 2
    0 1 2 3               4 5 6 7                rank 0: 0 2 | 4 6     rank 1: 1 3 | 5 7
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from tell_lightning.data.batches import Batch, Item, collate
from tell_lightning.data.plan import Plan

Slot = tuple[int, int, int]
BLOCK = 4096


@dataclass(frozen=True)
class Place:
    """Where a process stands: its rank, how many there are, and examples per micro-batch."""

    rank: int
    world: int
    micro_batch: int

    @property
    def step(self) -> int:
        """Examples that one micro-step takes over all ranks."""
        return self.world * self.micro_batch


class Order(Sampler[list[Slot]]):
    """Yields the slots of each micro-batch of this rank, from a position on to an end."""

    def __init__(self, plan: Plan, place: Place, start: int, stop: int) -> None:
        """Stand at `start`; both ends count examples and are multiples of a micro-step."""
        super().__init__()
        self.plan, self.place, self.start, self.stop = plan, place, start, stop

    def __len__(self) -> int:
        """Count the micro-batches from start to stop."""
        return (self.stop - self.start) // self.place.step

    def __iter__(self) -> Iterator[list[Slot]]:
        """Yield lists of (position, source, row); positions are looked up in large blocks."""
        step = self.place.step
        block = max(1, BLOCK // step) * step
        for begin in range(self.start, self.stop, block):
            slots = list(self.plan.at(range(begin, min(begin + block, self.stop))))
            for first in range(0, len(slots), step):
                yield slots[first + self.place.rank : first + step : self.place.world]


class RowStore(Dataset[Item]):
    """Map-style access by (position, source, row) to the prepared rows of every source."""

    def __init__(self, sources: Sequence[Any]) -> None:
        """Keep one prepared data set for each source of the plan, in its order."""
        self.sources = sources

    def __getitem__(self, slot: Slot) -> Item:
        """Read one example."""
        return self.__getitems__([slot])[0]

    def __getitems__(self, slots: Sequence[Slot]) -> list[Item]:
        """Read a micro-batch with one access to each source."""
        items: dict[int, Item] = {}
        for source in {slot[1] for slot in slots}:
            chosen = [slot for slot in slots if slot[1] == source]
            rows = self.sources[source][[slot[2] for slot in chosen]]
            for (position, _, _), ids, supervised in zip(
                chosen, rows["input_ids"], rows["supervised"], strict=True
            ):
                items[position] = Item(ids, supervised, source, position)
        return [items[slot[0]] for slot in slots]


class Stream:
    """What the Trainer iterates: a sized loader that starts at the position consumed so far.

    It is not a `DataLoader`, so that Lightning injects no sampler of its own.
    """

    def __init__(self, order: Order, rows: RowStore, *, total: int, num_workers: int) -> None:
        """Deliver `order`; `total` counts the micro-batches of the whole run, for len()."""
        self.order, self.rows, self.total, self.num_workers = order, rows, total, num_workers

    def __len__(self) -> int:
        """Count the micro-batches of the whole run, those before a resume included."""
        return self.total

    def __iter__(self) -> Iterator[Batch]:
        """Deliver the micro-batches in order."""
        loader: DataLoader[Item] = DataLoader(
            self.rows,
            batch_sampler=self.order,
            collate_fn=collate,
            num_workers=self.num_workers,
        )
        yield from loader

    def state_dict(self) -> dict[str, Any]:
        """Tell Lightning that a resume is exact; the data module's state says where it starts."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: `order` stands where the data module's state says."""
