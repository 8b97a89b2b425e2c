"""The plan: exact counts, every task row E times a cycle, one order for ever."""

import tracemalloc
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from time import process_time
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import Says, says

from tell_lightning.data.permutation import ALGORITHM
from tell_lightning.data.plan import (
    Plan,
    PlanError,
    PlanSource,
    check_supply,
    draw,
    resolve_plan,
    steps_for,
)
from tell_lightning.data.settings import Mixture, Order

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
        assert {row for name, row in seen if name == source.name} <= set(range(source.rows))
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
    plan = Plan(0, (PlanSource("t", "task", 3, 3), PlanSource("g", "general", 10, 35)))
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


# Shares in tokens


def share_in_tokens(plan: Plan, mean_tokens: Mapping[str, float]) -> float:
    tokens = {kind: 0.0 for kind in ("task", "general")}
    for source in plan.sources:
        tokens[source.kind] += source.slots * mean_tokens[source.name]
    return tokens["task"] / sum(tokens.values())


@fixed
@given(
    st.floats(0.01, 0.9),
    st.lists(st.integers(1, 400), min_size=1, max_size=60),
    st.lists(st.integers(1, 400), min_size=1, max_size=60),
    st.none() | st.integers(1, 4),
    st.integers(1, 3),
)
def test_the_share_of_tokens_is_met_over_whole_passes_to_within_half_a_slot(
    share: float, task: list[int], general: list[int], passes: int | None, whole: int
) -> None:
    tokens = {"t": np.array(task), "g": np.array(general)}
    mean = {name: float(values.mean()) for name, values in tokens.items()}
    mixture = mix(task_share=share, task_passes=passes, task_share_in="tokens")
    rows = {"g": (len(general), None)}
    plan = resolve_plan(mixture, {"t": len(task)}, rows, seed=0, mean_tokens=mean)
    assert counts(plan)["t"] == len(task) * (passes or 1)
    # So many cycles that every general row was seen equally often: no luck of the draw is left.
    cycles = whole * len(general) // np.gcd(len(general), counts(plan)["g"])
    if cycles * plan.cycle > 200_000:
        return
    found = {"t": 0, "g": 0}
    for name, row in slots(plan, 0, cycles * plan.cycle):
        found[name] += int(tokens[name][row])
    wanted = found["t"] * (1 - share) / share
    half_a_slot = cycles * mean["g"] / 2
    assert abs(found["g"] - wanted) <= half_a_slot * (1 + 1e-9) or counts(plan)["g"] == 1


@fixed
@given(
    st.floats(0.01, 0.3),
    st.lists(st.tuples(st.integers(1, 90), st.floats(1, 300)), min_size=1, max_size=3),
    st.lists(st.tuples(st.floats(0.5, 2), st.floats(1, 300)), min_size=1, max_size=4),
)
def test_several_sources_share_tokens_by_their_weights(
    share: float, task: list[tuple[int, float]], general: list[tuple[float, float]]
) -> None:
    tasks = {f"t{n}": rows for n, (rows, _) in enumerate(task)}
    sources = {f"g{n}": (10**6, weight) for n, (weight, _) in enumerate(general)}
    mean = {f"t{n}": tokens for n, (_, tokens) in enumerate(task)}
    mean |= {f"g{n}": tokens for n, (_, tokens) in enumerate(general)}
    mixture = mix(task_share=share, task_share_in="tokens")
    try:
        plan = resolve_plan(mixture, tasks, sources, seed=0, mean_tokens=mean)
    except PlanError as error:
        if "gets none of the" not in str(error):
            raise
        return
    held = [source.slots * mean[source.name] for source in plan.sources]
    wanted = sum(held[: len(task)]) * (1 - share) / share
    # Half a slot by rounding, and less than one for each source that the slots are split over.
    slack = 0.5 * max(tokens for _, tokens in general) + sum(tokens for _, tokens in general)
    assert abs(sum(held[len(task) :]) - wanted) <= slack


def test_a_share_counts_examples_unless_tokens_are_asked_for() -> None:
    mean = {"t": 300.0, "g": 100.0}
    rows: dict[str, tuple[int, float | None]] = {"g": (10**6, None)}
    by = {
        kind: resolve_plan(
            mix(task_share=0.25, task_share_in=kind), {"t": 20}, rows, seed=0, mean_tokens=mean
        )
        for kind in ("examples", "tokens")
    }
    assert counts(by["examples"]) == {"t": 20, "g": 60}
    assert counts(by["tokens"]) == {"t": 20, "g": 180}
    assert share_in_tokens(by["tokens"], mean) == 0.25
    assert share_in_tokens(by["examples"], mean) == 0.5


