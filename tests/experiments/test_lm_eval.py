"""The comparison of `experiments/lm_eval/run.py`, and its questions, without lm-eval."""

import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parents[2] / "experiments/lm_eval"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lm_eval_run", HERE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(*lines: list[float]) -> dict[str, Any]:
    return {"scores": {"acc": 0.5, "acc_stderr": 0.1, "acc_norm": 0.5}, "lines": list(lines)}


BASE = model([-1.0, -2.0], [-3.0, -4.0])
ADAPTER = model([-2.5, -2.0], [-3.0, -4.5])
MERGED = model([-2.5, -2.0], [-3.1, -4.5])


def test_models_are_compared_answer_by_answer(script: ModuleType) -> None:
    found = script.compared({"base": BASE, "adapter": ADAPTER, "merged": MERGED})
    assert found["questions"] == 2
    adapter, merged = found["models"]["adapter"], found["models"]["merged"]
    assert adapter["answers_of_base"] == 1
    assert adapter["from_base"] == pytest.approx(2.0 / 4)
    assert adapter["from_adapter"] == 0.0
    assert merged["from_adapter"] == pytest.approx(0.1 / 4)


def test_an_adapter_that_is_not_applied_is_found(script: ModuleType) -> None:
    almost = model([-1.0004, -2.0], [-3.0, -4.0])
    with pytest.raises(SystemExit, match="loaded, but not applied"):
        script.compared({"base": BASE, "adapter": almost, "merged": MERGED})


def test_a_merged_model_without_the_adapter_is_found(script: ModuleType) -> None:
    with pytest.raises(SystemExit, match="more like the base"):
        script.compared({"base": BASE, "adapter": ADAPTER, "merged": BASE})


def test_the_questions_have_four_different_answers_in_no_fixed_place() -> None:
    lines = (HERE / "tasks/general_questions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len({row["question"] for row in rows}) == 60
    assert all(len(set(row["choices"])) == 4 for row in rows)
    places = Counter(row["answer"] for row in rows)
    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) < 25


def test_the_table_of_the_page_is_that_of_the_results(script: ModuleType) -> None:
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    page = (HERE / "README.md").read_text(encoding="utf-8")
    assert script.written(results) in page
    assert results["models"]["adapter"]["from_base"] > script.NOISE
