"""The loaders that a Trainer iterates: the training stream, and the rows whose loss is logged.

The main process chooses the rows, from the plan and its rank (`Place`). Workers only read them, so
the order does not depend on workers. Neither loader is a `DataLoader`: Lightning would replace the
sampler.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tell_lightning.data.batches import Batch, Item, collate_unpacked, indexed, lay_out, unpack
from tell_lightning.data.plan import Slot
from tell_lightning.data.prepared import LossRows
from tell_lightning.data.tokens import Lengths
from tell_lightning.data.units import Place, Units

BLOCK = 4096
"""Units looked up at once."""
MOST = 2**17
"""Units among which the longest is looked for."""


class MicroBatches(Sampler[list[list[Slot]]]):
    """Yields the units of each micro-batch of this rank."""

    def __init__(self, units: Units, place: Place, start: int, stop: int) -> None:
        """Take the units from `start` to `stop`; both are multiples of a micro-step."""
        super().__init__()
        self.units, self.place, self.start, self.stop = units, place, start, stop

    def __len__(self) -> int:
        """Return the number of micro-batches."""
        return (self.stop - self.start) // self.place.step

    def __iter__(self) -> Iterator[list[list[Slot]]]:
        """Yield lists of units; the units are looked up in large blocks."""
        step = self.place.step
        block = max(1, BLOCK // step) * step
        for begin in range(self.start, self.stop, block):
            units = self.units.at(range(begin, min(begin + block, self.stop)))
            for first in range(0, len(units), step):
                yield units[first + self.place.rank : first + step : self.place.world]


def longest_unit(units: Units, lengths: Sequence[Lengths], number: int) -> int:
    """Return the unit with the most tokens among the first `number`, of which `MOST` are counted.

    Args:
        units: The units of a run.
        lengths: Token lengths of each source, in the order of the plan.
        number: The number of units of the run.
    """
    best = longest = 0
    tokens = [of.tokens for of in lengths]
    for begin in range(0, min(number, MOST), BLOCK):
        for unit, slots in enumerate(units.at(range(begin, min(begin + BLOCK, number))), begin):
            size = sum(int(tokens[source][row]) for _, source, row in slots)
            if size > longest:
                best, longest = unit, size
    return best


class PreparedRows(Dataset[list[Item]]):
    """Reads the units of a micro-batch from the prepared rows of all sources."""

    def __init__(self, sources: Sequence[Any]) -> None:
        """Take the prepared rows of each source, in the order of the plan."""
        self.sources = sources

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


class Stream:
    """The training batches. Iteration starts at the position that training has reached."""

    def __init__(
        self,
        micro_batches: Callable[[], MicroBatches],
        rows: PreparedRows,
        *,
        total: int,
        names: Sequence[str] = (),
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        """Read nothing yet.

        Args:
            micro_batches: Called when iteration begins, for a checkpoint may be loaded before that.
            rows: The prepared rows.
            total: Micro-batches of the epoch, including those before a resume.
            names: The names of the sources, in the order of the plan.
            num_workers: Processes that read; 0: the main process reads.
            options: Other arguments of `DataLoader`, which apply to workers only.
        """
        self.micro_batches, self.rows, self.total = micro_batches, rows, total
        self.names = tuple(names)
        self.options = {"num_workers": num_workers, **(options if num_workers else {})}

    def __len__(self) -> int:
        """Return the number of micro-batches of the epoch, including those before a resume."""
        return self.total

    def __iter__(self) -> Iterator[Batch]:
        """Yield the micro-batches in order."""
        sampler = self.micro_batches()
        packed = sampler.units.unit == "bins"
        loader: DataLoader[list[Item]] = DataLoader(
            self.rows,
            batch_sampler=sampler,
            collate_fn=lay_out,
            pin_memory=torch.cuda.is_available(),
            **self.options,
        )
        parts: Any
        for parts in loader:
            yield indexed(unpack(*parts, names=self.names, packed=packed))

    def state_dict(self) -> dict[str, Any]:
        """Return nothing. This method tells Lightning that a resume is exact."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: the stream starts at the Trainer's step."""


class LossBatches:
    """This rank's share of the rows whose loss is logged, sorted by length.

    All ranks have the same number of rows, for they meet in collectives: at the end of the epoch,
    and in each pass of a sharded model. A rank with too few rows gets rows without labels.
    """

    def __init__(
        self, rows: LossRows, names: Sequence[str], split: str, place: Place, micro_batch: int
    ) -> None:
        """Take this rank's rows.

        Args:
            rows: Rows of all ranks, each with the name of its source.
            names: The names of all sources; those of a batch are indices into it.
            split: The split of the batches: dev, test ...
            place: Rank and number of ranks.
            micro_batch: Rows of a batch.
        """
        self.names, self.split, self.micro_batch = tuple(names), split, micro_batch
        index = {name: number for number, name in enumerate(self.names)}
        items = [
            Item(row.input_ids, row.supervised, index[name], number, number)
            for number, (name, row) in enumerate(rows)
        ]
        first = items[0] if items else Item([0, 0], [False, False], 0, 0, 0)
        unlabelled = first._replace(supervised=[False] * len(first.supervised))
        mine = items[place.rank :: place.world]
        mine += [unlabelled] * (max(1, -(-len(items) // place.world)) - len(mine))
        self.items = sorted(mine, key=lambda item: len(item.input_ids))

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.items) // self.micro_batch)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, the shortest rows first."""
        for start in range(0, len(self.items), self.micro_batch):
            items = self.items[start : start + self.micro_batch]
            yield indexed(collate_unpacked(items, self.names, self.split))
