"""What an experiment claims and which runs it has, read from its YAML files and checked.

    experiments/base.yaml testbeds.yaml arms.yaml [bases.yaml]      what all of them share
    experiments/<name>/experiment.yaml                              one claim, its rule, its cells

A mistake is named with its file and key. No torch.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tell_lightning.experiment.forms import (
    LIST,
    MAPPING,
    NUMBER,
    SETTINGS,
    TEXT,
    YES_NO,
    Form,
    SpecificationError,
    check_keys,
    is_whole,
    list_of,
    one_of,
)
from tell_lightning.experiment.items import SCORES
from tell_lightning.experiment.overlays import merged
from tell_lightning.files import read_yaml

UNTRAINED = "base"
"""The arm that trains nothing."""
_NAME = re.compile(r"[A-Za-z0-9_.]+")
_NAMES = "names made of letters, digits, '_' and '.'"
_EXPERIMENT = {
    **dict.fromkeys(("title", "claim", "refuted_by"), TEXT),
    "rule": Form(
        "a mapping with a kind",
        lambda value: isinstance(value, Mapping) and isinstance(value.get("kind"), str),
        "{kind: tuning}",
    ),
    "cells": LIST,
}
_USES = Form(
    "a list of folders", lambda value: isinstance(value, list) and all(value), "[../same_data]"
)
_SIZES = Form(
    "a list of whole numbers from 0 on",
    lambda value: isinstance(value, list) and all(map(is_whole, value)),
    "[10, 100]",
)
_SEEDS = Form(
    "a number of seeds from 1 on, or a list of seeds",
    lambda value: is_whole(value, 1) or _SIZES.holds(value),
    "10",
)
_VARIANTS = Form(
    f"a mapping of {_NAMES} to mappings of dotted keys",
    lambda value: (
        isinstance(value, Mapping)
        and all(_NAME.fullmatch(str(name)) for name in value)
        and all(map(SETTINGS.holds, value.values()))
    ),
    "{low: {model.optimizer.lr: 0.001}}",
)


@dataclass(frozen=True)
class Testbed:
    """One task with its data."""

    name: str
    label: str
    task: str
    score: str
    """The score that rules are about, one of `items.SCORES`, in points from 0 to 100."""
    chance: float
    """The score of a prediction without any skill, in points."""
    config: Mapping[str, Any]
    """Overlay over the base configuration: that of the testbed's `file`, and its own over it."""

    __test__ = False  # pytest takes a class of this name for tests


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str
    label: str
    tuned: str | None
    """The arm whose tuned settings this one takes; None: those of the base configuration."""
    set: Mapping[str, Any]
    """Values by dotted key."""
    few_shot: bool = False
    """Whether nothing is trained, and the task examples stand before each prompt instead."""

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.name != UNTRAINED and not self.few_shot

    @property
    def has_examples(self) -> bool:
        """Whether it gets task examples, so that their number matters."""
        trained = self.trains and self.set.get("data.mixture.arm") != "general_only"
        return trained or self.few_shot


@dataclass(frozen=True)
class Group:
    """Cells of some testbeds and arms: each arm with each number of examples and each seed."""

    testbeds: tuple[str, ...]
    arms: tuple[str, ...]
    n: tuple[int, ...]
    seeds: tuple[int, ...]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values by dotted key, by name; empty: one cell without a variant."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Values by dotted key for all of them; a variant's win."""


@dataclass(frozen=True)
class Experiment:
    """One folder: a claim, its rule and its cells."""

    folder: Path
    title: str
    claim: str
    refuted_by: str
    rule: Mapping[str, Any]
    uses: tuple[Path, ...]
    groups: tuple[Group, ...]
    testbeds: Mapping[str, Testbed]
    arms: Mapping[str, Arm]
    base: Mapping[str, Any]
    bases: Mapping[str, Mapping[str, Any]]
    """Recipes of the bases that are made before the cells, by name."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def kind(self) -> str:
        """The kind of the rule."""
        return str(self.rule["kind"])

    @property
    def rule_digest(self) -> str:
        """Digest of the rule. Every result is stored with it."""
        return digest(self.rule)

    @property
    def results(self) -> Path:
        """Where the results lie."""
        return self.folder / "results"


def digest(value: Any) -> str:
    """Digest plain values: the first 12 hexadecimal digits of the SHA-256 of their canonical JSON.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_experiment(folder: Path) -> Experiment:
    """Read a folder's `experiment.yaml` and what lies beside the folder.

    Raises:
        SpecificationError: A file is missing or no YAML, or a value in it is wrong.
    """
    path = folder / "experiment.yaml"
    if not path.is_file():
        raise SpecificationError(
            f"experiment: needs a folder with an experiment.yaml, got '{folder}' without it. "
            "Name a folder of experiments/."
        )
    shared = folder.resolve().parent
    testbeds = _read_testbeds(shared / "testbeds.yaml")
    arms = _read_arms(shared / "arms.yaml")
    values = read_yaml(path, SpecificationError)
    check_keys(f"{path}: ", values, _EXPERIMENT, {"uses": _USES})
    bases = shared / "bases.yaml"
    return Experiment(
        folder=folder,
        **{key: values[key].strip() for key in ("title", "claim", "refuted_by")},
        rule=values["rule"],
        uses=tuple(_used(path, str(used)) for used in values.get("uses", [])),
        groups=tuple(
            _group(f"{path}: cells[{index}].", group, testbeds, arms)
            for index, group in enumerate(values["cells"])
        ),
        testbeds=testbeds,
        arms=arms,
        base=read_yaml(shared / "base.yaml", SpecificationError),
        bases=_read_bases(bases) if bases.is_file() else {},
    )


