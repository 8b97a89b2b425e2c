import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import says
from small_experiment import BASES, EXPERIMENT, write_experiment

from tell_lightning.errors import TellError
from tell_lightning.experiment.bases import located, made_folder, recipe
from tell_lightning.experiment.cells import (
    Cell,
    Chosen,
    config_digest,
    configuration,
    expand,
    nearest,
    read_chosen,
)
from tell_lightning.experiment.forms import SpecificationError
from tell_lightning.experiment.overlays import nested, value_of
from tell_lightning.experiment.specification import Experiment, read_experiment

GROUP = EXPERIMENT["cells"][0]
CHOSEN: Chosen = {
    "translate": {
        "tell": {
            "10": {"set": {"model.optimizer.lr": 0.1, "trainer.max_steps": 50}},
            "1000": {"set": {"model.optimizer.lr": 0.2}},
        }
    }
}


def experiment(root: Path, *groups: dict[str, Any], **changes: Any) -> Experiment:
    cells = [{**GROUP, **group} for group in groups] or [GROUP]
    return read_experiment(write_experiment(root / "first", cells=cells, **changes))


def names(found: Experiment) -> list[str]:
    return [cell.name for cell in expand(found)]


def test_the_arms_of_a_seed_stand_together(root: Path) -> None:
    assert names(experiment(root, {"n": [3, 10]})) == [
        "translate-tell-n3-s0",
        "translate-sft-n3-s0",
        "translate-tell-n3-s1",
        "translate-sft-n3-s1",
        "translate-tell-n10-s0",
        "translate-sft-n10-s0",
        "translate-tell-n10-s1",
        "translate-sft-n10-s1",
    ]


def test_arms_without_examples_have_one_cell_for_every_n(root: Path) -> None:
    found = experiment(root, {"arms": ["general_only", "base"], "n": [3, 10], "seeds": [4]})
    assert names(found) == ["translate-general_only-n0-s4", "translate-base-n0-s4"]
    config = configuration(found, expand(found)[0])
    assert value_of(config, "data.mixture.task_examples") is None


def test_a_cell_that_two_groups_name_alike_is_one_cell(root: Path) -> None:
    assert len(names(experiment(root, {}, {"arms": ["tell"]}))) == 4
    with pytest.raises(SpecificationError) as caught:
        names(experiment(root, {}, {"arms": ["tell"], "set": {"trainer.max_steps": 3}}))
    assert str(caught.value) == says(
        f"{root}/first/experiment.yaml: cells", cure="translate-tell-n10-s0"
    )


def test_what_is_nearer_to_the_cell_wins(root: Path) -> None:
    key = "trainer.max_steps"
    group = {"arms": ["best"], "set": {key: 3, "model.optimizer.lr": 0.3}}
    found = experiment(root, {**group, "variants": {"v": {key: 4}}})
    (cell, _) = expand(found)
    assert cell.name == "translate-best-n10-v-s0"
    config = configuration(found, cell, CHOSEN, [{"data": {"root": "mine"}}])
    assert value_of(config, key) == 4  # the variant, over the group, over what was tuned
    assert value_of(config, "model.optimizer.lr") == 0.3  # the group
    assert value_of(config, "data.root") == "mine"  # the user
    assert value_of(config, "data.tasks.translate.test") == "test.jsonl"  # the testbed
    assert value_of(config, "data.optimizer_batch") == 16  # what all share
    assert value_of(config, "data.mixture.arm") == "tell"  # the arm
    assert value_of(config, "data.mixture.task_examples") == 10
    assert config["seed_everything"] == 0


@pytest.mark.parametrize(("n", "lr"), [(3, 0.1), (100, 0.1), (101, 0.2), (3000, 0.2)])
def test_an_arm_takes_what_was_tuned_at_the_nearest_number_of_examples(
    root: Path, n: int, lr: float
) -> None:
    found = experiment(root, {"arms": ["best"], "n": [n]})
    config = configuration(found, expand(found)[0], CHOSEN)
    assert value_of(config, "model.optimizer.lr") == lr


