from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data.orders import mix
from tell_lightning.data.permutation import derive_key
from tell_lightning.data.plan import resolve_plan
from tell_lightning.data.settings import Mixture, Order

ORDERS = get_args(Order)


def slots(task: int, total: int, order: Order, key: int = 7) -> np.ndarray:
    return mix(np.arange(total), task, total, order, key)


@given(st.sampled_from(ORDERS), st.integers(0, 60), st.integers(0, 300), st.integers(0, 2**64 - 1))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_order_is_a_bijection(order: Order, task: int, general: int, key: int) -> None:
    if task + general:
        assert sorted(slots(task, task + general, order, key)) == list(range(task + general))


@given(st.sampled_from(ORDERS), st.integers(1, 40), st.integers(1, 200), st.randoms())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_position_does_not_depend_on_its_neighbours(
    order: Order, task: int, general: int, random: object
) -> None:
    total = task + general
    whole = slots(task, total, order)
    some = np.array(random.sample(range(total), max(1, total // 3)))  # type: ignore[attr-defined]
    assert mix(some, task, total, order, 7).tolist() == whole[some].tolist()


@pytest.mark.parametrize(
    ("order", "pattern"),
    [("general_then_task", "g" * 90 + "T" * 10), ("task_then_general", "T" * 10 + "g" * 90)],
)
def test_sequential_orders_have_one_border(order: Order, pattern: str) -> None:
    assert "".join("T" if slot < 10 else "g" for slot in slots(10, 100, order)) == pattern


def test_late_mix_begins_with_half_of_the_general_slots() -> None:
    is_task = slots(10, 100, "late_mix") < 10
    assert not is_task[:45].any()
    assert is_task[45:].sum() == 10
    assert (np.diff(np.flatnonzero(is_task)) > 1).any(), "mixed, not one block"


def test_spread_has_one_task_slot_in_every_stretch_and_random_has_not() -> None:
    def counts(order: Order) -> set[int]:
        return {int(part.sum()) for part in (slots(50, 1000, order) < 50).reshape(50, 20)}

    assert counts("spread") == {1}
    assert counts("random") != {1}


def test_spread_is_no_periodic_mix() -> None:
    gaps = np.diff(np.flatnonzero(slots(50, 1000, "spread") < 50))
    assert gaps.max() < 40
    assert len(set(gaps.tolist())) > 10


def spread(task: int, total: int, key: int, cycles: int = 3) -> np.ndarray:
    """Return where the task slots of some cycles in a row are."""
    found = [
        np.flatnonzero(slots(task, total, "spread", derive_key(key, cycle)) < task) + cycle * total
        for cycle in range(cycles)
    ]
    return np.concatenate(found)


@given(st.integers(1, 60), st.integers(1, 400), st.integers(0, 2**64 - 1))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_spread_never_has_a_gap_of_two_stretches_nor_three_task_slots_in_a_row(
    task: int, general: int, key: int
) -> None:
    total = task + general
    where = spread(task, total, key)
    assert np.diff(where).max() < 2 * total / task
    if general >= task:
        assert (where[2:] - where[:-2]).min() > 2


def test_random_has_gaps_that_spread_has_not() -> None:
    where = np.flatnonzero(slots(50, 1000, "random") < 50)
    assert np.diff(where).max() >= 2 * 1000 / 50


def is_uniform(offsets: np.ndarray, width: int) -> bool:
    """Say whether chi-square of offsets in 0..width-1 is within four standard deviations."""
    expected = len(offsets) / width
    chi = float(((np.bincount(offsets, minlength=width) - expected) ** 2).sum() / expected)
    return abs(chi - (width - 1)) < 4 * (2 * (width - 1)) ** 0.5


def test_spread_puts_a_task_slot_anywhere_in_its_stretch() -> None:
    where = np.stack([spread(50, 1000, key, cycles=1) for key in range(60)])
    offsets = where - 20 * np.arange(50)
    assert is_uniform(offsets.ravel(), 20)
    neighbours = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in offsets]
    assert abs(np.mean(neighbours) + 1 / 50) * (60 * 49) ** 0.5 < 4
    assert not is_uniform(np.tile(10, 3000), 20), "a periodic mix"
    assert not is_uniform(np.tile(np.arange(10, 20), 300), 20), "a mix that avoids one half"


@pytest.mark.parametrize("order", ORDERS)
def test_the_plan_has_the_same_counts_in_every_order(order: Order) -> None:
    mixture = Mixture(task_share=0.1, task_passes=4, order=order)
    plan = resolve_plan(mixture, {"t": 10}, {"g": (500, None)}, seed=1)
    at = plan.at(range(plan.cycle))
    assert plan.cycle == 400
    assert np.bincount(at.rows[at.sources == 0]).tolist() == [4] * 10
    general = at.rows[at.sources == 1]
    assert len(set(general.tolist())) == len(general) == 360
