"""Which ids a source has given, without keeping them: each id is given once.

Enters: one id after the other with the number of its row. Leaves: the number of an earlier row of
the same id. Costs 3 microseconds an id, and 16 bytes once it is settled. Two ids count as the same
when 64 bits of their hashes agree, by chance in one of a million sources of 5 million rows.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

IdTable = NDArray[np.uint64]
"""Hashes of ids in the first line, the numbers of their rows in the second; sorted by hash."""


class Ids:
    """The ids of the rows so far."""

    def __init__(self) -> None:
        """Begin without an id."""
        self._settled: IdTable = np.empty((2, 0), dtype=np.uint64)
        self._recent: dict[int, int] = {}

    def first(self, id: str, number: int) -> int | None:
        """Return the number of the earlier row with this id; if there is none, keep it."""
        key = int.from_bytes(blake2b(id.encode(), digest_size=8).digest(), "little")
        if key in self._recent:
            return self._recent[key]
        hashes, numbers = self._settled
        place = int(np.searchsorted(hashes, np.uint64(key)))
        if place < len(hashes) and hashes[place] == key:
            return int(numbers[place])
        self._recent[key] = number
        return None

    def settle(self) -> IdTable:
        """Sort the ids since the last call into the others, and return them alone."""
        pairs = [list(self._recent), list(self._recent.values())]
        recent = _sorted(np.array(pairs, dtype=np.uint64))
        self._recent = {}
        self.extend(recent)
        return recent

    def extend(self, table: IdTable) -> None:
        """Take over ids that an earlier process has settled."""
        self._settled = _sorted(np.concatenate([self._settled, table], axis=1))


def _sorted(table: IdTable) -> IdTable:
    return table[:, np.argsort(table[0], kind="stable")]
