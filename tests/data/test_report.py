"""What a plan comes to, against counting slot by slot."""

import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data import report
from tell_lightning.data.permutation import permute
from tell_lightning.data.plan import Plan, PlanSource, Slots
from tell_lightning.data.report import realise, table
from tell_lightning.data.tokens import Lengths

pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    """Look positions up in blocks so small that their borders matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tell_lightning.data.plan.BLOCK", 7)
        yield


def lengths_of(plan: Plan) -> list[Lengths]:
    made = []
    for index, source in enumerate(plan.sources):
        tokens = permute(range(source.rows), source.rows, index) + 5
        made.append(Lengths(tokens, tokens // 2))
    return made


def share_of(
    kind: str, some: list[tuple[int, int]], of: list[tuple[int, int]], lengths: Sequence[Lengths]
) -> float:
    def total(slots: list[tuple[int, int]]) -> int:
        return sum(int(getattr(lengths[source], kind)[row]) for source, row in slots)

    return total(some) / total(of)


def brute_force(plan: Plan, positions: int, lengths: Sequence[Lengths]) -> dict[str, object]:
    slots = [(source, row) for _, source, row in plan.at(range(positions))]
    sources: dict[str, dict[str, Any]] = {}
    for index, source in enumerate(plan.sources):
        rows = [row for number, row in slots if number == index]
        sources[source.name] = {
            "kind": source.kind,
            "rows": source.rows,
            "rows_seen": len(set(rows)),
            "examples": len(rows),
            "passes": len(rows) / source.rows,
            "tokens": sum(int(lengths[index].tokens[row]) for row in rows),
            "label_tokens": sum(int(lengths[index].label_tokens[row]) for row in rows),
        }
    for key in ("examples", "tokens", "label_tokens"):
        total = sum(values[key] for values in sources.values())
        for values in sources.values():
            values[f"{key}_share"] = values[key] / total
    task_slots = [slot for slot in slots if plan.sources[slot[0]].kind == "task"]
    gap = longest = 0
    for index, _ in slots:
        gap = 0 if plan.sources[index].kind == "task" else gap + 1
        longest = max(longest, gap)
    return {
        "positions": positions,
        "complete": True,
        "task_share": {
            "examples": len(task_slots) / positions,
            "tokens": share_of("tokens", task_slots, slots, lengths),
            "label_tokens": share_of("label_tokens", task_slots, slots, lengths),
        },
        "sources": sources,
        "longest_gap": longest,
    }


@settings(derandomize=True, max_examples=80)
@given(
    st.integers(0, 99),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), max_size=2),
    st.integers(1, 150),
)
def test_counts_are_those_of_counting_slot_by_slot(
    seed: int,
    tasks: list[tuple[int, int]],
    general: list[tuple[int, int]],
    positions: int,
) -> None:
    pools = [PlanSource(f"t{n}", "task", *pair) for n, pair in enumerate(tasks)]
    pools += [PlanSource(f"g{n}", "general", *pair) for n, pair in enumerate(general)]
    plan = Plan(seed, tuple(pools))
    if plan.cycle == 0:
        return
    lengths = lengths_of(plan)
    assert realise(plan, plan.blocks(positions), lengths) == brute_force(plan, positions, lengths)


def gap_of(kinds: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return the longest gap of a stream written as g and T."""
    plan = Plan(0, (PlanSource("t", "task", 1, 1), PlanSource("g", "general", 1, 1)))

    def written(self: Plan, positions: range) -> object:
        sources = np.array([0 if kinds[n] == "T" else 1 for n in positions], dtype=np.int64)
        return Slots(np.asarray(positions, dtype=np.int64), sources, sources * 0)

    monkeypatch.setattr(Plan, "at", written)
    return realise(plan, plan.blocks(len(kinds)), lengths_of(plan))["longest_gap"]


@pytest.mark.parametrize(
    ("kinds", "gap"),
    [
        ("T", 0),
        ("g", 1),
        ("TTTT", 0),
        ("gggT", 3),
        ("Tggg", 3),
        ("gTggTg", 2),
        ("ggTgTggg", 3),
        ("T" + "g" * 20 + "T", 20),
        ("g" * 16, 16),
    ],
)
def test_the_longest_gap_counts_both_ends(
    kinds: str, gap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gap_of(kinds, monkeypatch) == gap


def test_a_long_run_is_counted_from_its_start_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST", 25)
    monkeypatch.setattr("tell_lightning.data.plan.BLOCK", 10)
    plan = Plan(3, (PlanSource("t", "task", 2, 2), PlanSource("g", "general", 50, 8)))
    found = realise(plan, plan.blocks(10**12), lengths_of(plan))
    assert found == {**brute_force(plan, 30, lengths_of(plan)), "complete": False}


def test_the_table_shows_each_source_with_readable_numbers() -> None:
    plan = Plan(0, (PlanSource("t", "task", 2, 4), PlanSource("g", "general", 5000, 36)))
    lengths = [
        Lengths(np.full(source.rows, tokens), np.full(source.rows, 10))
        for source, tokens in zip(plan.sources, (3000, 1000), strict=True)
    ]
    assert table(realise(plan, plan.blocks(40), lengths)) == [
        ["source", "kind", "rows", "passes", "examples", "share", "tokens", "share", "labels"],
        ["t", "task", "2", "2.00", "4", "10.0%", "12,000", "25.0%", "40"],
        ["g", "general", "5,000", "0.01", "36", "90.0%", "36,000", "75.0%", "360"],
    ]


def test_a_repeated_source_says_its_passes() -> None:
    plan = Plan(0, (PlanSource("t", "task", 2, 4), PlanSource("g", "general", 8, 36)))
    found = realise(plan, plan.blocks(80), lengths_of(plan))["sources"]
    assert isinstance(found, dict)
    assert {name: values["passes"] for name, values in found.items()} == {"t": 4, "g": 9}
    assert {name: values["rows_seen"] for name, values in found.items()} == {"t": 2, "g": 8}


def test_mapped_lengths_of_millions_of_rows_are_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tell_lightning.data.plan.BLOCK", 4096)
    rows = 5_000_000
    mapped = np.lib.format.open_memmap(
        tmp_path / "lengths.npy", mode="w+", dtype=np.int32, shape=(2, rows)
    )
    mapped[:, ::1000] = 3
    plan = Plan(0, (PlanSource("t", "task", 2, 2), PlanSource("g", "general", rows, 18)))
    lengths = [Lengths(np.full(2, 5), np.full(2, 1)), Lengths(*mapped)]
    tracemalloc.start()
    found = realise(plan, plan.blocks(20_000), lengths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["positions"] == 20_000
    assert peak < rows + 2**21  # a byte a row; one copy of the lengths would be four
