"""A keyed permutation of 0..n-1: any index in constant memory, the same on every machine.

Up to `SMALL` elements are sorted by hash, because a Feistel network is visibly non-uniform on a few
elements. More elements go through a balanced Feistel network of six rounds over the next even
number of bits, with cycle walking. In blocks of 4096 or more, an index takes 0.25 microseconds.

`ALGORITHM` names the version: if a single output changes, the version must change, too.
"""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

ALGORITHM = "feistel6-v1"
SMALL = 4096
ROUNDS = 6

Indices = NDArray[np.int64]


def derive_key(seed: int, *names: str | int) -> int:
    """Derive a 64-bit key from a seed and the names of its purpose.

    Args:
        seed: Any integer.
        names: The purpose; other names give an unrelated key.

    Returns:
        An integer in 0..2**64-1.
    """
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def seed_for(name: str, seed: int, given: int | None) -> int:
    """Return the seed of one purpose: the given one, or one derived from the run's seed."""
    return derive_key(seed, name) if given is None else given


def permute(indices: Iterable[int] | Indices, size: int, key: int) -> Indices:
    """Permute indices by the keyed permutation of 0..size-1.

    Args:
        indices: Values in 0..size-1.
        size: Number of elements, at least 1.
        key: 64-bit key, from `derive_key`.

    Returns:
        The image of each index, int64, in the shape of `indices`.

    >>> sorted(permute(range(5), 5, key=1).tolist())
    [0, 1, 2, 3, 4]
    """
    index = np.asarray(indices, dtype=np.int64)
    assert size > 0
    assert index.size == 0 or (index.min() >= 0 and index.max() < size)
    if size <= SMALL:
        return _table(size, key)[index]
    return _walk(index.astype(np.uint64), size, key).astype(np.int64)


def offsets(indices: Indices, widths: Indices, key: int) -> Indices:
    """Choose an offset in 0..width-1 for each index, by hash.

    Args:
        indices: Any integers.
        widths: A width for each index, at least 1.
        key: 64-bit key, from `derive_key`.
    """
    hashes = _mix(indices.astype(np.uint64) + np.uint64(key))
    return (hashes % widths.astype(np.uint64)).astype(np.int64)


@lru_cache(maxsize=256)
def _table(size: int, key: int) -> Indices:
    hashes = _mix(np.arange(size, dtype=np.uint64) + np.uint64(key))
    table = np.argsort(hashes, kind="stable").astype(np.int64)
    table.flags.writeable = False
    return table


def _walk(index: NDArray[np.uint64], size: int, key: int) -> NDArray[np.uint64]:
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    image = _feistel(index, half_bits, key)
    outside = image >= size
    while outside.any():
        image[outside] = _feistel(image[outside], half_bits, key)
        outside = image >= size
    return image


def _feistel(value: NDArray[np.uint64], half_bits: int, key: int) -> NDArray[np.uint64]:
    shift = np.uint64(half_bits)
    mask = np.uint64((1 << half_bits) - 1)
    left, right = value >> shift, value & mask
    for round_ in range(ROUNDS):
        round_key = np.uint64(derive_key(key, "round", round_))
        left, right = right, left ^ (_mix(right + round_key) & mask)
    return (left << shift) | right


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash each value by the finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
