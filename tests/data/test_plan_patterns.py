"""The plan mixes like chance does, and the checks reject ways to mix that do not.

A stream is its sequence of "is one of the few"; ours and the ones to reject hold the same number of
them. Each z is standard normal for a random order; all seeds are fixed, and the bounds are those of
four standard deviations.
"""

from collections.abc import Callable
from functools import cache
from math import comb
from typing import Any

import numpy as np
import pytest

from tell_lightning.data.permutation import Indices
from tell_lightning.data.plan import Plan, resolve_plan
from tell_lightning.data.settings import Mixture

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Stream = Callable[[int], Flags]
RunsZ = Callable[[Flags], float]

SEEDS, CYCLE, FEW = 60, 2000, 100
FOUR_SIGMA = 6.3e-5
"""Probability of four standard deviations or more, on either side."""


# Ways to mix


def task_rows(seed: int) -> Flags:
    """Say where the task's rows are."""
    general: dict[str, tuple[int, float | None]] = {"g": (10**6, None)}
    plan = resolve_plan(Mixture(task_share=FEW / CYCLE), {"t": FEW}, general, seed=seed)
    return is_from(plan, "t")


def light_source(seed: int) -> Flags:
    """Say where the rows of a general source of little weight are, beside two tasks."""
    general: dict[str, tuple[int, float | None]] = {"a": (10**6, 17.0), "b": (10**6, 1.0)}
    plan = resolve_plan(Mixture(task_share=0.1), {"s": 150, "t": 50}, general, seed=seed)
    return is_from(plan, "b")


def is_from(plan: Plan, name: str) -> Flags:
    assert plan.cycle == CYCLE
    names = [source.name for source in plan.sources]
    return np.equal(plan.at(range(CYCLE)).sources, names.index(name))


