"""Commands on configurations, predictions and runs that nobody would write."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import (
    TEXTS,
    VALUES,
    YAML_VALUES,
    amounts,
    answered,
    assert_no_drafts,
    called,
    fuzz,
    mutated_bytes,
    mutated_values,
)
from hypothesis import strategies as st
from small_experiment import result_of, write_experiment, write_shared
from small_run import write_run

from tell_lightning.callbacks.settings import EvalSettings, RunSettings
from tell_lightning.data.settings import DataSettings, General, Mixture, Task
from tell_lightning.experiment.cells import config_digest, configuration, expand
from tell_lightning.experiment.specification import read_experiment
from tell_lightning.metrics.settings import Scoring
from tell_lightning.model.settings import LoraSettings, ModelSettings, OptimizerSettings
from tell_lightning.settings import as_settings

CONFIG: dict[str, Any] = {
    "run": {"name": "odd", "dir": "runs"},
    "data": {
        "root": "data",
        "cache_dir": "cache",
        "tasks": {
            "answer": {
                "train": "train.jsonl",
                "dev": "dev.jsonl",
                "test": "test.jsonl",
                "fields": {"prompt": "prompt", "response": "response"},
                "anchor": {"text": "Answer.", "position": "prefix", "response_prefix": "So: "},
                "scoring": {
                    "kind": "translation",
                    "baselines": {"copy": {"field": "prompt"}, "no": {"text": "no"}},
                },
                "max_new_tokens": 8,
                "stop_tokens": ["."],
            }
        },
        "general": {"all": {"train": "general.jsonl", "weight": 1.0}},
        "mixture": {"arm": "tell", "order": "random", "task_share": 0.5, "task_examples": 10},
        "optimizer_batch": 8,
        "micro_batch": 4,
        "max_tokens": 64,
    },
    "model": {"base": "microworld", "lora": {"rank": 4}, "optimizer": {"lr": 0.001}},
    "eval": {"every_steps": 2},
    "trainer": {"max_steps": 2, "accelerator": "cpu", "devices": 1},
}
SECTIONS = [
    *(DataSettings, Task, General, Mixture, Scoring, RunSettings, EvalSettings),
    *(ModelSettings, LoraSettings, OptimizerSettings),
]
KINDS = ["text", "translation", "judge", "classification", "json", "", "no-such", "a.py:B"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with small data."""
    for name, count in (("train", 12), ("dev", 3), ("test", 3), ("general", 40)):
        rows = [
            {"prompt": f"{name} {n}", "response": f"this is the answer number {n}"}
            for n in range(count)
        ]
        path = tmp_path / "data" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_configuration_itself_is_right(place: Path) -> None:
    (place / "odd.yaml").write_text(yaml.safe_dump(CONFIG))
    assert called("plan", "-c", "odd.yaml") == 0


@amounts(quick=15)
def test_plan_answers_any_configuration(place: Path, amount: int) -> None:
    def check(content: bytes) -> None:
        (place / "odd.yaml").write_bytes(content)
        called("plan", "-c", "odd.yaml")
        assert_no_drafts(place)
        assert not (place / "runs").exists()

    values = mutated_values(CONFIG, YAML_VALUES).map(yaml.dump)
    texts = values.map(lambda text: text.encode("utf-8", "replace"))
    fuzz(texts | mutated_bytes([yaml.safe_dump(CONFIG).encode()]), amount, check)


@amounts(quick=8)
def test_plan_answers_any_typed_option(place: Path, amount: int) -> None:
    (place / "odd.yaml").write_text(yaml.safe_dump(CONFIG))
    keys = [*CONFIG, *(f"{section}.{key}" for section in CONFIG for key in CONFIG[section])]
    keys += ["data.tasks.answer.anchor.text", "data.mixture.order", "model.lora.rank", "config"]
    keys += ["data.num_workers", "eval.patience", "trainer.devices", "seed_everything", "show"]

    def check(options: list[str]) -> None:
        called("plan", "-c", "odd.yaml", *options)
        assert_no_drafts(place)

    values = TEXTS | YAML_VALUES.map(lambda value: yaml.dump(value).strip())
    option = st.tuples(st.sampled_from(keys) | TEXTS, values).map("=".join)
    options = option.map("--{}".format) | TEXTS
    fuzz(st.lists(options, min_size=1, max_size=2), amount, check)


