from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import Says, says
from small_experiment import EXPERIMENT, TESTBEDS, write_experiment

from tell_lightning.experiment.forms import SpecificationError
from tell_lightning.experiment.specification import Experiment, read_experiment

GROUP = EXPERIMENT["cells"][0]


def test_an_experiment_is_read_with_what_it_shares(first: Experiment) -> None:
    assert (first.name, first.kind, first.title) == ("first", "same_data", "First")
    (group,) = first.groups
    assert (group.testbeds, group.arms, group.n, group.seeds) == (
        ("translate",),
        ("tell", "sft"),
        (10,),
        (0, 1),
    )
    assert first.testbeds["compose"].label == "compose"
    assert not first.arms["base"].trains
    assert not first.arms["general_only"].has_examples
    assert first.arms["best"].tuned == "tell"


def test_an_arm_with_the_examples_in_the_prompt_has_examples_and_trains_nothing(root: Path) -> None:
    arms = yaml.safe_load((root / "arms.yaml").read_text())
    arms["prompted"] = {"label": "few-shot", "few_shot": True}
    (root / "arms.yaml").write_text(yaml.safe_dump(arms))
    arm = read_experiment(root / "first").arms["prompted"]
    assert (arm.trains, arm.has_examples) == (False, True)


def test_a_testbed_may_build_on_a_file(root: Path) -> None:
    (root / "task.yaml").write_text("data: {max_tokens: 64, tasks: {compose: {dev: dev.jsonl}}}\n")
    own = {"data": {"max_tokens": 32}}
    testbed = {**TESTBEDS["compose"], "file": "task.yaml", "config": own}
    (root / "testbeds.yaml").write_text(yaml.safe_dump({**TESTBEDS, "compose": testbed}))
    found = read_experiment(root / "first").testbeds["compose"]
    assert found.config == {"data": {"max_tokens": 32, "tasks": {"compose": {"dev": "dev.jsonl"}}}}


def test_the_digest_of_a_rule_changes_with_the_rule_alone(root: Path) -> None:
    before = read_experiment(root / "first").rule_digest
    write_experiment(root / "first", title="Other", rule=dict(reversed(EXPERIMENT["rule"].items())))
    assert read_experiment(root / "first").rule_digest == before
    write_experiment(root / "first", rule={"kind": "same_data", "n": [11]})
    assert read_experiment(root / "first").rule_digest != before


def test_used_folders_are_found_from_the_experiment(root: Path) -> None:
    write_experiment(root / "second", uses=["../first"])
    assert read_experiment(root / "second").uses == (root / "first",)