def test_the_plan_depends_on_the_lengths_through_its_counts_alone() -> None:
    def plan(length: float) -> Plan:
        mixture = mix(task_share=0.25, task_share_in="tokens")
        mean = {"t": length, "g": 100.0}
        return resolve_plan(mixture, {"t": 20}, {"g": (10**6, None)}, seed=3, mean_tokens=mean)

    in_examples = resolve_plan(mix(task_share=0.1), {"t": 20}, {"g": (10**6, None)}, seed=3)
    assert plan(300).describe() == plan(300.1).describe() == in_examples.describe()
    assert plan(301) != plan(300)


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


GOLDEN: dict[Order, tuple[str, str]] = {
    "random": (
        "s1 a4813 b2 b4 b0 s0 t0 a6346 b3 b1 s1 a3940 a8428 a1029 t0 s0 a2180 a4905 a3962 a2271 "
        "a1554 a5340 a4268 t0",
        "a1669 b4 t0 s1 a1285 a8170",
    ),
    "spread": (
        "a4813 s1 b1 a6346 s0 a3962 b4 b0 t0 a8428 b2 a2271 s1 b3 t0 a1029 a3940 a2180 s0 a4905 "
        "a1081 b1 s1 a6911",
        "a1971 b4 t0 a8170 s0 b3",
    ),
    "general_then_task": (
        "a4813 b1 a6346 a3962 b4 b0 a8428 b2 a2271 b3 a1029 a3940 a2180 a4905 s1 s0 t0 s1 t0 s0 "
        "a1081 b1 a6911 b0",
        "a1971 b4 a8170 b3 a2253 b2",
    ),
    "task_then_general": (
        "s1 s0 t0 s1 t0 s0 a4813 b1 a6346 a3962 b4 b0 a8428 b2 a2271 b3 a1029 a3940 a2180 a4905 "
        "s1 t0 s1 s0",
        "t0 s0 s1 s0 s1 t0",
    ),
    "late_mix": (
        "a4813 b1 a6346 a3962 b4 b0 a8428 s0 a2271 a2180 s1 t0 a3940 b3 a1029 b2 t0 s0 s1 a4905 "
        "a1081 b1 a6911 b0",
        "a1971 b4 a8170 b3 a2253 b2",
    ),
}


@pytest.mark.parametrize("order", get_args(Order))
def test_every_order_of_several_tasks_and_weighted_sources_is_frozen(order: Order) -> None:
    mixture = Mixture(task_share=0.3, task_passes=2, order=order)
    general: dict[str, tuple[int, float | None]] = {"a": (9000, 2.0), "b": (5, 1.0)}
    plan = resolve_plan(mixture, {"s": 2, "t": 1}, general, seed=7)
    assert plan.cycle == 20
    for begin, written in zip((0, 10**15), GOLDEN[order], strict=True):
        found = slots(plan, begin, begin + len(written.split()))
        assert " ".join(f"{name}{row}" for name, row in found) == written


def test_a_billion_rows_need_no_memory_and_no_time() -> None:
    def look() -> None:
        plan = resolve_plan(mix(task_share=1e-4), {"t": 10**5}, {"g": (10**9, None)}, seed=5)
        plan.describe()
        check_supply(plan, 9 * 10**8, general_repeat=False)
        assert len(set(plan.at(range(5 * 10**8, 5 * 10**8 + 4096)))) == 4096

    look()
    tracemalloc.start()
    look()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21
    plan = resolve_plan(mix(task_share=1e-4), {"t": 10**5}, {"g": (10**9, None)}, seed=5)
    seconds = []
    for begin in range(0, 20 * 4096, 4096):
        started = process_time()
        plan.at(range(begin, begin + 4096))
        seconds.append(process_time() - started)
    assert min(seconds) < 0.01


# The stop


@fixed
@given(plans(), st.floats(0.001, 50))
def test_cycles_are_so_many_positions(plan: Plan, cycles: float) -> None:
    assert abs(plan.stop(cycles) - cycles * plan.cycle) <= 0.5 or plan.stop(cycles) == 1
    assert plan.stop(3) == 3 * plan.cycle


@pytest.mark.parametrize("cycles", [0, -1.5, float("nan"), float("inf")])
def test_cycles_that_are_no_length_are_refused(cycles: float) -> None:
    plan = Plan(0, (PlanSource("t", "task", 3, 3),))
    text = says("data.mixture.cycles", rule="0", got=str(cycles), cure="1")
    with pytest.raises(PlanError, check=text):
        plan.stop(cycles)