def test_of_two_equally_near_the_smaller_is_taken() -> None:
    assert nearest(100, [1000, 10]) == 10


def test_an_arm_that_waits_for_tuning_says_what_to_run(root: Path) -> None:
    found = experiment(root, {"arms": ["best"]})
    assert read_chosen(found) is None
    with pytest.raises(SpecificationError) as caught:
        configuration(found, expand(found)[0])
    assert str(caught.value) == says(
        f"{root}/tuning/chosen.json",
        rule=["tell", "translate"],
        got="nothing",
        cure=f"python -m tell_lightning experiment {root}/tuning",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON, got: Expecting property name"),
        ("[]", "must hold, by testbed, arm and number of examples, a mapping with set"),
        ('{"judge": {"tell": {"10": {"dev": 3}}}}', "must hold, by testbed, arm and number of"),
        ('{"judge": {"tell": {"ten": {"set": {}}}}}', "must hold, by testbed, arm and number of"),
    ],
)
def test_a_broken_choice_is_named(root: Path, text: str, message: str) -> None:
    path = root / "tuning" / "chosen.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(SpecificationError) as caught:
        read_chosen(experiment(root, {"arms": ["best"]}))
    assert str(caught.value).startswith(f"{path}: {message}")
    assert str(caught.value).endswith(f"python -m tell_lightning experiment {path.parent}")


def test_tuning_itself_starts_from_the_shared_settings(root: Path) -> None:
    found = experiment(root, {"arms": ["best"]}, rule={"kind": "tuning"})
    config = configuration(found, expand(found)[0], read_chosen(found))
    assert value_of(config, "model.optimizer.lr") == 0.004


@pytest.mark.parametrize(
    ("overlay", "key", "got"),
    [
        ({"trainer": {"max_steps": [100]}}, "trainer.max_steps", "[100]"),
        ({"model": date(2026, 1, 2)}, "model", "datetime.date(2026, 1, 2)"),
        ({"data": {"general": {1: {}}}}, "data.general", "1"),
        ({"run": {"name": b"x"}}, "run.name", "b'x'"),
        ({"data": {"tasks": {"translate": 3}}}, "data.tasks", "{'translate': 3}"),
    ],
)
def test_a_value_that_no_run_can_have_is_named_with_its_cell(
    first: Experiment, overlay: dict[str, Any], key: str, got: str
) -> None:
    cell = expand(first)[0]
    with pytest.raises(SpecificationError) as caught:
        configuration(first, cell, None, [overlay])
    where = f"experiment.yaml: {cell.name}.{key}"
    assert str(caught.value) == says(where, got=got)


def test_a_key_and_one_below_it_do_not_go_together() -> None:
    with pytest.raises(TellError, check=says("data.root", rule="data", got="both")):
        nested({"data": 3, "data.root": "x"})


def test_the_digest_covers_what_decides_the_result_and_no_places(first: Experiment) -> None:
    def digest(**overlay: Any) -> str:
        return config_digest(first, configuration(first, expand(first)[0], None, [overlay]))

    same = digest()
    assert digest(run={"dir": "elsewhere"}, data={"cache_dir": "x"}, eval={"samples": 0}) == same
    assert digest(seed_everything=7) != same
    assert digest(model={"optimizer": {"lr": 0.1}}) != same
    assert digest(data={"mixture": {"task_examples": 11}}) != same


EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("name", ["translate-tell-n10-s0", "judge-tell-n10-s0"])
def test_the_digest_of_a_committed_result_is_that_of_its_run_today(name: str) -> None:
    found = read_experiment(EXPERIMENTS / "same_data")
    (cell,) = [cell for cell in expand(found) if cell.name == name]
    config = configuration(found, cell, read_chosen(found))
    scoring = value_of(config, f"data.tasks.{cell.testbed}.scoring")
    assert "baselines" in scoring
    path = EXPERIMENTS / f"same_data/results/{name}.json"
    committed = json.loads(path.read_text(encoding="utf-8"))["config_digest"]
    assert config_digest(found, config) == committed
    scoring["floors"] = scoring.pop("baselines")  # as the configuration of before had it
    assert config_digest(found, config) == committed