KEYS = "title, claim, refuted_by, rule, cells, uses"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": None}, says("experiment.yaml: title", got="nothing", cure="title: ")),
        ({"title": 3}, says("experiment.yaml: title", got="3", cure="title: ")),
        (
            {"extra": 1},
            says("experiment.yaml: extra", rule=KEYS, got="'extra'"),
        ),
        ({"use": ["../no"]}, says("experiment.yaml: use", rule=KEYS, got="'use'", cure="'uses'")),
        (
            {"rule": {"n": 1}},
            says("experiment.yaml: rule", rule="kind", got="{'n': 1}", cure="rule: "),
        ),
        ({"uses": ["../no"]}, says("experiment.yaml: uses", rule="experiment.yaml", got="'../no'")),
        ({"uses": "../no"}, says("experiment.yaml: uses", got="'../no'", cure="uses: [")),
        ({"cells": 3}, says("experiment.yaml: cells", got="3", cure="cells: []")),
        (
            {"cells": [3]},
            says("experiment.yaml: cells[0]", got="3", cure="testbeds, arms, n"),
        ),
        (
            {"cells": [{**GROUP, "arms": ["no"]}]},
            says(
                "experiment.yaml: cells[0].arms",
                rule=["arms.yaml", "tell, sft, general_only, best"],
                got="['no']",
            ),
        ),
        (
            {"cells": [{**GROUP, "arms": "tell"}]},
            says("experiment.yaml: cells[0].arms", rule="arms.yaml", got="'tell'"),
        ),
        (
            {"cells": [{**GROUP, "testbeds": ["no"]}]},
            says(
                "experiment.yaml: cells[0].testbeds",
                rule=["testbeds.yaml", "translate, compose"],
                got="['no']",
            ),
        ),
        (
            {"cells": [{**GROUP, "n": [-1]}]},
            says("experiment.yaml: cells[0].n", rule="0", got="[-1]", cure="n: ["),
        ),
        *(
            (
                {"cells": [{**GROUP, "seeds": seeds}]},
                says("experiment.yaml: cells[0].seeds", rule="1", got=str(seeds), cure="seeds: 10"),
            )
            for seeds in (0, -2, True, ["x"])
        ),
        (
            {"cells": [{**GROUP, "seed": 3}]},
            says(
                "experiment.yaml: cells[0].seed",
                rule="testbeds, arms, n, seeds, variants, set",
                got="'seed'",
                cure="'seeds'",
            ),
        ),
        *(
            (
                {"cells": [{**GROUP, "variants": variants}]},
                says("experiment.yaml: cells[0].variants", rule=["'_'", "'.'"], got=str(variants)),
            )
            for variants in ([1], {"a-b": {}}, {"a": 3})
        ),
        (
            {"cells": [{**GROUP, "set": 3}]},
            says("experiment.yaml: cells[0].set", got="3", cure="set: {model.optimizer.lr"),
        ),
    ],
)
def test_a_mistake_in_an_experiment_is_named(
    root: Path, changes: dict[str, Any], message: Says
) -> None:
    write_experiment(root / "first", **changes)
    with pytest.raises(SpecificationError) as caught:
        read_experiment(root / "first")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("arms", {"a": 3}, says("arms.yaml: a", got="3", cure="label, tuned, set, few_shot")),
        ("arms", {"a-b": {}}, says("arms.yaml", rule=["'_'", "'.'"], got="'a-b'")),
        ("arms", {"a": {}}, says("arms.yaml: a.label", got="nothing", cure="label: ")),
        ("arms", {"a": {"label": "A", "tuned": 3}}, says("arms.yaml: a.tuned", got="3")),
        (
            "arms",
            {"a": {"label": "A", "few_shot": "yes"}},
            says("arms.yaml: a.few_shot", rule="true or false", got="'yes'"),
        ),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "file": "no.yaml"}},
            says("no.yaml", got="No such file or directory"),
        ),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "chance": "low"}},
            says("testbeds.yaml: t.chance", got="'low'", cure="chance: "),
        ),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "config": None}},
            says("testbeds.yaml: t.config", got="None", cure="config: {}"),
        ),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "score": "f1"}},
            says(
                "testbeds.yaml: t.score",
                rule="bleu, balanced_accuracy, accuracy, exact_match",
                got="'f1'",
            ),
        ),
        (
            "bases",
            {"b": {}},
            says(
                "bases.yaml: b",
                rule=["tuned", "pretrain"],
                got="nothing",
                cure="tuned: {KEY: VALUE}",
            ),
        ),
        ("base", [], says("base.yaml", rule="keys", got="'[]'", cure="KEY: VALUE")),
        ("base", None, says("base.yaml", got="No such file or directory")),
    ],
)
def test_a_mistake_in_what_is_shared_is_named(
    root: Path, name: str, values: Any, message: Says
) -> None:
    path = root / f"{name}.yaml"
    path.unlink()
    if values is not None:
        path.write_text(yaml.safe_dump(values))
    with pytest.raises(SpecificationError) as caught:
        read_experiment(root / "first")
    assert str(caught.value) == message


def test_a_folder_without_an_experiment_and_broken_yaml_are_named(root: Path) -> None:
    with pytest.raises(SpecificationError, match=r"needs a folder with an experiment\.yaml"):
        read_experiment(root / "nothing")
    (root / "first" / "experiment.yaml").write_text("title: [\n")
    with pytest.raises(SpecificationError, match=r"experiment\.yaml:2: must be valid YAML, got: "):
        read_experiment(root / "first")
