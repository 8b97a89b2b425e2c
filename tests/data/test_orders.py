from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data.orders import mix
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


@pytest.mark.parametrize("order", ORDERS)
def test_the_plan_has_the_same_counts_in_every_order(order: Order) -> None:
    mixture = Mixture(task_share=0.1, task_passes=4, order=order)
    plan = resolve_plan(mixture, {"t": 10}, {"g": (500, None)}, seed=1)
    at = plan.at(range(plan.cycle))
    assert plan.cycle == 400
    assert np.bincount(at.rows[at.sources == 0]).tolist() == [4] * 10
    general = at.rows[at.sources == 1]
    assert len(set(general.tolist())) == len(general) == 360
