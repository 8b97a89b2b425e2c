"""The table of 4-bit bases measures what it says that it measures."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "experiments/bench/quantized.py"
SPEC = importlib.util.spec_from_file_location("bench_quantized", PATH)
assert SPEC is not None
assert SPEC.loader is not None
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)


@pytest.mark.long
def test_weights_are_counted_and_the_loss_falls() -> None:
    found = {
        name: bench.measure("microworld", name, rows=2, steps=2) for name in ("float32", "bfloat16")
    }
    assert found["float32"]["weights_bytes"] == 2 * found["bfloat16"]["weights_bytes"]
    for each in found.values():
        first, *_, last = each["losses"]
        assert last < first
        assert len(each["losses"]) == 3
        assert each["peak_bytes"] > 0
    heading, _, *lines = bench.table(found).splitlines()
    assert all(line.count("|") == heading.count("|") for line in lines)
