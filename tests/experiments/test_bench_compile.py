"""The pages of compiling and of the price: what their tables make of results."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "experiments" / "bench"


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The scripts of the folder, which import each other by bare names."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCH), *sys.path])
        yield {name: import_module(name) for name in ("compile", "price", "train")}
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(BENCH) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def case(compiled: list[float]) -> dict[str, Any]:
    return {
        "seconds": {"without": [2.0, 2.0, 4.0], "with": compiled},
        "compiling": 30.0,
        "compiling_again": 0.2,
        "tokens": [1000, 1200, 1100],
        "job": {"capacity": 512, "batch": 2, "micro": 1, "rank": 16, "bfloat16": False},
        "dropout": 0.05,
        "machine": {"gpus": [], "processor": "a processor"},
        "versions": {"torch": "2.13.0"},
        "git": {"commit": "0123456789abcdef"},
    }


def cells(block: str, base: str) -> list[str]:
    line = next(line for line in block.splitlines() if line.startswith(f"| {base} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_compiling_pays_when_it_has_saved_what_it_took(bench: dict[str, Any]) -> None:
    block = bench["compile"].block({"faster": case([1.0, 1.0, 4.0]), "slower": case([3, 3, 3])})
    fast, slow = cells(block, "faster"), cells(block, "slower")
    assert fast[1:] == ["1,100", "30", "0", "2.00", "1.00", "2.00 (1.00 to 2.00)", "30", "1"]
    assert slow[-2:] == ["never", "never"]
    assert slow[6] == "0.67 (0.67 to 1.33)"
    assert "2 bins of 512 tokens a step, 1 in a pass, 3 timed steps" in block
    assert bench["compile"].block({}) == "Not measured yet."


def test_a_forecast_of_seconds_is_the_mean_of_before_and_after(bench: dict[str, Any]) -> None:
    names = ("training, s", "peak memory, MiB")
    results = {
        "options": ["--trainer.max_steps=100"],
        "forecasts": [dict.fromkeys(names, 100.0), dict.fromkeys(names, 300.0)],
        "actual": dict.fromkeys(names, 150.0),
        "machine": {"processor": "a processor", "torch_threads": 1},
        "git": {"commit": "0123456789abcdef"},
    }
    page = bench["price"].page(results)
    assert cells(page, "training, s")[1:] == ["200.0", "100.0, 300.0", "150.0", "0.75"]
    assert cells(page, "peak memory, MiB")[1:] == ["100.0", "100.0, 300.0", "150.0", "1.50"]


def test_the_page_holds_what_was_measured(bench: dict[str, Any]) -> None:
    compiling = bench["compile"]
    page = compiling.PAGE.read_text(encoding="utf-8")
    for name, cases in compiling.read(compiling.RESULTS).items():
        wanted = bench["train"].put(page, name, compiling.block(cases))
        assert wanted == page, "python experiments/bench/compile.py --readme"
