import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import Run, command, refused
from tiny_world import World, make_world
from tuning_work import SPACE, record

from tell_lightning.cli import main
from tell_lightning.commands.cell import score_base
from tell_lightning.commands.check import check
from tell_lightning.commands.trial import run_work
from tell_lightning.experiment.overlays import merged
from tell_lightning.tuning.fits import Common, TrialWork
from tell_lightning.tuning.pruner import OTHERS
from tell_lightning.tuning.space import overlay
from tell_lightning.tuning.study import Reports, Search, storage_of

TRIALS = 3


def keys(world: World, *options: str) -> list[str]:
    """One task of ten rows, a few steps a fit: no dev set, so three folds."""
    config = yaml.safe_load(world.config.read_text())
    del config["data"]["tasks"]["verdict"]
    config["data"]["tasks"]["turn"].pop("dev")
    config["tune"] = {"folds": 2, "seeds": 2, "search": {"steps": [2, 3], "task_share": [0.3, 0.5]}}
    config["trainer"].pop("max_steps")
    path = world.folder / "tune.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["-c", str(path), "--workers=1", *options]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Run]:
    """A search of three trials, as a stranger starts it."""
    home = tmp_path_factory.mktemp("tune")
    world = make_world(home / "world")
    folder = home / "tuned"
    arguments = ["tune", *keys(world), f"--trials={TRIALS}", f"--folder={folder}"]
    done = command(arguments, home=home)
    assert done.returncode == 0, done.stderr
    return world, Run(folder, done.stdout, done.stderr)


@pytest.mark.long
def test_the_screen_says_what_is_compared_what_it_costs_and_what_came_of_it(
    tuned: tuple[World, Run],
) -> None:
    lines = tuned[1].stdout.splitlines()
    assert any("compared by 2 folds of the 6 task rows: tune.folds is 2" in x for x in lines)
    assert any(x.startswith("  steps: 2 to 3, where `fit` takes ") for x in lines)
    assert "  task share: 0.3 to 0.5" in lines
    assert any(x.startswith("Budget: a trial takes about ") for x in lines)
    for number, arm in enumerate(("tell", "sft", "mixture")):
        assert any(x.startswith(f"trial {number}: {arm}, lr 0.05, ") for x in lines)
    assert any(x.startswith(f"{TRIALS} of about {TRIALS} trials; best ") for x in lines)
    assert any(x.split()[:2] == ["few-shot", "prompt"] for x in lines)
    assert tuned[1].record["tune"]["verdict"]["sentence"] in lines


@pytest.mark.long
def test_trials_are_kept_with_what_each_row_has_scored(tuned: tuple[World, Run]) -> None:
    folder = tuned[1].folder
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["complete"] * TRIALS
    for number in range(TRIALS):
        record = json.loads((folder / "trials" / f"{number:04d}.json").read_text())
        assert len(record["folds"]) == 2
        rows_of = [row for fold in record["folds"] for row in fold["rows"]]
        assert len(rows_of) == 6
        assert len({row["id"] for row in rows_of}) == 6
        assert record["tokens"]["task"] > 0
        assert (record["tokens"]["general"] > 0) == (record["arm"] != "sft")
        assert float(rows[number]["score"]) == pytest.approx(record["score"], abs=1e-5)


@pytest.mark.long
def test_the_folder_is_a_run(tuned: tuple[World, Run], tmp_path: Path) -> None:
    _, run = tuned
    assert run.record["status"] == "completed"
    assert run.record["name"] == run.folder.name
    assert run.record["metrics"]["test"]["before"]
    assert run.record["metrics"]["test"]["after"]
    assert run.record["tune"]["verdict"]["rivals"][1]["examples"] == 6  # the task rows
    assert run.record["tune"]["best"] in range(TRIALS)
    assert not (run.folder / "final").exists()
    main(["export", str(run.folder), "--to", str(tmp_path / "exported")])
    assert (tmp_path / "exported").is_dir()
    main(["report", str(run.folder)])
    plan = json.loads((run.folder / "plan.json").read_text())
    assert len(plan["task_examples"]["turn"]) == 6  # all of them, and none held back


