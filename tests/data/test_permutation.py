"""The keyed permutation: a bijection for every size, frozen outputs, no pattern in the order."""

from collections import Counter
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data import permutation
from tell_lightning.data.permutation import ALGORITHM, SMALL, Indices, derive_key, permute

Order = Callable[[int, int], Indices]
RunsZ = Callable[[np.ndarray], float]

keys = st.integers(0, 2**64 - 1)
fixed = settings(derandomize=True, max_examples=40)


def is_bijection(size: int, key: int) -> bool:
    return bool((np.sort(permute(range(size), size, key)) == np.arange(size)).all())


def test_every_small_size_is_a_bijection() -> None:
    assert all(is_bijection(size, derive_key(size)) for size in range(1, 301))


@fixed
@given(st.integers(1, 100_000), keys)
def test_any_size_and_key_is_a_bijection(size: int, key: int) -> None:
    assert is_bijection(size, key)


@fixed
@given(st.integers(SMALL - 3, SMALL + 4), keys)
def test_sizes_where_the_algorithm_changes_are_bijections(size: int, key: int) -> None:
    assert is_bijection(size, key)


@pytest.mark.parametrize("size", [2**14 - 1, 2**14, 2**14 + 1, 2**16, 2**16 + 1])
def test_sizes_around_powers_of_two_are_bijections(size: int) -> None:
    assert is_bijection(size, derive_key(3, "power"))


def test_outputs_are_those_of_the_named_version() -> None:
    # A change of one of these is a new ALGORITHM: no run could be resumed under the old name.
    assert ALGORITHM == "feistel6-v1"
    key = derive_key(0, "x")
    golden = {
        (7, 0): [3, 5, 4, 1, 2, 6, 0],
        (10, 1): [9, 2, 4, 6, 3, 0, 1, 7],
        (SMALL, key): [82, 2935, 748, 3147, 1566, 3520, 3498, 3621],
        (SMALL + 1, key): [2648, 2970, 431, 1304, 2181, 558, 3730, 676],
        (100_000, 42): [90951, 14339, 45521, 48966, 71288, 23477, 44244, 10545],
        (10**12, 2**64 - 1): [
            *(884090972212, 193784208424, 644692109855, 964944236623),
            *(439052304873, 573904411619, 415482196305, 124209719926),
        ],
    }
    for (size, chosen), values in golden.items():
        assert permute(range(len(values)), size, chosen).tolist() == values
    assert key == 9511765210964949906
    assert derive_key(0, "mix", 0) == 1979715147901870759
    assert derive_key(-5, "rows", "a", 3) == 12595607500547649915
    assert derive_key(42) == 8820412187630416983


def test_keys_of_other_names_differ() -> None:
    names = [(), ("a",), ("b",), ("a", "b"), ("ab",), ("a", 1), ("a", 11), ("a", 1, 1), (1,)]
    assert len({derive_key(seed, *name) for seed in (0, 1, -1) for name in names}) == 3 * len(names)


@fixed
@given(st.sampled_from([5, 1000, SMALL, SMALL + 1, 70_000]), keys, st.data())
def test_blocks_and_their_order_change_nothing(size: int, key: int, data: st.DataObject) -> None:
    whole = permute(range(size), size, key)
    asked = data.draw(st.lists(st.integers(0, size - 1), max_size=50))
    assert permute(asked, size, key).tolist() == whole[asked].tolist()
    cut = data.draw(st.integers(0, size))
    parts = [permute(range(cut), size, key), permute(range(cut, size), size, key)]
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_the_result_has_the_shape_of_the_indices() -> None:
    for size in (100, 10_000):
        grid = np.arange(6).reshape(2, 3)
        assert permute(grid, size, 1).tolist() == permute(range(6), size, 1).reshape(2, 3).tolist()


def test_results_can_be_changed_without_changing_later_ones() -> None:
    first = permute(range(9), 9, 5)
    wanted = first.tolist()
    first[:] = 0
    assert permute(range(9), 9, 5).tolist() == wanted


# Patterns. Each check turns one order into a number that is standard normal for a random order;
# over SEEDS fixed keys the mean times sqrt(SEEDS) is standard normal again.

SEEDS = 40


def lag(order: Indices, distance: int) -> float:
    size = len(order)
    centred = order - order.mean()
    correlation = float(centred[distance:] @ centred[:-distance] / (centred @ centred))
    return float((correlation + 1 / size) * size**0.5)


def lag_1(order: Indices) -> float:
    return lag(order, 1)


def lag_128(order: Indices) -> float:  # half the bits of 5000: where a Feistel network repeats
    return lag(order, 128)


def deviations(order: Order, size: int, check: Callable[[Indices], float]) -> tuple[float, float]:
    """Return z of the mean of the check, and z of its mean square (1 if random)."""
    z = np.array([check(order(size, derive_key(seed, "pattern"))) for seed in range(SEEDS)])
    return float(z.mean() * SEEDS**0.5), float(((z**2).mean() - 1) * (SEEDS / 2) ** 0.5)


def looks_random(order: Order, size: int, check: Callable[[Indices], float]) -> bool:
    return all(abs(z) < 4 for z in deviations(order, size, check))


def ours(size: int, key: int) -> Indices:
    return permute(range(size), size, key)


@pytest.mark.parametrize("size", [500, 4000, 5000, 20_000])
def test_neighbours_are_not_correlated_and_do_not_clump(size: int, runs_z: RunsZ) -> None:
    assert looks_random(ours, size, lag_1)
    assert looks_random(ours, size, lag_128)
    assert looks_random(ours, size, lambda order: runs_z(order >= size // 2))
    assert looks_random(ours, size, lambda order: runs_z(order % 2 == 0))


@pytest.mark.parametrize("size", [500, 5000])
def test_orders_of_two_keys_are_not_correlated(size: int) -> None:
    def with_the_next(size: int, key: int) -> Indices:
        return ours(size, key) * size + ours(size, derive_key(key, "next"))

    def correlation(pairs: Indices) -> float:
        return float(np.corrcoef(*np.divmod(pairs, size))[0, 1] * (size - 1) ** 0.5)

    assert looks_random(with_the_next, size, correlation)


def test_the_checks_reject_orders_with_a_pattern(
    runs_z: RunsZ, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(size: int, key: int) -> Indices:
        return np.arange(size)

    def rotation(size: int, key: int) -> Indices:
        return (np.arange(size) * 7 + key % size) % size

    for broken in (identity, rotation):
        assert not looks_random(broken, 5000, lag_1)
        assert not looks_random(broken, 5000, lambda order: runs_z(order >= 2500))
    monkeypatch.setattr(permutation, "ROUNDS", 2)
    assert not looks_random(ours, 5000, lag_128)


def excess(size: int) -> float:
    """Return z of chi-square of all orders of a few elements over many keys."""
    seen = Counter(tuple(ours(size, derive_key(seed, "few")).tolist()) for seed in range(4000))
    orders = list(permutations(range(size)))
    expected = 4000 / len(orders)
    chi = sum((seen[order] - expected) ** 2 for order in orders) / expected
    freedom = len(orders) - 1
    return float((chi - freedom) / (2 * freedom) ** 0.5)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_all_orders_of_a_few_elements_are_as_frequent(size: int) -> None:
    assert abs(excess(size)) < 4


def test_a_feistel_network_alone_is_not_uniform_on_a_few_elements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(permutation, "SMALL", 0)
    assert excess(5) > 4
