"""The bench of generation: its four ways give the same answers, and it counts what is read."""

import importlib.util
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

PATH = Path(__file__).parents[2] / "experiments/bench/generate.py"
SPEC = importlib.util.spec_from_file_location("bench_generate", PATH)
assert SPEC is not None
assert SPEC.loader is not None
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)

ANCHOR = "You judge whether the answer below is right, and you write your verdict in one line. " * 2
QUESTIONS = ["What is tea?", "Who sails?", "Is it late in the day, or is it early?", "Why?"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = tmp_path_factory.mktemp("data")
    rows = [{"prompt": ANCHOR + question, "response": "no"} for question in QUESTIONS]
    for name in (bench.PROMPTS, bench.GENERAL):
        (data / name).parent.mkdir(parents=True)
        (data / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    threads = torch.get_num_threads()
    given = Namespace(data=data, rows=4, rounds=2, new_tokens=5, width=64)
    found: dict[str, Any] = bench.measure(given)
    torch.set_num_threads(threads)
    return found


def test_every_way_gives_the_answers_of_one_prompt_a_call(results: dict[str, Any]) -> None:
    assert results["same"] == dict.fromkeys(results["seconds"], 4)
    assert all(len(rounds) == 2 for rounds in results["seconds"].values())


def test_tokens_that_are_read_are_counted(results: dict[str, Any]) -> None:
    """The last new token is not read; padding is."""
    prompts, read = results["prompts"], results["read"]
    assert read["row by row"] == prompts["tokens"] + 4 * 4
    assert read["plain batches"] == 4 * (prompts["longest"] + 4)
    assert read["sorted batches"] == read["plain batches"]
    assert read["shared prefix"] == read["sorted batches"] - 3 * prompts["prefix"]
    assert prompts["prefix"] > 16


def test_table_says_what_was_measured(results: dict[str, Any]) -> None:
    results["seconds"] = {
        "row by row": [9.0, 8.0],
        "plain batches": [4.0, 6.0],
        "sorted batches": [3.0, 3.5],
        "shared prefix": [2.0, 2.5],
    }
    shown = bench.table(results)
    line = next(each for each in shown.splitlines() if each.startswith("| shared prefix"))
    assert [cell.strip() for cell in line.split("|")][3:7] == ["2.0", "4.00", "4 of 4", "2.0, 2.5"]
    assert "is 2.00 times as fast as plain batches, and 1.50 times as fast as" in shown
    assert results["git"]["commit"][:10] in shown