def periodic(seed: int) -> Flags:
    """Place one every so often."""
    return np.roll(np.arange(CYCLE) % (CYCLE // FEW) == 0, seed)


def alternating(seed: int) -> Flags:
    """Take from each source in turn until the smaller is empty."""
    turn = np.arange(CYCLE)
    mine: Flags = (turn % 2 == seed % 2) & (turn < 2 * FEW)
    return mine


def sliding(stream: Indices, size: int, seed: int) -> Indices:
    """Shuffle through a full buffer, each one that comes in sending one out."""
    random = np.random.default_rng(seed)
    buffer, out = stream[:size].tolist(), []
    for coming in stream[size:].tolist():
        place = int(random.integers(size))
        out.append(buffer[place])
        buffer[place] = coming
    return np.array(out + random.permutation(buffer).tolist())


def half_emitted(stream: Indices, size: int, seed: int) -> Indices:
    """Shuffle through a buffer that is filled, permuted and emptied by half, again and again."""
    random = np.random.default_rng(seed)
    buffer: list[int] = []
    out: list[int] = []
    for start in range(0, len(stream), size // 2):
        buffer = random.permutation(buffer + stream[start : start + size // 2].tolist()).tolist()
        if len(buffer) == size:
            out, buffer = out + buffer[: size // 2], buffer[size // 2 :]
    return np.array(out + buffer)


def one_behind_the_other() -> Indices:
    return np.arange(CYCLE) >= CYCLE - FEW


def through_sliding(seed: int) -> Flags:
    """Shuffle the sources, one behind the other, through a buffer."""
    return sliding(one_behind_the_other(), 500, seed)


def through_half_emitted(seed: int) -> Flags:
    """Shuffle the sources, one behind the other, through the other kind of buffer."""
    return half_emitted(one_behind_the_other(), 500, seed)


# Checks


def is_normal(z: list[float]) -> bool:
    """Say whether numbers that should be standard normal have its mean and its mean square."""
    mean = np.mean(z) * len(z) ** 0.5
    square = (np.mean(np.square(z)) - 1) * (len(z) / 2) ** 0.5
    return bool(abs(mean) < 4 and abs(square) < 4)


def chance(size: int, found: range) -> float:
    """Return the probability that so many of the few are among `size` positions."""
    ways = sum(comb(FEW, n) * comb(CYCLE - FEW, size - n) for n in found if n <= size)
    return ways / comb(CYCLE, size)


@cache
def most(size: int, probability: float) -> int:
    """Return the largest count in a window that is not less likely to be reached."""
    return max(
        n for n in range(min(size, FEW) + 1) if chance(size, range(n, FEW + 1)) > probability
    )


def runs(stream: Stream, runs_z: RunsZ) -> bool:
    """Wald and Wolfowitz: neither clumped nor alternating."""
    return is_normal([runs_z(stream(seed)) for seed in range(SEEDS)])


def windows(stream: Stream, _: RunsZ) -> bool:
    """Counts in windows vary as the hypergeometric distribution says."""
    size = 50
    mean = size * FEW / CYCLE
    variance = mean * (1 - FEW / CYCLE) * (CYCLE - size) / (CYCLE - 1)
    inside = np.array([stream(seed).reshape(-1, size).sum(axis=1) for seed in range(SEEDS)])
    ratio = ((inside - mean) ** 2).mean() / variance
    return bool(abs(ratio - 1) * (inside.size / 2) ** 0.5 < 4)


def prefixes(stream: Stream, _: RunsZ) -> bool:
    """No beginning holds more or less than is likely, by exact bounds over all of them."""
    sizes = (50, 400, 1000)
    rare = FOUR_SIGMA / 2 / SEEDS / len(sizes)
    found = {(size, int(stream(seed)[:size].sum())) for size in sizes for seed in range(SEEDS)}
    return all(
        min(chance(size, range(n + 1)), chance(size, range(n, FEW + 1))) > rare for size, n in found
    )


def gaps(stream: Stream, _: RunsZ) -> bool:
    """Gaps are geometric (exactly: in a finite cycle), by Kolmogorov and Smirnov."""
    found = np.concatenate(
        [np.diff(np.flatnonzero(stream(seed)), prepend=-1, append=CYCLE) for seed in range(SEEDS)]
    )
    at_least = np.array([comb(CYCLE - k, FEW) / comb(CYCLE, FEW) for k in range(CYCLE)])
    seen = np.array([(found > k).mean() for k in range(CYCLE)])
    bound = (np.log(2 / FOUR_SIGMA) / 2) ** 0.5
    return bool(np.abs(seen - at_least).max() * len(found) ** 0.5 < bound)


def crowds(stream: Stream, _: RunsZ) -> bool:
    """No window anywhere holds more than the hypergeometric quantile, after Bonferroni."""
    sizes = (10, 50, 200)
    for seed in range(SEEDS):
        before = np.concatenate([[0], np.cumsum(stream(seed))])
        for size in sizes:
            inside = before[size:] - before[:-size]
            if inside.max() > most(size, FOUR_SIGMA / (SEEDS * len(sizes) * len(inside))):
                return False
    return True


CHECKS = (runs, windows, prefixes, gaps, crowds)
OTHERS = (periodic, alternating, through_sliding, through_half_emitted)
BLIND = {(prefixes, periodic), (crowds, periodic)}
"""A periodic order has no crowd and no odd beginning."""


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("stream", [task_rows, light_source])
def test_the_few_are_mixed_as_by_chance(
    stream: Stream, check: Callable[[Stream, RunsZ], bool], runs_z: RunsZ
) -> None:
    assert all(int(stream(seed).sum()) == FEW for seed in range(SEEDS))
    assert check(stream, runs_z)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("stream", OTHERS)
def test_the_checks_reject_other_ways_to_mix(
    stream: Stream, check: Callable[[Stream, RunsZ], bool], runs_z: RunsZ
) -> None:
    assert all(int(stream(seed).sum()) == FEW for seed in range(3))
    assert check(stream, runs_z) == ((check, stream) in BLIND)


# The order of the rows of one source: `order(seed, cycle)` holds each row once.

ROWS = 600
RowOrder = Callable[[int, int], Indices]


def of_source(name: str) -> RowOrder:
    """Return the rows of a source in the order of a cycle that is one pass over each source."""
    general: dict[str, tuple[int, float | None]] = {"g": (ROWS, None)}
    mixture = Mixture(task_share=None, task_passes=1)

    def order(seed: int, cycle: int) -> Indices:
        plan = resolve_plan(mixture, {"t": ROWS}, general, seed=seed)
        found = plan.at(range(cycle * plan.cycle, (cycle + 1) * plan.cycle))
        return found.rows[found.sources == ("t", "g").index(name)]

    return order


def as_in_the_file(seed: int, cycle: int) -> Indices:
    return np.arange(ROWS)


def shuffled_once(seed: int, cycle: int) -> Indices:
    """Shuffle before the first cycle and go round in that order, as a naive interleave does."""
    return np.random.default_rng(seed).permutation(ROWS)


def the_same_for_every_seed(seed: int, cycle: int) -> Indices:
    return np.random.default_rng(cycle).permutation(ROWS)


def through_a_buffer(seed: int, cycle: int) -> Indices:
    return sliding(np.arange(ROWS), 100, 1000 * seed + cycle)


def through_the_other_buffer(seed: int, cycle: int) -> Indices:
    return half_emitted(np.arange(ROWS), 100, 1000 * seed + cycle)


def correlation(one: Indices, other: Indices) -> float:
    """Return z of the correlation of two orders of the same rows."""
    return float(np.corrcoef(one, other)[0, 1] * (len(one) - 1) ** 0.5)


def neighbours(order: RowOrder) -> bool:
    """A row says nothing about the next."""
    found = [order(seed, 0) for seed in range(SEEDS)]
    return is_normal([correlation(rows[1:], rows[:-1]) + ROWS**-0.5 for rows in found])


def cycles(order: RowOrder) -> bool:
    """A row's place in a cycle says nothing about its place in the next."""
    places = [[np.argsort(order(seed, cycle)) for cycle in (0, 1)] for seed in range(SEEDS)]
    return is_normal([correlation(*pair) for pair in places])


def seeds(order: RowOrder) -> bool:
    """A row's place says nothing about its place in the run of another seed."""
    places = [np.argsort(order(seed, 0)) for seed in range(2 * SEEDS)]
    return is_normal([correlation(*places[n : n + 2]) for n in range(0, 2 * SEEDS, 2)])


ROW_CHECKS = (neighbours, cycles, seeds)


@pytest.mark.parametrize("check", ROW_CHECKS)
@pytest.mark.parametrize("name", ["t", "g"])
def test_the_rows_of_a_source_come_in_no_pattern(
    name: str, check: Callable[[RowOrder], bool]
) -> None:
    order = of_source(name)
    assert np.sort(order(3, 5)).tolist() == list(range(ROWS))
    assert check(order)


@pytest.mark.parametrize(
    ("order", "caught_by"),
    [
        (as_in_the_file, set(ROW_CHECKS)),
        (shuffled_once, {cycles}),
        (the_same_for_every_seed, {seeds}),
        (through_a_buffer, set(ROW_CHECKS)),
        (through_the_other_buffer, set(ROW_CHECKS)),
    ],
)
def test_the_checks_reject_other_orders_of_the_rows(
    order: RowOrder, caught_by: set[Callable[[RowOrder], bool]]
) -> None:
    assert np.sort(order(3, 5)).tolist() == list(range(ROWS))
    assert not any(check(order) for check in caught_by)


# What changes from cycle to cycle, and from pass to pass: `flags(seed, cycle)` says which positions
# hold a task row, or which rows of a general source a cycle holds, a third of them.


def places_of_task_rows(seed: int, cycle: int) -> Flags:
    general: dict[str, tuple[int, float | None]] = {"g": (10**6, None)}
    plan = resolve_plan(Mixture(task_share=0.25), {"t": 100}, general, seed=seed)
    return plan.at(range(cycle * plan.cycle, (cycle + 1) * plan.cycle)).sources == 0


def rows_of_a_third_of_a_pass(seed: int, cycle: int) -> Flags:
    """Say which rows the first cycle of a pass holds; here `cycle` counts passes."""
    general: dict[str, tuple[int, float | None]] = {"g": (ROWS, None)}
    plan = resolve_plan(Mixture(task_share=1 / 3), {"t": ROWS // 6}, general, seed=seed)
    assert 3 * (plan.cycle - plan.task_slots) == ROWS
    found = plan.at(range(3 * cycle * plan.cycle, (3 * cycle + 1) * plan.cycle))
    held = np.zeros(ROWS, dtype=np.bool_)
    held[found.rows[found.sources == 1]] = True
    assert held.sum() == ROWS // 3
    return held


def the_same_in_every_cycle(seed: int, cycle: int) -> Flags:
    return shuffled_once(seed, cycle) < ROWS // 3


def the_same_in_every_seed(seed: int, cycle: int) -> Flags:
    return the_same_for_every_seed(seed, cycle) < ROWS // 3


def changes_with(flags: Callable[[int, int], Flags], *, seed: bool) -> bool:
    """Say whether the flags of two seeds, or of two cycles, are not correlated."""
    pairs = [(flags(n, 0), flags(n + seed, 1 - seed)) for n in range(0, 2 * SEEDS, 2)]
    return is_normal([correlation(*pair) for pair in pairs])


@pytest.mark.parametrize("flags", [places_of_task_rows, rows_of_a_third_of_a_pass])
def test_cycles_and_seeds_are_mixed_independently(flags: Callable[[int, int], Flags]) -> None:
    assert changes_with(flags, seed=True)
    assert changes_with(flags, seed=False)


def test_the_check_rejects_mixtures_that_stay_the_same() -> None:
    assert not changes_with(the_same_in_every_cycle, seed=False)
    assert not changes_with(the_same_in_every_seed, seed=True)
