"""Packing: which examples share a bin, a row of the batch with room for a fixed number of tokens.

Enters: the plan, the token lengths of its rows and the capacity. Leaves: `Bins`, a pure function
bin number -> examples, so that ranks, workers, accumulation and restarts are arithmetic on the bin
number, as they are on the position where nothing is packed. The stream is cut into windows of a
fixed number of positions, each of which is packed by itself; an example is never cut.

    positions  0 1 2 3 4 5 6 7           | 8 9 ...         window 8, capacity 8 tokens
    tokens     5 4 3 4 2 7 1 1           | 6 2 ...
    bins       [0 2] [1 3] [4 7] [5 6]   | [8 9] ...       window 0 has bins 0 to 3

Costs about 10 ms a window. At which bin a window begins is known only once all windows before it
have been packed: those numbers, 8 bytes a window, are kept and can be saved.
"""

import os
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tell_lightning.data.plan import Plan, Slot, Slots
from tell_lightning.data.tokens import Lengths

ALGORITHM = "bestfit-v1"
WINDOW = 4096


def fill(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put examples into bins, best fit in the order given.

    Each goes into the bin with the least room that still takes it, of equal ones into the oldest,
    or else into a new bin. They are not sorted by length first, although that would fill the bins
    a little better (0.993 instead of 0.987 of the microworld's): examples of one length are often
    of one task, so that tasks would clump. The number of task examples in a batch would vary 20
    times as much as in a random order, or 3 times with the bins shuffled, instead of as much; and
    sequential orders would be mixed over a window.

    Args:
        lengths: Tokens of each example, none above the capacity.
        capacity: Tokens that a bin takes.

    Returns:
        Indices into lengths, by bin, the bins in the order in which they were opened.

    >>> fill([5, 4, 3, 4, 2, 7, 1, 1], 8)
    [[0, 2], [1, 3], [4, 7], [5, 6]]
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # room and bin, ascending
    for index, length in enumerate(lengths):
        assert length <= capacity, "over-long examples are settled when a source is prepared"
        best = bisect_left(rooms, (length, 0))
        if best == len(rooms):
            room, number = capacity, len(bins)
            bins.append([])
        else:
            room, number = rooms.pop(best)
        bins[number].append(index)
        if room > length:
            insort(rooms, (room - length, number))
    return bins


@dataclass(frozen=True, eq=False)
class Bins:
    """The packed stream.

    Attributes:
        plan: What stands at each position.
        lengths: Tokens of the rows of each source of the plan, in its order.
        capacity: Tokens that a bin takes.
        stop: Positions from here on do not exist, which cuts the last window; None for no end.
        window: Positions that are packed together.
    """

    plan: Plan
    lengths: Sequence[Lengths]
    capacity: int
    stop: int | None = None
    window: int = WINDOW
    unit: ClassVar[str] = "bins"
    # Bins before each window, as far as they have been asked for; and the window packed last.
    _starts: "array[int]" = field(default_factory=lambda: array("q", [0]), init=False, repr=False)
    _last: dict[int, list[list[Slot]]] = field(default_factory=dict, init=False, repr=False)

    def pack(self, window: int) -> list[list[Slot]]:
        """Return the bins of one window, whatever stands in the others; none past the stop."""
        if window not in self._last:
            slots = self.plan.at(self._range(window))
            members = list(slots)
            bins = fill(self._tokens(slots).tolist(), self.capacity)
            self._last.clear()
            self._last[window] = [[members[index] for index in indices] for indices in bins]
        return self._last[window]

    def at(self, bins: range) -> list[list[Slot]]:
        """Look up bins by their numbers; those past the stop are empty."""
        return [self._bin(number) for number in bins]

    def positions(self, bins: int) -> int:
        """Return the least position that the first so many bins stay below."""
        windows, rest = self._split(bins)
        return rest[-1][0] + 1 if rest else self._range(windows).start

    def blocks(self, bins: int) -> Iterator[Slots]:
        """Look the positions of the first so many bins up, window by window, ascending."""
        windows, rest = self._split(bins)
        for window in range(windows):
            yield self.plan.at(self._range(window))
        if rest:
            yield Slots(*np.array(rest, dtype=np.int64).T)

    def units_for(self, positions: int) -> int:
        """Return how many bins the windows have that hold the first `positions` positions.

        With the stop it is the number of bins there are.
        """
        windows = -(-positions // self.window)
        while len(self._starts) <= windows and self._grow():
            pass
        return self._starts[min(windows, len(self._starts) - 1)]

    def save(self, path: Path) -> None:
        """Write the table of the windows packed so far; those that the stop cuts are left out.

        It depends on the plan, the lengths, the capacity and the window, and on the stop not.
        """
        whole = len(self._starts) if self.stop is None else self.stop // self.window + 1
        draft = path.with_name(f".{path.stem}-{os.getpid()}.npy")
        np.save(draft, np.array(self._starts[:whole], dtype=np.int64))
        os.replace(draft, path)

    def load(self, path: Path) -> None:
        """Take the table that `save` wrote, if it is there and reaches further than this one."""
        if not path.exists():
            return
        saved = np.load(path)
        if self.stop is not None:
            saved = saved[: self.stop // self.window + 1]
        if len(saved) > len(self._starts):
            self._starts[:] = array("q", saved.tolist())

    def _range(self, window: int) -> range:
        """Return the positions of a window."""
        start, stop = window * self.window, (window + 1) * self.window
        if self.stop is not None:
            start, stop = min(start, self.stop), min(stop, self.stop)
        return range(start, stop)

    def _split(self, bins: int) -> tuple[int, list[Slot]]:
        """Return how many whole windows so many bins have, and the slots of the others, sorted."""
        self._grow_beyond(bins - 1)
        windows = bisect_right(self._starts, bins) - 1
        others = bins - self._starts[windows]
        if others == 0 or windows == len(self._starts) - 1:
            return windows, []
        return windows, sorted(slot for unit in self.pack(windows)[:others] for slot in unit)

    def _bin(self, number: int) -> list[Slot]:
        self._grow_beyond(number)
        window = bisect_right(self._starts, number) - 1
        if window == len(self._starts) - 1:
            return []
        return list(self.pack(window)[number - self._starts[window]])

    def _grow_beyond(self, number: int) -> None:
        """Count windows until the table holds a bin or the stop is reached."""
        while self._starts[-1] <= number and self._grow():
            pass

    def _grow(self) -> bool:
        """Count the bins of one more window, if there is one."""
        window = len(self._starts) - 1
        if self.stop is not None and window * self.window >= self.stop:
            return False
        self._starts.append(self._starts[-1] + len(self.pack(window)))
        return True

    def _tokens(self, slots: Slots) -> NDArray[np.int32]:
        tokens = np.empty(len(slots.rows), dtype=np.int32)
        for index, lengths in enumerate(self.lengths):
            chosen = slots.sources == index
            tokens[chosen] = lengths.tokens[slots.rows[chosen]]
        return tokens
