from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import Says, says
from small_experiment import EXPERIMENT, TESTBEDS, write_experiment

from tell_lightning.experiment.specification import (
    Experiment,
    SpecificationError,
    read_experiment,
)

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


def test_the_digest_of_a_rule_changes_with_the_rule_alone(root: Path) -> None:
    before = read_experiment(root / "first").rule_digest
    write_experiment(root / "first", title="Other", rule=dict(reversed(EXPERIMENT["rule"].items())))
    assert read_experiment(root / "first").rule_digest == before
    write_experiment(root / "first", rule={"kind": "same_data", "n": [11]})
    assert read_experiment(root / "first").rule_digest != before


def test_used_folders_are_found_from_the_experiment(root: Path) -> None:
    write_experiment(root / "second", uses=["../first"])
    assert read_experiment(root / "second").uses == (root / "first",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": None}, says("experiment.yaml: title", got="nothing")),
        (
            {"extra": 1},
            says(
                "experiment.yaml: extra",
                rule="cells, claim, refuted_by, rule, title, uses",
                got="'extra'",
            ),
        ),
        (
            {"rule": {"n": 1}},
            says("experiment.yaml: rule", rule="kind", got="{'n': 1}", cure="kind"),
        ),
        ({"uses": ["../no"]}, says("experiment.yaml: uses", rule="experiment.yaml", got="'../no'")),
        ({"uses": "../no"}, says("experiment.yaml: uses", got="'../no'", cure="[...]")),
        ({"cells": 3}, says("experiment.yaml: cells", got="3", cure="[...]")),
        ({"cells": [3]}, says("experiment.yaml: cells[0]", got="3", cure="[...]")),
        (
            {"cells": [{**GROUP, "arms": ["no"]}]},
            says(
                "experiment.yaml: cells[0].arms",
                rule=["general_only", "tell", "sft", "best", "base"],
                got="'no'",
                cure="arms.yaml",
            ),
        ),
        (
            {"cells": [{**GROUP, "testbeds": ["no"]}]},
            says(
                "experiment.yaml: cells[0].testbeds",
                rule=["translate", "compose"],
                got="'no'",
                cure="testbeds.yaml",
            ),
        ),
        (
            {"cells": [{**GROUP, "n": [-1]}]},
            says("experiment.yaml: cells[0].n", rule="0", got="-1"),
        ),
        (
            {"cells": [{**GROUP, "seeds": ["x"]}]},
            says("experiment.yaml: cells[0].seeds", rule="0", got="'x'"),
        ),
        *(
            (
                {"cells": [{**GROUP, "seeds": seeds}]},
                says(
                    "experiment.yaml: cells[0].seeds", rule="1", got=str(seeds), cure="[100, 101]"
                ),
            )
            for seeds in (0, -2, True)
        ),
        (
            {"cells": [{**GROUP, "variants": [1]}]},
            says("experiment.yaml: cells[0].variants", got="[1]", cure="NAME: {KEY: VALUE}"),
        ),
        (
            {"cells": [{**GROUP, "variants": {"a-b": {}}}]},
            says("experiment.yaml: cells[0].variants", rule=["'_'", "'.'"], got="'a-b'"),
        ),
        (
            {"cells": [{**GROUP, "variants": {"a": 3}}]},
            says(
                "experiment.yaml: cells[0].variants.a", got="3", cure=["model.optimizer.lr: 0.004"]
            ),
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
        ("arms", {"a": 3}, says("arms.yaml: a", got="3")),
        ("arms", {"a-b": {}}, says("arms.yaml", rule=["'_'", "'.'"], got="'a-b'")),
        ("arms", {"a": {}}, says("arms.yaml: a.label", got="nothing")),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "chance": "low"}},
            says("testbeds.yaml: t.chance", got="'low'"),
        ),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "config": None}},
            says("testbeds.yaml: t.config", got="None", cure="{}"),
        ),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "score": "f1"}},
            says(
                "testbeds.yaml: t.score",
                rule=["balanced_accuracy", "exact_match", "bleu"],
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
        ("base", [], says("base.yaml", rule="keys", got="[]")),
        ("base", None, says("base.yaml", got="no such file")),
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
    with pytest.raises(SpecificationError, match=r"experiment\.yaml.*, got"):
        read_experiment(root / "nothing")
    (root / "first" / "experiment.yaml").write_text("title: [\n")
    with pytest.raises(SpecificationError, match=r"experiment\.yaml:2: .*YAML.*, got: "):
        read_experiment(root / "first")
