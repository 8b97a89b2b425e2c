"""The verdict of a real search: every row scored once a seed, and the same result from Python."""

import json
import re
from pathlib import Path

import pytest
import yaml
from tiny_world import World, make_world

import tell_lightning
from tell_lightning.cli import main
from tell_lightning.settings import ConfigError

FOLDS, SEEDS, ROWS = 2, 2, 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two arms, one task of six rows without a dev set, a few steps a training."""
    made = make_world(tmp_path_factory.mktemp("verdict") / "world")
    config = yaml.safe_load(made.config.read_text())
    del config["data"]["tasks"]["verdict"]
    task = config["data"]["tasks"]["turn"]
    del task["dev"], task["test"]
    config["trainer"].pop("max_steps")
    search = {"arm": ["tell", "sft"], "steps": [2, 3], "task_share": [0.3, 0.5]}
    config["tune"] = {"folds": FOLDS, "seeds": SEEDS, "search": search}
    made.config.write_text(yaml.safe_dump(config))
    return made


@pytest.fixture(scope="module")
def tuned(world: World) -> tell_lightning.Tuned:
    """The search, from Python."""
    folder = world.folder / "tuned"
    return tell_lightning.tune(world.config, trials=2, folder=folder, workers=1)


@pytest.mark.long
def test_all_rows_are_scored_with_each_seed_by_what_was_not_trained_on_them(
    tuned: tell_lightning.Tuned,
) -> None:
    verdict = tuned.verdict
    assert (verdict["rows"], verdict["seeds"]) == (ROWS, SEEDS)
    assert verdict["missing_seeds"] == []
    assert verdict["measure"] == "BLEU"
    fits = [json.loads(path.read_text()) for path in (tuned.folder / "fits").glob("*.json")]
    trained = [each for each in fits if each["kind"] == "adapter"]
    assert len(trained) == 2 * FOLDS * SEEDS
    for fold in range(FOLDS):
        own = (tuned.folder / "folds" / f"turn-{fold}-train.jsonl").read_text().splitlines()
        dev = (tuned.folder / "folds" / f"turn-{fold}-dev.jsonl").read_text().splitlines()
        assert not set(own) & set(dev)
        assert len(own) + len(dev) == ROWS
        for each in fits:
            if each["fold"] == fold:
                assert len(each["rows"]) == len(dev)
    seeds = {(each["settings"]["data"]["mixture"]["arm"], each["seed"]) for each in trained}
    assert {seed for arm, seed in seeds if arm == "tell"} == {
        seed for arm, seed in seeds if arm == "sft"
    }


@pytest.mark.long
def test_the_base_and_the_few_shot_prompt_answer_the_same_rows(
    tuned: tell_lightning.Tuned,
) -> None:
    base, few_shot = tuned.verdict["rivals"]
    assert base["score"] is not None
    assert few_shot["score"] is not None
    assert few_shot["examples"] == ROWS // FOLDS
    fits = {
        path.stem: json.loads(path.read_text()) for path in (tuned.folder / "fits").glob("*.json")
    }
    for fold in range(FOLDS):
        ids = [[row["id"] for row in fits[f"{kind}-fold{fold}"]["rows"]]
               for kind in ("base", "few-shot")]  # fmt: skip
        assert ids[0] == ids[1]
        references = [[row["reference"] for row in fits[f"{kind}-fold{fold}"]["rows"]]
                      for kind in ("base", "few-shot")]  # fmt: skip
        assert references[0] == references[1]
    tell = tuned.verdict["arms"][0]
    assert tell["general_loss"]["before"] > 0
    assert tell["general_loss"]["after"] > 0


@pytest.mark.long
def test_python_has_what_the_folder_has_and_the_command_goes_on_with_it(
    tuned: tell_lightning.Tuned, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((tuned.folder / "run.json").read_text())["tune"]
    assert tuned.verdict == record["verdict"]
    assert tuned.best["number"] == record["best"]
    assert (tuned.adapter / "adapter_model.safetensors").is_file()
    before = {path.name: path.stat().st_mtime_ns for path in (tuned.folder / "fits").iterdir()}
    main(["tune", "-c", str(world.config), "--trials=2", f"--folder={tuned.folder}", "--workers=1"])
    assert tuned.sentence in capsys.readouterr().out.splitlines()
    after = {path.name: path.stat().st_mtime_ns for path in (tuned.folder / "fits").iterdir()}
    assert after == before


@pytest.mark.long
def test_the_report_of_its_folder_begins_with_the_verdict(tuned: tell_lightning.Tuned) -> None:
    main(["report", str(tuned.folder)])
    page = (tuned.folder / "report.html").read_text()
    assert tuned.sentence.split(" (")[0] in page
    assert re.search(r"few-shot prompt, 3 examples", page)


def test_a_budget_is_needed_once(tmp_path: Path) -> None:
    for budget, got in (({}, "neither"), ({"minutes": 1, "trials": 2}, "--minutes=1 and")):
        with pytest.raises(ConfigError, match=f"needs minutes or trials, got {got}"):
            tell_lightning.tune({"data": {}}, folder=tmp_path, **budget)