@amounts(quick=20)
def test_any_value_of_a_settings_class_is_taken_or_refused_in_one_line(amount: int) -> None:
    def check(drawn: tuple[type, Any]) -> None:
        cls, value = drawn
        answered(lambda: as_settings(cls, value, "data"))

    keys = st.sampled_from(sorted({name for cls in SECTIONS for name in cls.__dataclass_fields__}))
    values = st.dictionaries(keys | TEXTS, YAML_VALUES, min_size=1, max_size=2) | YAML_VALUES
    fuzz(st.tuples(st.sampled_from(SECTIONS), values), amount, check)


@amounts(quick=20)
def test_compare_answers_any_predictions(place: Path, amount: int) -> None:
    def check(drawn: tuple[list[Any], list[Any], str]) -> None:
        for name, rows in zip(("a", "b"), drawn, strict=False):
            (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        kind = drawn[2]
        called("compare", "a.jsonl", "b.jsonl", f"--kind={kind}", "--format=jsonl")
        assert_no_drafts(place)

    usual = ["yes", '{"hallucination": "no"}', '{"a": 1}', "a b c\nd", "猫 です"]
    texts = TEXTS | st.sampled_from(usual)
    rows = st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=4).map(
        lambda found: [
            [
                {"id": str(n), "prediction": each[side], "reference": each[0]}
                for n, each in enumerate(found)
            ]
            for side in (1, 2)
        ]
    )
    odd = rows.flatmap(lambda pair: mutated_values(pair, VALUES)).map(
        lambda pair: [side if isinstance(side, list) else [side] for side in (*pair, [], [])][:2]
    )
    pairs = st.tuples(rows | odd, st.sampled_from(KINDS[:5]) | st.sampled_from(KINDS))
    fuzz(pairs.map(lambda found: (*found[0], found[1])), amount, check)


@amounts(quick=3)
def test_report_answers_any_run_folder_with_a_whole_page_or_none(place: Path, amount: int) -> None:
    write_run(place / "right")
    files = {
        path.relative_to(place / "right").as_posix(): path.read_bytes()
        for path in sorted((place / "right").rglob("*"))
        if path.is_file()
    }

    def check(drawn: tuple[str, bytes]) -> None:
        name, content = drawn
        shutil.rmtree(place / "run", ignore_errors=True)
        shutil.copytree(place / "right", place / "run")
        (place / "run" / name).write_bytes(content)
        page = place / "page.html"
        page.unlink(missing_ok=True)
        if called("report", "run", "--output", "page.html"):
            assert not page.exists()
        else:
            assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
        assert_no_drafts(place)

    def changed(name: str) -> st.SearchStrategy[bytes]:
        damaged = mutated_bytes([files[name]])
        if not name.endswith("json"):
            return damaged
        values = mutated_values(json.loads(files[name]), VALUES)
        return damaged | values.map(lambda value: json.dumps(value).encode())

    one = st.sampled_from(sorted(files)).flatmap(lambda n: st.tuples(st.just(n), changed(n)))
    fuzz(one, amount, check)


@amounts(quick=10)
def test_an_experiment_is_shown_and_reported_or_refused(place: Path, amount: int) -> None:
    write_shared(place)
    folder = write_experiment(place / "first")
    experiment = read_experiment(folder)
    cell = expand(experiment)[0]
    digest = config_digest(experiment, configuration(experiment, cell))
    result = folder / "results" / f"{cell.name}.json"
    result.parent.mkdir()
    result.write_text(json.dumps(result_of(cell, digest)))
    paths = [folder / "experiment.yaml", result]
    paths += [place / f"{name}.yaml" for name in ("base", "testbeds", "arms", "bases")]
    right = {path: path.read_bytes() for path in paths}

    def check(drawn: tuple[Path, bytes]) -> None:
        path, content = drawn
        path.write_bytes(content)
        try:
            called("experiment", "first", "--dry-run")
            called("report", "first", "--output", "page.html")
            assert_no_drafts(place)
        finally:
            path.write_bytes(right[path])

    def changed(path: Path) -> st.SearchStrategy[bytes]:
        if path.suffix == ".json":
            values = mutated_values(json.loads(right[path]), VALUES).map(json.dumps)
        else:
            values = mutated_values(yaml.safe_load(right[path]), YAML_VALUES).map(yaml.dump)
        texts = values.map(lambda text: text.encode("utf-8", "replace"))
        return texts | mutated_bytes([right[path]])

    one = st.sampled_from(paths).flatmap(lambda path: st.tuples(st.just(path), changed(path)))
    fuzz(one, amount, check)
