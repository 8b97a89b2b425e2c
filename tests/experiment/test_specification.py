from pathlib import Path
from typing import Any

import pytest
import yaml
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
        ({"title": None}, "title: is needed, got nothing. Add it."),
        ({"extra": 1}, "extra: must be one of cells, claim, refuted_by, rule, title, uses, got"),
        ({"rule": {"n": 1}}, "rule: must be a mapping with a kind, got {'n': 1}. Write rule:"),
        ({"uses": ["../no"]}, "uses: must name folders with an experiment.yaml, got '../no'."),
        ({"uses": "../no"}, "uses: must be a list, got '../no'. Write [...]."),
        ({"cells": 3}, "cells: must be a list, got 3. Write [...]."),
        ({"cells": [3]}, "cells[0]: must be a mapping, got 3. Write {testbeds: [...], arms:"),
        (
            {"cells": [{**GROUP, "arms": ["no"]}]},
            "cells[0].arms: must be one of tell, sft, general_only, best, base, got 'no'. Name one "
            "of them, or add it to arms.yaml.",
        ),
        (
            {"cells": [{**GROUP, "testbeds": ["no"]}]},
            "cells[0].testbeds: must be one of translate, compose, got 'no'. Name one of them, or "
            "add it to testbeds.yaml.",
        ),
        (
            {"cells": [{**GROUP, "n": [-1]}]},
            "cells[0].n: must be whole numbers from 0 on, got -1. Mend it.",
        ),
        (
            {"cells": [{**GROUP, "seeds": ["x"]}]},
            "cells[0].seeds: must be whole numbers from 0 on, got 'x'. Mend it.",
        ),
        *(
            (
                {"cells": [{**GROUP, "seeds": seeds}]},
                f"cells[0].seeds: must be a number of seeds from 1 on, or a list of them, got "
                f"{seeds}. Write 10, or [100, 101].",
            )
            for seeds in (0, -2, True)
        ),
        (
            {"cells": [{**GROUP, "variants": [1]}]},
            "cells[0].variants: must be a mapping, got [1]. Write NAME: {KEY: VALUE}.",
        ),
        (
            {"cells": [{**GROUP, "variants": {"a-b": {}}}]},
            "cells[0].variants: names are made of letters, digits, '_' and '.', got 'a-b'. Rename",
        ),
        (
            {"cells": [{**GROUP, "variants": {"a": 3}}]},
            "cells[0].variants.a: must be a mapping of dotted keys, got 3. Write "
            "{model.optimizer.lr: 0.004}.",
        ),
    ],
)
def test_a_mistake_in_an_experiment_is_named(
    root: Path, changes: dict[str, Any], message: str
) -> None:
    write_experiment(root / "first", **changes)
    with pytest.raises(SpecificationError) as caught:
        read_experiment(root / "first")
    assert f"{root / 'first' / 'experiment.yaml'}: {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("arms", {"a": 3}, "a: must be a mapping, got 3. Give its keys below it."),
        ("arms", {"a-b": {}}, "names are made of letters, digits, '_' and '.', got 'a-b'."),
        ("arms", {"a": {}}, "a.label: is needed, got nothing. Add it."),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "chance": "low"}},
            "t.chance: must be a number of points, got 'low'. Mend it.",
        ),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "config": None}},
            "t.config: must be a mapping, got None. Write {} for none.",
        ),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "score": "f1"}},
            "t.score: must be one of bleu, balanced_accuracy, exact_match, got 'f1'.",
        ),
        (
            "bases",
            {"b": {}},
            "b: must hold either tuned or pretrain, got nothing. Write tuned: {KEY: VALUE} for a",
        ),
        ("base", [], "must hold keys, got []. Add some."),
        ("base", None, "must be there, got no such file. Write it, or name another folder."),
    ],
)
def test_a_mistake_in_what_is_shared_is_named(
    root: Path, name: str, values: Any, message: str
) -> None:
    path = root / f"{name}.yaml"
    path.unlink()
    if values is not None:
        path.write_text(yaml.safe_dump(values))
    with pytest.raises(SpecificationError) as caught:
        read_experiment(root / "first")
    assert f"{path}: {message}" in str(caught.value)


def test_a_folder_without_an_experiment_and_broken_yaml_are_named(root: Path) -> None:
    with pytest.raises(SpecificationError, match=r"needs a folder with an experiment\.yaml"):
        read_experiment(root / "nothing")
    (root / "first" / "experiment.yaml").write_text("title: [\n")
    with pytest.raises(SpecificationError, match=r"experiment\.yaml:2: must be valid YAML, got: "):
        read_experiment(root / "first")