def test_the_digest_covers_the_recipe_of_a_base(root: Path) -> None:
    def digest(**recipe: Any) -> str:
        (root / "bases.yaml").write_text(yaml.safe_dump({**BASES, **recipe}))
        found = experiment(root, {"set": {"model.base": "made:plain"}})
        return config_digest(found, configuration(found, expand(found)[0]))

    assert digest() == digest(general={"pretrain": {}})
    assert digest() != digest(plain={"pretrain": {"knowledge": 0.5}})


def test_a_base_lies_in_a_folder_named_after_all_that_decides_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    found = experiment(root, {"set": {"model.base": "made:general"}})
    made = recipe(found, "general")
    assert made.settings["trainer"]["max_steps"] == 7
    assert made.settings["data"]["mixture"]["arm"] == "general_only"
    assert made.settings["model"]["optimizer"]["lr"] == 0.004
    place = made_folder(made)
    assert place.parent == Path("/cache/tell_lightning/bases")
    config = located(found, configuration(found, expand(found)[0]))
    assert config["model"]["base"] == str(place)
    changed = {**BASES, "general": {"tuned": {"trainer.max_steps": 8}}}
    (root / "bases.yaml").write_text(yaml.safe_dump(changed))
    assert made_folder(recipe(experiment(root), "general")) != place


def test_the_path_of_a_base_starts_from_the_folder_of_the_experiments(first: Experiment) -> None:
    where = first.folder.parent
    for name, place in [("../bases/x", where.parent / "bases/x"), ("./bases", where / "bases")]:
        config = located(first, {"model": {"base": name}})
        assert config["model"]["base"] == str(place)
    assert located(first, {"model": {"base": "meta/llama"}})["model"]["base"] == "meta/llama"


def test_data_beside_the_experiments_are_the_same_configuration_on_every_machine(
    first: Experiment,
) -> None:
    there = located(first, {"data": {"root": "./data"}})
    assert there["data"]["root"] == str(first.folder.parent / "data")
    assert located(first, {"data": {"root": "testbeds"}})["data"]["root"] == "testbeds"
    assert located(first, {"data": {"root": "/data"}})["data"]["root"] == "/data"


def test_a_base_without_a_recipe_or_of_another_made_one_is_refused(root: Path) -> None:
    with pytest.raises(SpecificationError) as caught:
        recipe(experiment(root), "no")
    assert str(caught.value) == says(
        "model.base", rule=["bases.yaml", "plain, general"], got="'made:no'"
    )
    twice = {"a": {"tuned": {"model.base": "made:plain"}}}
    (root / "bases.yaml").write_text(yaml.safe_dump(twice))
    with pytest.raises(SpecificationError) as caught:
        recipe(experiment(root), "a")
    assert str(caught.value) == says("bases.yaml: a.tuned", got="'made:plain'", cure="microworld")


def test_where_the_order_is_not_mixed_the_run_is_one_cycle(root: Path) -> None:
    order = {"data.mixture.order": "general_then_task"}
    found = experiment(root, {"set": order})
    config = configuration(found, expand(found)[0])
    assert value_of(config, "data.mixture.task_passes") == 40
    found = experiment(root, {"set": order, "n": [30]})
    with pytest.raises(SpecificationError, match="needs whole passes over the task examples"):
        configuration(found, expand(found)[0])


def test_a_cell_says_what_it_is() -> None:
    cell = Cell("translate", "tell", 10, 3, "v")
    assert cell.facts == {
        "testbed": "translate",
        "arm": "tell",
        "n": 10,
        "seed": 3,
        "variant": "v",
    }
