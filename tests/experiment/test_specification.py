from pathlib import Path
from typing import Any

import pytest
import yaml
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
        ({"title": None}, "title: must be given, got nothing. Write title: "),
        ({"title": 3}, "title: must be text, got 3. Write title: "),
        (
            {"extra": 1},
            "extra: must be one of title, claim, refuted_by, rule, cells, uses, got 'extra'",
        ),
        ({"use": ["../no"]}, "use: must be one of title, claim, refuted_by, rule, cells, uses, go"),
        ({"rule": {"n": 1}}, "rule: must be a mapping with a kind, got {'n': 1}. Write rule: "),
        ({"uses": ["../no"]}, "uses: must name folders with an experiment.yaml, got '../no'."),
        ({"uses": "../no"}, "uses: must be a list of folders, got '../no'. Write uses: ["),
        ({"cells": 3}, "cells: must be a list, got 3. Write cells: []."),
        (
            {"cells": [3]},
            "cells[0]: must be a mapping, got 3. Give it the keys testbeds, arms, n, ",
        ),
        (
            {"cells": [{**GROUP, "arms": ["no"]}]},
            "cells[0].arms: must be a list of names from arms.yaml (tell, sft, general_only, best",
        ),
        ({"cells": [{**GROUP, "arms": "tell"}]}, "cells[0].arms: must be a list of names from arm"),
        (
            {"cells": [{**GROUP, "testbeds": ["no"]}]},
            "cells[0].testbeds: must be a list of names from testbeds.yaml (translate, compose), "
            "got ['no'].",
        ),
        (
            {"cells": [{**GROUP, "n": [-1]}]},
            "cells[0].n: must be a list of whole numbers from 0 on, got [-1]. Write n: [",
        ),
        *(
            (
                {"cells": [{**GROUP, "seeds": seeds}]},
                "cells[0].seeds: must be a number of seeds from 1 on, or a list of seeds, got "
                f"{seeds}. Write seeds: 10.",
            )
            for seeds in (0, -2, True, ["x"])
        ),
        (
            {"cells": [{**GROUP, "seed": 3}]},
            "cells[0].seed: must be one of testbeds, arms, n, seeds, variants, set, got 'seed'. "
            "Did you mean 'seeds'?",
        ),
        *(
            (
                {"cells": [{**GROUP, "variants": variants}]},
                "cells[0].variants: must be a mapping of names made of letters, digits, '_' and "
                f"'.' to mappings of dotted keys, got {variants}.",
            )
            for variants in ([1], {"a-b": {}}, {"a": 3})
        ),
        (
            {"cells": [{**GROUP, "set": 3}]},
            "cells[0].set: must be a mapping of dotted keys, got 3. Write set: {model.optimizer.l",
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
        ("arms", {"a": 3}, "a: must be a mapping, got 3. Give it the keys label, tuned, set."),
        ("arms", {"a-b": {}}, "must hold names made of letters, digits, '_' and '.', got 'a-b'."),
        ("arms", {"a": {}}, "a.label: must be given, got nothing. Write label: "),
        ("arms", {"a": {"label": "A", "tuned": 3}}, "a.tuned: must be the name of an arm, got 3."),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "chance": "low"}},
            "t.chance: must be a number, got 'low'. Write chance: ",
        ),
        (
            "testbeds",
            {"t": {**TESTBEDS["compose"], "config": None}},
            "t.config: must be a mapping, got None. Write config: {}.",
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
        ("base", [], "must hold keys, got '[]'. Write KEY: VALUE lines."),
        ("base", None, "must be a file that can be read, got: No such file or directory. Check"),
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