@pytest.mark.long
def test_the_best_configuration_is_a_file_for_fit(tuned: tuple[World, Run]) -> None:
    _, run = tuned
    best = json.loads(
        (run.folder / "trials" / f"{run.record['tune']['best']:04d}.json").read_text()
    )
    config = check(["-c", str(run.folder / "best.yaml")])
    assert config.model.optimizer.lr == best["params"]["lr"]
    assert config.trainer["max_steps"] == best["params"]["steps"]
    assert config.data.mixture.arm == best["settings"]["data"]["mixture"]["arm"]
    assert "tune" not in yaml.safe_load((run.folder / "best.yaml").read_text())


@pytest.mark.long
def test_the_same_command_again_trains_nothing(
    tuned: tuple[World, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    world, run = tuned
    kept = [*(run.folder / "adapter").iterdir(), *(run.folder / "fits").iterdir()]
    before = {path: path.stat().st_mtime_ns for path in kept}
    said = run.record["tune"]
    main(["tune", *keys(world), f"--trials={TRIALS}", f"--folder={run.folder}"])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "trial 0:" not in capsys.readouterr().out
    assert run.record["tune"] == said


@pytest.mark.long
def test_a_folder_of_another_search_is_refused(
    tuned: tuple[World, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    world, run = tuned
    asked = ["tune", *keys(world), "--trials=3", f"--folder={run.folder}"]
    error = refused(capsys, *asked, "--data.optimizer_batch=8")
    assert "whose data.optimizer_batch is 4, here 8" in error
    train = world.folder / "data" / "turn-train.jsonl"
    kept = train.read_text()
    train.write_text(kept.replace("one", "two"))
    error = refused(capsys, *asked)
    train.write_text(kept)
    assert "whose data.tasks.turn.train is " in error


def refusals(world: World) -> list[tuple[list[str], str]]:
    """Options with a mistake, and the beginning of its message."""
    shares = "--tune.search.task_share=[0.05,0.5]"
    return [
        (["--minutes=0"], "--minutes: must be a number of minutes above 0, got '0'"),
        (["--trials=1"], "--trials: must be a whole number from 2 on"),
        ([], "tune: needs one of --minutes --trials, got none"),
        (["--trials=3", "--minutes=3"], "--minutes: must not be given together with"),
        (["--trials=3", "--data.general={}"], "tune.search.arm: needs general rows for tell"),
        (["--trials=3", "--trainer.devices=2"], "trainer.devices: must be 1"),
        (["--trials=3", "--data.mixture.task_examples=4"], "data.tasks.turn: tune needs 5 task"),
        (["--trials=3", "--tune.folds=9"], "tune.folds: must be 2 to 6"),
        (["--trials=3", "--storage=nonsense"], "--storage: must be a storage of Optuna"),
        (["--trials=3", shares, "--tune.search.steps=[2,900]"], "tune.search.steps: the general"),
        (["--minutes=0.001"], "--minutes: must be enough for the two cheapest trials"),
    ]


@pytest.mark.long
def test_mistakes_are_told_before_anything_is_trained(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tell_lightning.commands.tune.measured", measured)
    for number, (options, message) in enumerate(refusals(world)):
        folder = tmp_path / str(number)
        error = refused(capsys, "tune", *keys(world), f"--folder={folder}", *options)
        assert error.startswith(message)
        assert not (folder / "trials").exists()


def measured(config: Any, environment: Any) -> dict[str, Any]:
    """What a measurement finds; to measure takes a while."""
    assert environment["OMP_NUM_THREADS"] == "1"
    return {
        "tokens_per_second": 1000.0,
        "compiling_seconds": 0.0,
        "seconds_per_row": {"turn": 0.1},
        "seconds_per_loss_token": 0.001,
        "seconds_of_chat": 0.0,
        "devices": 1,
        "micro_batch": 2,
        "bytes": {"checkpoint": 1, "adapter": 1, "prediction": 1},
    }


@pytest.mark.long
def test_a_folder_that_holds_something_else_is_refused(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.txt").write_text("Dear")
    error = refused(capsys, "tune", *keys(world), "--trials=3", f"--folder={tmp_path}")
    assert error.startswith("--folder: must be the folder of a search, or a new one, got ")


# A trial, in this process


def a_trial(world: World, place: Path, *, reports: Sequence[tuple[float, float]]) -> TrialWork:
    """A trial with the user's dev set; others of its arm have reported these scores and losses."""
    config = check(keys(world, "--data.tasks.turn.dev=turn-dev.jsonl", "--tune.folds=null")[:2])
    url = f"sqlite:///{place / 'study.db'}"
    study = Search(url, "d" * 32, owner="me", seed=1)
    study.begin(SPACE)
    asked = study.ask(SPACE)
    for _ in range(3 * OTHERS):
        other = study.ask(SPACE)
        told = Reports(url, study.name, other.trial._trial_id)
        for score, loss in reports:
            told.report(score, loss)
        study.tell(other, record(other.number, other.arm, dict(other.point)))
    dev = {"data": {"tasks": {"turn": {"dev": "turn-dev.jsonl"}}}}
    params = {"lr": 0.05, "steps": 6, "task_share": 0.5}
    return TrialWork(
        common=Common(config.values, [dev], {}, 1, None),
        number=asked.number,
        trial_id=asked.trial._trial_id,
        arm=asked.arm,
        params=params,
        settings=overlay("tell", params, []),
        url=url,
        study=study.name,
        folder=place,
    )


@pytest.mark.long
def test_with_a_dev_set_a_trial_that_is_behind_stops_after_a_third_of_its_steps(
    world: World, tmp_path: Path
) -> None:
    work = a_trial(world, tmp_path, reports=[(1.0, 0.01)] * 3)
    found = run_work(work)
    assert (found["state"], found["reason"]) == ("pruned", "behind after 33% of its steps")
    assert found["steps"] == 2
    kept = storage_of(work.url).get_trial(work.trial_id).user_attrs["record"]
    assert kept["state"] == "pruned"  # though no parent has been told yet


@pytest.mark.long
def test_with_a_dev_set_a_trial_that_is_ahead_takes_all_of_its_steps(
    world: World, tmp_path: Path
) -> None:
    work = a_trial(world, tmp_path, reports=[(0.0, 100.0)] * 3)
    found = run_work(work)
    assert (found["state"], found["reason"], found["steps"]) == ("complete", None, 6)
    assert len(storage_of(work.url).get_trial(work.trial_id).intermediate_values) == 3
    assert [len(fold["rows"]) for fold in found["folds"]] == [4]


@pytest.mark.long
def test_a_few_shot_prompt_has_the_drawn_rows_before_those_of_the_split_that_is_asked(
    world: World, tmp_path: Path
) -> None:
    dev = "--data.tasks.turn.dev=turn-dev.jsonl"
    for split, other in (("dev", "test"), ("test", "dev")):
        options = [*keys(world)[:2], dev, f"--run.dir={tmp_path / split}"]
        score_base(options, few_shot=True, splits=[split])
        (path,) = (tmp_path / split).glob("*/run.json")
        record = json.loads(path.read_text())
        assert record["shots"] == {"turn": 6}
        assert split in record["metrics"]
        assert other not in record["metrics"]


@pytest.mark.long
def test_a_trial_that_cannot_run_says_why(world: World, tmp_path: Path) -> None:
    work = a_trial(world, tmp_path, reports=[])
    found = run_work(replace(work, settings=merged(work.settings, {"data": {"max_tokens": 3}})))
    assert found["state"] == "failed"
    assert "data.max_tokens" in found["reason"]