@given(st.integers(1, 10**12), st.integers(1, 10**4))
def test_steps_are_the_fewest_that_take_every_position(positions: int, batch: int) -> None:
    steps = steps_for(positions, batch)
    assert (steps - 1) * batch < positions <= steps * batch


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
    assert str(caught.value) == says(
        "data.mixture.task_examples", rule=["1", "10", "'t'"], got=str(count), cure="null"
    )


G: dict[str, tuple[int, float | None]] = {"g": (1000, None)}


@pytest.mark.parametrize(
    ("mixture", "tasks", "general", "text"),
    [
        (
            mix(),
            {},
            G,
            says(
                "data.tasks",
                rule="'tell'",
                got="none",
                cure=["`train`", "data.mixture.arm: general_only"],
            ),
        ),
        (
            mix(arm="sft"),
            {},
            {},
            says(
                "data.tasks",
                rule="'sft'",
                got="none",
                cure=["`train`", "data.mixture.arm: general_only"],
            ),
        ),
        (
            mix(),
            {"t": 5},
            {},
            says("data.general", rule="'tell'", cure="data.mixture.arm"),
        ),
        (
            mix(task_share=None),
            {"t": 5},
            G,
            says(
                "data.mixture",
                rule=["task_share", "task_passes"],
                got="neither",
                cure=["task_share: 0.1"],
            ),
        ),
        (
            mix(task_share=None, task_passes=0),
            {"t": 5},
            G,
            says("data.mixture.task_passes", rule="1", got="0"),
        ),
        *(
            (
                mix(task_share=share),
                {"t": 5},
                G,
                says(
                    "data.mixture.task_share",
                    rule=["0", "1"],
                    got=str(share),
                    cure=["data.mixture.arm: sft", "general_only"],
                ),
            )
            for share in (0, 1, -0.1, 1.5, float("nan"))
        ),
        (
            mix(),
            {"t": 5},
            {"g": (9, 0.0)},
            says("data.general.g.weight", rule="0", got="0.0"),
        ),
        (
            mix(),
            {"t": 5},
            {"a": (9, 1.0), "b": (9, None)},
            says("data.general", rule="none", cure="`weight`"),
        ),
        *(
            (
                mixture,
                {"t": 5},
                {"g": (9, None)},
                says("data.mixture", rule="1e+15", got=slots, cure=["task_share", "task_passes"]),
            )
            for mixture, slots in (
                (mix(task_share=1e-300), "5e+300"),
                (mix(task_share=None, task_passes=10**20), "5e+20"),
            )
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
    text: Says,
) -> None:
    with pytest.raises(PlanError, match="data") as caught:
        resolve_plan(mixture, tasks, general, seed=0)
    assert str(caught.value) == text


def test_a_run_that_would_repeat_general_rows_is_refused() -> None:
    plan = resolve_plan(mix(), {"t": 10}, {"g": (200, None)}, seed=0)
    assert plan.cycle == 100
    check_supply(plan, 200, general_repeat=False)
    text = says(
        "data.general.g",
        rule=["201", "3", "90", "270"],
        got="200",
        cure=[
            "trainer.max_steps",
            "data.mixture.cycles",
            "data.mixture.task_share",
            "data.mixture.general_repeat: true",
        ],
    )
    with pytest.raises(PlanError, check=text):
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


@fixed
@given(plans(), st.integers(1, 6))
def test_whole_cycles_are_accepted_exactly_where_no_row_is_seen_twice(
    plan: Plan, cycles: int
) -> None:
    kinds = {source.name: source.kind for source in plan.sources}
    seen = Counter(slots(plan, 0, plan.stop(cycles)))
    twice = any(times > 1 for (name, _), times in seen.items() if kinds[name] == "general")
    try:
        check_supply(plan, plan.stop(cycles), general_repeat=False)
    except PlanError:
        assert twice
    else:
        assert not twice


def test_a_cycle_of_one_pass_over_the_general_rows_needs_no_second() -> None:
    mixture = mix(task_share=None, task_passes=3)
    plan = resolve_plan(mixture, {"t": 5}, {"a": (30, None), "b": (7, None)}, seed=1)
    check_supply(plan, plan.stop(1), general_repeat=False)
    with pytest.raises(PlanError, match=r"^data\.general\.a: 53 training"):
        check_supply(plan, plan.stop(1) + 1, general_repeat=False)
