import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import Says, says
from small_experiment import result_of

from tell_lightning.experiment.cells import Cell
from tell_lightning.experiment.results import (
    ResultError,
    as_text,
    completed,
    read_result,
    read_results,
    seconds_of,
    write_result,
)
from tell_lightning.experiment.specification import Experiment

CELL = Cell("translate", "tell", 10, 0)


def moment(bleu: float, loss: float) -> dict[str, Any]:
    return {
        "step": 4,
        "tasks": {"translate": {"values": {"bleu": bleu, "rows": 2}, "primary": "bleu"}},
        "loss_nats_per_token": {"translate": loss, "instructions": loss + 1},
    }


def run_folder(folder: Path, *, after: bool = True) -> Path:
    (folder / "predictions").mkdir(parents=True)
    scored, name = moment(12.5, 0.5), "step-000004" if after else "base"
    place = "after" if after else "before"
    floors = {"translate": {"copy": {"values": {"bleu": 0.25, "rows": 2}}}}
    metrics = {
        "test": {"before": None, "after": None, place: scored, "floors": floors},
        "test_without_anchor": {"before": None, "after": None, place: moment(3, 2), "floors": {}},
        "dev": {"before": None, "after": None, "floors": {}},
    }
    record = {
        "metrics": metrics,
        "steps": 4,
        "tokens_per_second": 5000.0,
        "machine": {"gpus": []},
        "versions": {"torch": "2"},
        "base": {"sha256": {"model.safetensors": "abc", "tokenizer.json": "def"}},
        "started": "now",
    }
    sources = {
        "translate": {"kind": "task", "tokens": 100, "passes": 4.5},
        "instructions": {"kind": "general", "tokens": 300, "passes": 0.1},
    }
    config = {
        "data": {
            "tasks": {"translate": {"scoring": {"kind": "translation"}}},
            "general": {"instructions": {}},
            "mixture": {"task_share": 0.25},
        },
        "model": {"optimizer": {"lr": 0.004}},
        "trainer": {"max_steps": 4},
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "plan.json").write_text(json.dumps({"realised": {"sources": sources}}))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for split in ("test", "test_without_anchor"):
        lines = [{"id": i, "prediction": "a b c d", "reference": "a b c d"} for i in "21"]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "predictions" / f"{split}-translate-{name}.jsonl").write_text(text)
    return folder


def test_a_result_holds_what_the_run_has_scored(first: Experiment, tmp_path: Path) -> None:
    result = completed(first, CELL, run_folder(tmp_path / "run"), 3.21987)
    items = {"statistic": "bleu", "rows": [[4, 3, 2, 1, 4, 3, 2, 1, 4, 4]] * 2}
    assert result["test"] == {"values": {"bleu": 12.5, "rows": 2}, "loss": 0.5, "items": items}
    assert result["test_anchor_off"]["loss"] == 2
    assert result["dev"] is None
    assert result["floors"] == {"copy": {"bleu": 0.25}}
    assert result["general_loss"] == {"before": None, "after": 1.5}
    assert result["settings"] == {"lr": 0.004, "task_share": 0.25, "max_steps": 4}
    assert (result["passes"], result["tokens"]) == (4.5, {"task": 100, "general": 300})
    assert (result["steps"], result["seconds"], result["base_sha256"]) == (4, 3.22, "abc")
    assert (result["status"], result["reason"], result["score"]) == ("completed", None, "bleu")


def test_the_base_is_scored_before_and_has_trained_on_nothing(
    first: Experiment, tmp_path: Path
) -> None:
    cell = Cell("translate", "base", 0, 0)
    result = completed(first, cell, run_folder(tmp_path / "run", after=False), 1.0)
    assert result["test"]["values"]["bleu"] == 12.5
    assert result["general_loss"] == {"before": 1.5, "after": None}
    assert (result["passes"], result["tokens"]) == (0.0, {"task": 0, "general": 0})


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    facts = result_of(CELL, "0" * 12, items=[[1, -2.5], [3, 1e-7]], text="[1,\n 2]", none=[])
    write_result(tmp_path / "results", facts)
    assert read_results(tmp_path / "results") == {CELL.name: facts}
    assert read_results(tmp_path / "nothing") == {}


def test_a_list_of_numbers_is_one_line_and_keys_are_sorted() -> None:
    assert as_text({"b": [[1, 2], [3, 4]], "a": ["x"]}) == (
        '{\n "a": [\n  "x"\n ],\n "b": [\n  [1, 2],\n  [3, 4]\n ]\n}\n'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", says("x.json", rule="JSON", got="Expecting property name")),
        ("9" * 5000, says("x.json", rule="JSON", got="Exceeds the limit")),
        ("[" * 100_000, says("x.json", rule="JSON", got="maximum recursion")),
        ("[]", says("x.json", rule="keys", got="[]")),
        ("{}", says("x.json", rule="name", got="nothing")),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str, message: Says) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ResultError) as caught:
        read_result(path)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"cell": None}, "cell.testbed"),
        ({"cell": {"testbed": "t", "arm": "tell", "n": 3}}, "cell.seed"),
        ({"tokens": 3}, "tokens"),
        ({"tokens": {"task": None}}, "tokens"),
        ({"test": {"loss": 1.0}}, "test.items"),
        ({"test_anchor_off": {"items": {}}}, "test_anchor_off.items"),
        ({"test": {"items": {"statistic": "bleu", "rows": [[1, 2]]}}}, "test.items"),
        ({"seconds": "long"}, "seconds"),
        ({"general_loss": {"after": "low"}}, "general_loss"),
    ],
)
def test_a_result_that_lacks_what_is_read_of_it_is_named(
    tmp_path: Path, changes: dict[str, Any], lacking: str
) -> None:
    path = write_result(tmp_path, result_of(CELL, "0" * 12) | changes)
    with pytest.raises(ResultError) as caught:
        read_result(path)
    assert str(caught.value) == says(str(path), rule=lacking)


def test_drafts_and_locks_are_no_results(tmp_path: Path) -> None:
    (tmp_path / ".x.json.123").write_text("{")
    (tmp_path / ".x.lock").write_text("")
    (tmp_path / ".x.json").write_text("{")
    assert read_results(tmp_path) == {}


@pytest.mark.parametrize(
    ("result", "seconds"),
    [
        ({"seconds": 9.0}, 9.0),  # a run that failed
        ({"seconds": 9.0, "processor_seconds": 5.0, "machine": {"gpus": []}}, 5.0),
        ({"seconds": 9.0, "processor_seconds": 5.0, "machine": {"gpus": ["H100"]}}, 9.0),
    ],
)
def test_a_run_costs_processor_time_where_it_is_known(
    result: dict[str, Any], seconds: float
) -> None:
    assert seconds_of(result) == seconds