def rule_digests(folder: Path) -> dict[str, str]:
    """Digest the rule of a folder and of those beside it, by name: other claims may read it."""
    paths = sorted(folder.resolve().parent.glob("*/experiment.yaml"))
    rules = {path.parent.name: read_yaml(path, SpecificationError).get("rule") for path in paths}
    return {name: digest(rule) for name, rule in rules.items()}


def _used(path: Path, used: str) -> Path:
    other = Path(os.path.normpath(path.parent / used))
    if not (other / "experiment.yaml").is_file():
        raise SpecificationError(
            f"{path}: uses: must name folders with an experiment.yaml, got '{used}'. "
            "Paths start from this folder: ../NAME."
        )
    return other


def _read_testbeds(path: Path) -> dict[str, Testbed]:
    needed = {"task": TEXT, "score": one_of(SCORES), "chance": NUMBER, "config": MAPPING}
    testbeds = {}
    for name, values in _named(path, needed, {"label": TEXT, "file": TEXT}):
        own = {"label": name, **values, "chance": float(values["chance"])}
        if file := own.pop("file", None):
            below = read_yaml(path.parent / file, SpecificationError)
            own["config"] = merged(below, values["config"])
        testbeds[name] = Testbed(name=name, **own)
    return testbeds


def _read_arms(path: Path) -> dict[str, Arm]:
    tuned = Form("the name of an arm", lambda name: name is None or isinstance(name, str), "tell")
    optional = {"tuned": tuned, "set": SETTINGS, "few_shot": YES_NO}
    return {
        name: Arm(
            name,
            values["label"],
            values.get("tuned"),
            _settings(values.get("set")),
            values.get("few_shot", False),
        )
        for name, values in _named(path, {"label": TEXT}, optional)
    }


def _read_bases(path: Path) -> dict[str, Mapping[str, Any]]:
    bases = dict(_named(path, {}, {"tuned": MAPPING, "pretrain": MAPPING}))
    for name, values in bases.items():
        if len(values) != 1:
            raise SpecificationError(
                f"{path}: {name}: must hold either tuned or pretrain, got "
                f"{' and '.join(values) or 'nothing'}. Write tuned: {{KEY: VALUE}} for a base "
                "tuned on the general rows, pretrain: {KEY: VALUE} for one from nothing."
            )
    return bases


def _group(
    where: str, values: Any, testbeds: Mapping[str, Testbed], arms: Mapping[str, Arm]
) -> Group:
    needed = {
        "testbeds": list_of(testbeds, "testbeds.yaml"),
        "arms": list_of(arms, "arms.yaml"),
        "n": _SIZES,
        "seeds": _SEEDS,
    }
    check_keys(where, values, needed, {"variants": _VARIANTS, "set": SETTINGS})
    seeds = values["seeds"]
    return Group(
        testbeds=tuple(values["testbeds"]),
        arms=tuple(values["arms"]),
        n=tuple(values["n"]),
        seeds=tuple(range(seeds) if isinstance(seeds, int) else seeds),
        variants={str(name): _settings(each) for name, each in values.get("variants", {}).items()},
        set=_settings(values.get("set")),
    )


def _named(
    path: Path, needed: Mapping[str, Form], optional: Mapping[str, Form]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read a file of mappings by name; the names become parts of the names of files."""
    for name, values in read_yaml(path, SpecificationError).items():
        if not _NAME.fullmatch(str(name)):
            raise SpecificationError(f"{path}: must hold {_NAMES}, got '{name}'. Rename it.")
        check_keys(f"{path}: {name}.", values, needed, optional)
        yield str(name), values


def _settings(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {str(key): value for key, value in (values or {}).items()}
