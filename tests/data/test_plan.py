"""The plan: exact counts, every task row E times a cycle, and an order that has no pattern."""

import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data.permutation import ALGORITHM
from tell_lightning.data.plan import Plan, PlanError, Source, check_supply, draw, resolve_plan
from tell_lightning.data.settings import Mixture

Flags = np.ndarray[Any, np.dtype[np.bool_]]
RunsZ = Callable[[Flags], float]
fixed = settings(derandomize=True, max_examples=60)


def mix(**changes: Any) -> Mixture:
    return Mixture(**{"task_share": 0.1, **changes})


def slots(plan: Plan, begin: int, end: int) -> list[tuple[str, int]]:
    return [(plan.sources[source].name, row) for _, source, row in plan.at(range(begin, end))]


def counts(plan: Plan) -> dict[str, int]:
    return {source.name: source.slots for source in plan.sources}


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw any plan: up to three tasks, up to three general sources, all arms."""
    tasks = {f"t{n}": draw(st.integers(1, 40)) for n in range(draw(st.integers(1, 3)))}
    weighted = draw(st.booleans())
    general = {
        f"g{n}": (draw(st.integers(1, 90)), draw(st.floats(0.5, 2)) if weighted else None)
        for n in range(draw(st.integers(1, 3)))
    }
    by_share = draw(st.booleans())
    mixture = Mixture(
        arm=draw(st.sampled_from(["tell", "sft", "general_only"])),
        task_share=draw(st.floats(0.02, 0.25)) if by_share else None,
        task_passes=None if by_share else draw(st.integers(1, 4)),
    )
    try:
        return resolve_plan(mixture, tasks, general, seed=draw(st.integers(0, 2**64)))
    except PlanError as error:
        if "gets none of the" not in str(error):  # a source so small that it gets no slot
            raise
        return resolve_plan(Mixture(arm="sft"), tasks, {}, seed=0)


# Counts


@fixed
@given(plans(), st.integers(0, 5))
def test_each_cycle_holds_exactly_the_counts_and_each_task_row_e_times(
    plan: Plan, cycle: int
) -> None:
    seen = Counter(slots(plan, cycle * plan.cycle, (cycle + 1) * plan.cycle))
    by_source = Counter({source.name: 0 for source in plan.sources})
    for (name, _), times in seen.items():
        by_source[name] += times
    assert by_source == counts(plan)
    for source in plan.sources:
        if source.kind == "task":
            passes = source.slots // source.rows
            assert all(seen[source.name, row] == passes for row in range(source.rows))


@fixed
@given(plans())
def test_general_rows_are_distinct_until_the_source_is_exhausted(plan: Plan) -> None:
    for source in plan.sources:
        if source.kind != "general":
            continue
        whole = source.rows // source.slots
        cycles = max(1, whole) + 2
        uses = [row for name, row in slots(plan, 0, cycles * plan.cycle) if name == source.name]
        assert len(set(uses[: whole * source.slots])) == whole * source.slots
        times = Counter(uses).values()
        assert max(times) - (min(times) if len(times) == source.rows else 0) <= 1


def test_a_source_smaller_than_its_slots_is_used_evenly() -> None:
    plan = Plan(0, (Source("t", "task", 3, 3), Source("g", "general", 10, 35)))
    times = Counter(row for name, row in slots(plan, 0, plan.cycle) if name == "g")
    assert sorted(times.values()) == [3] * 5 + [4] * 5


@fixed
@given(st.floats(0.001, 0.95), st.integers(1, 5000))
def test_the_share_is_met_to_within_half_a_slot(share: float, rows: int) -> None:
    plan = resolve_plan(mix(task_share=share), {"t": rows}, {"g": (10**9, None)}, seed=0)
    assert counts(plan)["t"] == rows
    wanted = rows * (1 - share) / share
    assert abs(counts(plan)["g"] - wanted) <= 0.5 or counts(plan)["g"] == 1
    assert plan.task_share == rows / plan.cycle


def test_general_slots_are_split_by_weight_with_the_largest_remainders() -> None:
    def split(share: float, general: Mapping[str, tuple[int, float | None]]) -> dict[str, int]:
        plan = resolve_plan(mix(task_share=share), {"t": 10}, general, seed=0)
        return {name: count for name, count in counts(plan).items() if name != "t"}

    # 10 general slots: 3.33 each, the remainder by name; then 5.45, 3.64, 0.91; then by rows.
    assert split(0.5, {"a": (99, 1), "b": (99, 1), "c": (99, 1)}) == {"a": 4, "b": 3, "c": 3}
    assert split(0.5, {"a": (99, 6), "b": (99, 4), "c": (99, 1)}) == {"a": 5, "b": 4, "c": 1}
    assert split(0.5, {"a": (300, None), "b": (100, None)}) == {"a": 8, "b": 2}
    assert split(0.1, {"a": (300, None), "b": (100, None)}) == {"a": 68, "b": 22}


@fixed
@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0.1, 10)), min_size=1, max_size=5))
def test_weighted_slots_are_within_one_of_the_exact_share(
    general: list[tuple[int, float]],
) -> None:
    named = {f"g{n}": pair for n, pair in enumerate(general)}
    plan = resolve_plan(mix(task_share=0.01), {"t": 20}, named, seed=0)
    total, weights = plan.cycle - 20, sum(weight for _, weight in general)
    for source in plan.sources[1:]:
        assert abs(source.slots - total * named[source.name][1] / weights) < 1


@fixed
@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(0.5, 2)), min_size=1, max_size=4),
    st.integers(1, 5),
)
def test_task_passes_make_a_cycle_of_one_pass_over_the_general_rows(
    general: list[tuple[int, float]], passes: int
) -> None:
    named = {f"g{n}": pair for n, pair in enumerate(general)}
    mixture = mix(task_share=None, task_passes=passes)
    try:
        plan = resolve_plan(mixture, {"s": 3, "t": 4}, named, seed=0)
    except PlanError as error:
        if "gets none of the" not in str(error):
            raise
        return
    assert counts(plan)["s"] == 3 * passes
    assert counts(plan)["t"] == 4 * passes
    general_sources = plan.sources[2:]
    assert all(source.slots <= source.rows for source in general_sources)
    # One slot more would need a row twice: some source is within rounding of its rows.
    assert any(source.rows - source.slots <= 2 for source in general_sources)


def test_task_passes_without_weights_use_every_general_row_once() -> None:
    mixture = mix(task_share=None, task_passes=2)
    plan = resolve_plan(mixture, {"t": 5}, {"a": (30, None), "b": (7, None)}, seed=1)
    assert counts(plan) == {"t": 10, "a": 30, "b": 7}
    seen = Counter(slots(plan, 0, plan.cycle))
    assert set(seen.values()) == {1, 2}
    assert len(seen) == 5 + 30 + 7


def test_sft_shows_every_example_once_a_pass() -> None:
    plan = resolve_plan(mix(arm="sft"), {"s": 3, "t": 4}, {"g": (50, None)}, seed=1)
    assert plan.task_share == 1
    for number in range(3):
        one = slots(plan, 7 * number, 7 * number + 7)
        assert sorted(one) == [("s", n) for n in range(3)] + [("t", n) for n in range(4)]


def test_general_only_shows_no_task_row() -> None:
    plan = resolve_plan(mix(arm="general_only"), {"t": 4}, {"g": (50, None)}, seed=1)
    assert plan.task_share == 0
    assert sorted(slots(plan, 0, 50)) == [("g", n) for n in range(50)]


# Order


@fixed
@given(plans(), st.integers(0, 300), st.lists(st.integers(1, 40), max_size=12))
def test_any_partition_into_blocks_gives_the_same_order(
    plan: Plan, begin: int, sizes: list[int]
) -> None:
    edges = np.cumsum([begin, *sizes]).tolist()
    blocks = [slots(plan, a, b) for a, b in pairwise(edges)]
    assert [slot for block in blocks for slot in block] == slots(plan, begin, edges[-1])


def test_positions_may_be_asked_in_any_order() -> None:
    plan = resolve_plan(mix(), {"t": 5}, {"g": (100, None)}, seed=3)
    whole = slots(plan, 0, 120)
    asked = np.array([110, 3, 60, 3, 0])
    found = plan.at(asked)
    assert found.positions.tolist() == asked.tolist()
    assert [(plan.sources[s].name, r) for _, s, r in found] == [whole[n] for n in asked]


def test_cycles_seeds_and_sources_have_orders_of_their_own() -> None:
    def order(seed: int, begin: int = 0) -> list[tuple[str, int]]:
        plan = resolve_plan(mix(), {"s": 50, "t": 50}, {"g": (900, None)}, seed=seed)
        return slots(plan, begin, begin + plan.cycle)

    first = order(1)
    assert order(1) == first
    assert order(2) != first
    assert order(1, 1000) != first
    rows = {name: [row for n, row in first if n == name] for name in "st"}
    assert rows["s"] != rows["t"]


def test_the_order_is_frozen() -> None:
    # With the algorithm's name: a run of this version can always be repeated.
    plan = resolve_plan(mix(task_share=0.25), {"t": 3}, {"g": (100, None)}, seed=42)
    assert plan.describe() == {
        "algorithm": ALGORITHM,
        "order": "random",
        "order_seed": 42,
        "cycle": 12,
        "task_share": 0.25,
        "sources": [
            {"name": "t", "kind": "task", "rows": 3, "slots": 3},
            {"name": "g", "kind": "general", "rows": 100, "slots": 9},
        ],
    }
    order = " ".join(f"{name}{row}" for name, row in slots(plan, 0, 14))
    assert order == "g93 t1 g6 g87 g74 g26 g46 g47 g36 t2 t0 g71 t0 g83"


def test_a_billion_rows_need_no_memory() -> None:
    general = {"g": (10**9, None)}
    plan = resolve_plan(mix(task_share=1e-4), {"t": 10**5}, general, seed=5)
    plan.at(range(10))
    tracemalloc.start()
    found = plan.at(range(5 * 10**8, 5 * 10**8 + 4096))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(found)) == 4096
    assert peak < 2**21


# Draws


@fixed
@given(st.integers(1, 9000), st.data(), st.integers(0, 2**32))
def test_draws_are_nested(pool: int, data: st.DataObject, seed: int) -> None:
    small, large = sorted(data.draw(st.tuples(st.integers(1, pool), st.integers(1, pool))))
    drawn = draw(pool, large, seed, "t").tolist()
    assert draw(pool, small, seed, "t").tolist() == drawn[:small]
    assert len(set(drawn)) == large
    assert set(drawn) <= set(range(pool))


def test_a_draw_depends_on_seed_and_task_and_none_takes_all() -> None:
    assert draw(9, None, 0, "t").tolist() == list(range(9))
    draws = {tuple(draw(1000, 20, seed, name).tolist()) for seed in (0, 1) for name in ("t", "s")}
    assert len(draws) == 4


# Errors


@pytest.mark.parametrize("count", [0, -1, 11])
def test_a_draw_larger_than_the_pool_is_refused(count: int) -> None:
    with pytest.raises(PlanError, match=r"^data\.mixture") as caught:
        draw(10, count, 0, "t")
    assert str(caught.value) == (
        "data.mixture.task_examples: must be 1 to 10, the training rows of task 't', "
        f"got {count}. Lower it, or set null for all."
    )


G: dict[str, tuple[int, float | None]] = {"g": (1000, None)}


@pytest.mark.parametrize(
    ("mixture", "tasks", "general", "text"),
    [
        (
            mix(),
            {},
            G,
            "data.tasks: arm 'tell' trains on tasks, got none with training rows. Add a task with "
            "`train`, or set data.mixture.arm: general_only.",
        ),
        (
            mix(arm="sft"),
            {},
            {},
            "data.tasks: arm 'sft' trains on tasks, got none with training rows. Add a task with "
            "`train`, or set data.mixture.arm: general_only.",
        ),
        (
            mix(),
            {"t": 5},
            {},
            "data.general: arm 'tell' mixes general rows in, got no source. Add a general source, "
            "or set data.mixture.arm: sft.",
        ),
        (
            mix(task_share=None),
            {"t": 5},
            G,
            "data.mixture: needs task_share, task_passes or both, got neither. "
            "Set task_share: 0.1.",
        ),
        (
            mix(task_share=None, task_passes=0),
            {"t": 5},
            G,
            "data.mixture.task_passes: must be at least 1, got 0. Raise it.",
        ),
        *(
            (
                mix(task_share=share),
                {"t": 5},
                G,
                f"data.mixture.task_share: must lie between 0 and 1, got {share}. For task rows "
                "alone set data.mixture.arm: sft, for none of them general_only.",
            )
            for share in (0, 1, -0.1, 1.5, float("nan"))
        ),
        (
            mix(),
            {"t": 5},
            {"g": (9, 0.0)},
            "data.general.g.weight: must be above 0, got 0.0. Remove the source, or raise its "
            "weight.",
        ),
        (
            mix(),
            {"t": 5},
            {"a": (9, 1.0), "b": (9, None)},
            "data.general: either every source has a weight or none, got some of each. Set "
            "`weight` on all of them.",
        ),
        (
            mix(task_share=0.5),
            {"t": 5},
            {"a": (999, None), "b": (9, None)},
            "data.general.b: gets none of the 5 general slots of a cycle. Raise its weight, lower "
            "data.mixture.task_share, or remove the source.",
        ),
    ],
)
def test_proportions_that_cannot_be_met_are_refused(
    mixture: Mixture,
    tasks: dict[str, int],
    general: dict[str, tuple[int, float | None]],
    text: str,
) -> None:
    with pytest.raises(PlanError, match="data") as caught:
        resolve_plan(mixture, tasks, general, seed=0)
    assert str(caught.value) == text


def test_a_run_that_would_repeat_general_rows_is_refused() -> None:
    plan = resolve_plan(mix(), {"t": 10}, {"g": (200, None)}, seed=0)
    assert plan.cycle == 100
    check_supply(plan, 200, general_repeat=False)
    text = (
        "data.general.g: 201 training examples, which is 3 cycle(s) of 90 slots of this source, "
        "need 270 distinct rows, got 200. Lower trainer.max_steps, raise data.mixture.task_share, "
        "add rows, or set data.mixture.general_repeat: true."
    )
    with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
        check_supply(plan, 201, general_repeat=False)
    check_supply(plan, 201, general_repeat=True)


@fixed
@given(plans(), st.integers(1, 400))
def test_an_accepted_run_sees_no_general_row_twice(plan: Plan, positions: int) -> None:
    try:
        check_supply(plan, positions, general_repeat=False)
    except PlanError:
        return
    kinds = {source.name: source.kind for source in plan.sources}
    seen = Counter(slots(plan, 0, positions))
    assert all(times == 1 for (name, _), times in seen.items() if kinds[name] == "general")


# Patterns. A stream is its sequence of "is a task row"; ours and the ones to reject hold the same
# number of task rows. Every z is standard normal for a random interleaving.

SEEDS, CYCLE, TASK, WINDOW = 60, 2000, 100, 50


def ours(seed: int) -> Flags:
    plan = resolve_plan(mix(task_share=TASK / CYCLE), {"t": TASK}, {"g": (10**6, None)}, seed=seed)
    assert plan.cycle == CYCLE
    return np.equal(plan.at(range(CYCLE)).sources, 0)


def periodic(seed: int) -> Flags:
    """Place a task row every so often."""
    return np.roll(np.arange(CYCLE) % (CYCLE // TASK) == 0, seed)


def buffered(seed: int) -> Flags:
    """Shuffle the sources one behind the other through a buffer, as streamed data sets do."""
    random = np.random.default_rng(seed)
    stream = [False] * (CYCLE - TASK) + [True] * TASK
    buffer, out = stream[:500], []
    for coming in stream[500:]:
        place = int(random.integers(500))
        out.append(buffer[place])
        buffer[place] = coming
    return np.array(out + random.permutation(buffer).tolist())


def alternating(seed: int) -> Flags:
    """Take from each source in turn until the smaller is empty."""
    turn = np.arange(CYCLE)
    mine: Flags = (turn % 2 == seed % 2) & (turn < 2 * TASK)
    return mine


def runs_mean(stream: Callable[[int], Flags], runs_z: RunsZ) -> float:
    return float(np.mean([runs_z(stream(seed)) for seed in range(SEEDS)]) * SEEDS**0.5)


def window_excess(stream: Callable[[int], Flags]) -> float:
    """Return z of the squared deviations of the task rows in windows from the hypergeometric."""
    mean = WINDOW * TASK / CYCLE
    variance = mean * (1 - TASK / CYCLE) * (CYCLE - WINDOW) / (CYCLE - 1)
    inside = np.array([stream(s).reshape(-1, WINDOW).sum(axis=1) for s in range(SEEDS)])
    ratio = float(((inside - mean) ** 2).mean() / variance)
    return float((ratio - 1) * (inside.size / 2) ** 0.5)


def prefix_is_likely(stream: Callable[[int], Flags], size: int = 400) -> bool:
    """Tell whether the task rows at the start are within exact hypergeometric bounds of 1e-7."""

    def tail(values: range) -> float:
        ways = sum(comb(TASK, n) * comb(CYCLE - TASK, size - n) for n in values)
        return ways / comb(CYCLE, size)

    found = [int(stream(seed)[:size].sum()) for seed in range(SEEDS)]
    return all(min(tail(range(n + 1)), tail(range(n, TASK + 1))) > 1e-7 for n in set(found))


def test_task_rows_are_mixed_like_a_random_interleaving(runs_z: RunsZ) -> None:
    assert all(int(ours(seed).sum()) == TASK for seed in range(SEEDS))
    assert abs(runs_mean(ours, runs_z)) < 4
    assert abs(window_excess(ours)) < 4
    assert prefix_is_likely(ours)


@pytest.mark.parametrize("stream", [periodic, buffered, alternating])
def test_the_checks_reject_other_ways_to_mix(stream: Callable[[int], Flags], runs_z: RunsZ) -> None:
    assert all(int(stream(seed).sum()) == TASK for seed in range(3))
    assert abs(runs_mean(stream, runs_z)) > 4
    assert abs(window_excess(stream)) > 4
    assert prefix_is_likely(stream) == (stream is periodic)


def lag_mean(orders: list[np.ndarray]) -> float:
    z = [float(np.corrcoef(rows[1:], rows[:-1])[0, 1]) * len(rows) ** 0.5 for rows in orders]
    return float(np.mean(z) * len(z) ** 0.5)


@pytest.mark.parametrize("name", ["t", "g"])
def test_the_rows_of_a_source_come_in_no_pattern(name: str) -> None:
    orders = []
    for seed in range(SEEDS):
        plan = resolve_plan(mix(task_share=0.3), {"t": 300}, {"g": (5000, None)}, seed=seed)
        orders.append(np.array([row for n, row in slots(plan, 0, plan.cycle) if n == name]))
    assert abs(lag_mean(orders)) < 4
    assert abs(lag_mean([np.sort(rows) for rows in orders])) > 4
