import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import Fits, Run, command, environment
from tiny_world import World

from tell_lightning.cli import main
from tell_lightning.experiment.results import Result, read_results
from tell_lightning.experiment.specification import read_experiment
from tell_lightning.experiment.survey import places, survey

pytestmark = pytest.mark.long

GROUP = {"testbeds": ["turn"], "arms": ["tell", "sft", "base"], "n": [6], "seeds": [5]}
EXPERIMENT = {
    "title": "Tiny",
    "claim": "None.",
    "refuted_by": "Nothing.",
    "rule": {"kind": "same_data", "n": [6], "at_least": 1, "equivalence": 1.0},
    "cells": [
        GROUP,
        {**GROUP, "arms": ["tell"], "variants": {"made": {"model.base": "made:general"}}},
        {**GROUP, "arms": ["tell"], "variants": {"wrong": {"trainer.max_steps": 10_000}}},
    ],
}


def write(root: Path, world: World) -> Path:
    """An experiment over the tiny world, its shared files beside it."""
    base = yaml.safe_load(world.config.read_text(encoding="utf-8"))
    tasks = base["data"].pop("tasks")
    base["eval"] = {"before": False, "select": "last", "patience": None}
    testbed = {"task": "turn", "score": "bleu", "chance": 1}
    testbed["config"] = {"data": {"tasks": {"turn": tasks["turn"]}}}
    arms: dict[str, Any] = {
        "tell": {"label": "TELL", "set": {"data.mixture.arm": "tell"}},
        "sft": {"label": "SFT", "set": {"data.mixture.arm": "sft", "eval.anchor_check": False}},
        "base": {"label": "base"},
    }
    files = {
        "base": base,
        "testbeds": {"turn": testbed},
        "arms": arms,
        "bases": {"general": {"tuned": {"trainer.max_steps": 3}}},
        "tiny/experiment": EXPERIMENT,
    }
    (root / "tiny").mkdir(parents=True)
    for name, values in files.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return root / "tiny"


@pytest.fixture(scope="module")
def folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment, once with `experiment FOLDER`."""
    folder = write(tmp_path_factory.mktemp("experiments"), world)
    home = tmp_path_factory.mktemp("home")
    done = command(["experiment", str(folder), "--jobs", "1"], home=home, XDG_CACHE_HOME=str(home))
    assert done.returncode == 1, done.stderr  # for the run that is wrong
    assert "base general  is made first, once, in" in done.stdout
    assert "about" in done.stdout.splitlines()[2]
    return folder


@pytest.fixture
def results(folder: Path) -> dict[str, Result]:
    """What it has left."""
    return dict(read_results(folder / "results"))


def test_a_cell_of_a_warm_process_has_the_scores_of_a_run_of_its_own(
    folder: Path, results: dict[str, Result], tmp_path: Path
) -> None:
    found = read_experiment(folder)
    for name in ("turn-tell-n6-s5", "turn-sft-n6-s5"):
        (each,) = (p for p in survey(found, places(found)) if p.cell.name == name)
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump(dict(each.config)))
        runs = tmp_path / name
        main(["fit", "-c", str(config), "--eval.before=true", f"--run.dir={runs}"])
        (made,) = runs.iterdir()
        run = Run(made)
        metrics, result = run.record["metrics"], results[name]
        after = metrics["test"]["after"]
        assert result["test"]["values"] == after["tasks"]["turn"]["values"]
        assert result["test"]["loss"] == after["loss_nats_per_token"]["turn"]
        assert result["dev"]["loss"] == metrics["dev"]["after"]["loss_nats_per_token"]["turn"]
        assert result["general_loss"]["after"] == after["loss_nats_per_token"]["writing"]
        assert result["steps"] == 4
    base = results["turn-base-n0-s5"]
    before = metrics["test"]["before"]
    assert base["test"]["loss"] == before["loss_nats_per_token"]["turn"]
    assert base["test"]["values"] == before["tasks"]["turn"]["values"]
    assert base["general_loss"]["before"] == before["loss_nats_per_token"]["writing"]


def test_a_run_without_the_scoring_before_says_so(fit: Fits) -> None:
    run = fit("--eval.before=false", "--trainer.max_steps=2")
    assert run.record["metrics"]["test"]["before"] is None
    assert run.record["metrics"]["test"]["after"] is not None
    assert not list((run.folder / "predictions").glob("*-base.jsonl"))


def test_each_arm_leaves_what_belongs_to_it(results: dict[str, Result]) -> None:
    tell, sft = results["turn-tell-n6-s5"], results["turn-sft-n6-s5"]
    made, wrong = results["turn-tell-n6-made-s5"], results["turn-tell-n6-wrong-s5"]
    assert len(tell["test"]["items"]["rows"]) == 24
    assert tell["test_anchor_off"] is not None
    assert sft["test_anchor_off"] is None
    assert sft["tokens"]["general"] == 0 < tell["tokens"]["general"]
    assert made["base_sha256"] != tell["base_sha256"]
    assert made["test"]["loss"] != tell["test"]["loss"]
    assert wrong["status"] == "failed"
    assert "data.general.writing: 40000 training examples" in wrong["reason"]
    assert {each["machine"]["torch_threads"] for each in (tell, sft, made)} == {1}


def test_a_cluster_runs_the_cells_by_their_numbers_at_once(
    folder: Path, results: dict[str, Result], tmp_path: Path
) -> None:
    other, script = tmp_path / "other", tmp_path / "array.sh"
    only = ["--results", str(other), "--only", "n6-s5"]
    done = command(["experiment", str(folder), *only, "--slurm", str(script)], home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --array=0-1\n" in script.read_text()
    place = other / "tiny" / "results"
    tasks = [array_task(script, tmp_path, number) for number in "01"]
    while len(list(place.glob(".*.lock"))) < 2:
        assert all(task.poll() is None for task in tasks)
        time.sleep(0.05)
    again = array_task(script, tmp_path, "0")
    assert "is run by another process" in again.communicate()[0]
    assert all("1 of 1  turn-" in task.communicate()[0] for task in tasks)
    found = read_results(place)
    assert list(found) == ["turn-sft-n6-s5", "turn-tell-n6-s5"]
    for name, result in found.items():
        assert result["test"] == results[name]["test"]
        assert result["config_digest"] == results[name]["config_digest"]


def array_task(script: Path, home: Path, number: str) -> "subprocess.Popen[str]":
    """Start a task as SLURM does."""
    task = {"SLURM_ARRAY_TASK_ID": number, "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "tell"}
    where = environment(home, **task)
    return subprocess.Popen(["bash", str(script)], env=where, stdout=subprocess.PIPE, text=True)
