"""What an experiment asks and which cells it has, as its YAML files say it.

A folder enters; its claim, its rule, its groups of cells, and the testbeds, arms and base
configuration that it shares with the folders beside it leave. Everything is checked here, with the
file and the key named. No torch; milliseconds.

    experiments/base.yaml testbeds.yaml arms.yaml [bases.yaml]      what all of them share
    experiments/<name>/experiment.yaml                              one claim, its rule, its cells
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.errors import TellError
from tell_lightning.experiment.items import SCORES

UNTRAINED = "base"
"""The arm that trains nothing."""
_NAME = re.compile(r"[A-Za-z0-9_.]+")
_KEYS = {"title", "claim", "refuted_by", "rule", "uses", "cells"}


class SpecificationError(TellError):
    """An experiment that is not written as it must be."""


@dataclass(frozen=True)
class Testbed:
    """One task with its data."""

    name: str
    label: str
    task: str
    score: str
    """The score that rules are about, one of `items.SCORES`, in points from 0 to 100."""
    chance: float
    """What needs no skill, in points."""
    config: Mapping[str, Any]
    """Overlay over the base configuration."""

    __test__ = False  # no class of tests, whatever pytest thinks


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str
    label: str
    tuned: str | None
    """The arm whose tuned settings this one takes; None: those of the base configuration."""
    set: Mapping[str, Any]
    """Values by dotted key."""

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.name != UNTRAINED

    @property
    def has_examples(self) -> bool:
        """Whether it trains on task examples, so that their number matters."""
        return self.trains and self.set.get("data.mixture.arm") != "general_only"


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
        """What every result is stored with: it changes with the rule."""
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
        SpecificationError: A file is missing, or something in one is not as it must be.
        TellError: A file is no YAML mapping.
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
    values = read_mapping(path)
    _check_keys(path, "", values, _KEYS, needed=_KEYS - {"uses"})
    rule = values["rule"]
    if not isinstance(rule, Mapping) or not isinstance(rule.get("kind"), str):
        raise SpecificationError(
            f"{path}: rule: must be a mapping with a kind, got {rule!r:.60}. Write rule: "
            "{kind: ...}."
        )
    groups = _list(path, "cells", values["cells"])
    uses = [str(used) for used in _list(path, "uses", values.get("uses", []))]
    bases = shared / "bases.yaml"
    return Experiment(
        folder=folder,
        **{key: str(values[key]).strip() for key in ("title", "claim", "refuted_by")},
        rule=rule,
        uses=tuple(_used(path, folder, used) for used in uses),
        groups=tuple(
            _group(path, f"cells[{index}]", group, testbeds, arms)
            for index, group in enumerate(groups)
        ),
        testbeds=testbeds,
        arms=arms,
        base=read_mapping(shared / "base.yaml"),
        bases=_read_bases(bases) if bases.is_file() else {},
    )


def rule_digests(folder: Path) -> dict[str, str]:
    """Digest the rule of a folder and of those beside it, by name: other claims may read it."""
    paths = sorted(folder.resolve().parent.glob("*/experiment.yaml"))
    return {path.parent.name: digest(read_mapping(path).get("rule")) for path in paths}


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds keys.

    Raises:
        SpecificationError: It is missing, no YAML, or holds no keys.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpecificationError(
            f"{path}: must be there, got no such file. Write it, or name another folder."
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "bytes that are no UTF-8 text"
        raise SpecificationError(
            f"{path}{line}: must be valid YAML, got: {problem}. Check brackets, quotes and "
            "indentation here and above."
        ) from error
    if not isinstance(values, dict):
        raise SpecificationError(f"{path}: must hold keys, got {values!r:.60}. Add some.")
    return values


def _used(path: Path, folder: Path, used: str) -> Path:
    other = Path(os.path.normpath(folder / used))
    if not (other / "experiment.yaml").is_file():
        raise SpecificationError(
            f"{path}: uses: must name folders with an experiment.yaml, got '{used}'. "
            "Paths start from this folder: ../NAME."
        )
    return other


def _read_testbeds(path: Path) -> dict[str, Testbed]:
    testbeds = {}
    keys = {"label", "task", "score", "chance", "config"}
    for name, values in _named(path):
        _check_keys(path, name, values, keys, needed=keys - {"label"})
        if values["score"] not in SCORES:
            raise SpecificationError(
                f"{path}: {name}.score: must be one of {', '.join(SCORES)}, got "
                f"'{values['score']}'. Choose one of them."
            )
        chance, config = values["chance"], values["config"]
        if not isinstance(chance, int | float) or isinstance(chance, bool):
            raise SpecificationError(
                f"{path}: {name}.chance: must be a number of points, got {chance!r:.60}. Mend it."
            )
        if not isinstance(config, Mapping):
            raise SpecificationError(
                f"{path}: {name}.config: must be a mapping, got {config!r:.60}. Write {{}} for "
                "none."
            )
        testbeds[name] = Testbed(
            name,
            str(values.get("label", name)),
            str(values["task"]),
            str(values["score"]),
            float(chance),
            config,
        )
    return testbeds


def _read_arms(path: Path) -> dict[str, Arm]:
    arms = {}
    for name, values in _named(path):
        _check_keys(path, name, values, {"label", "tuned", "set"}, needed={"label"})
        settings = _settings(path, f"{name}.set", values.get("set"))
        arms[name] = Arm(name, str(values["label"]), values.get("tuned"), settings)
    return arms


def _read_bases(path: Path) -> dict[str, Mapping[str, Any]]:
    bases = {}
    for name, values in _named(path):
        if len(values) != 1 or not values.keys() <= {"tuned", "pretrain"}:
            raise SpecificationError(
                f"{path}: {name}: must hold either tuned or pretrain, got "
                f"{', '.join(map(str, values)) or 'nothing'}. Write tuned: {{KEY: VALUE}} for a "
                "base tuned on the general rows, pretrain: {KEY: VALUE} for one from nothing."
            )
        bases[name] = values
    return bases


def _group(
    path: Path,
    where: str,
    values: Any,
    testbeds: Mapping[str, Testbed],
    arms: Mapping[str, Arm],
) -> Group:
    if not isinstance(values, Mapping):
        raise SpecificationError(
            f"{path}: {where}: must be a mapping, got {values!r:.60}. Write {{testbeds: [...], "
            "arms: [...], n: [...], seeds: 10}."
        )
    needed = {"testbeds", "arms", "n", "seeds"}
    _check_keys(path, where, values, {*needed, "variants", "set"}, needed=needed)
    for key, known, file in (("testbeds", testbeds, "testbeds"), ("arms", arms, "arms")):
        for name in _list(path, f"{where}.{key}", values[key]):
            if name not in known:
                raise SpecificationError(
                    f"{path}: {where}.{key}: must be one of {', '.join(known)}, got '{name}'. "
                    f"Name one of them, or add it to {file}.yaml."
                )
    seeds = values["seeds"]
    if isinstance(seeds, int):
        if isinstance(seeds, bool) or seeds < 1:
            raise SpecificationError(
                f"{path}: {where}.seeds: must be a number of seeds from 1 on, or a list of them, "
                f"got {seeds!r}. Write 10, or [100, 101]."
            )
        seeds = list(range(seeds))
    variants = values.get("variants") or {}
    if not isinstance(variants, Mapping):
        raise SpecificationError(
            f"{path}: {where}.variants: must be a mapping, got {variants!r:.60}. Write NAME: "
            "{KEY: VALUE}."
        )
    for name in variants:
        _check_name(path, f"{where}.variants", str(name))
    return Group(
        tuple(values["testbeds"]),
        tuple(values["arms"]),
        tuple(_numbers(path, f"{where}.n", values["n"])),
        tuple(_numbers(path, f"{where}.seeds", seeds)),
        {
            str(name): _settings(path, f"{where}.variants.{name}", settings)
            for name, settings in variants.items()
        },
        _settings(path, f"{where}.set", values.get("set")),
    )


def _named(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    named = []
    for name, values in read_mapping(path).items():
        _check_name(path, "", str(name))
        if not isinstance(values, Mapping):
            raise SpecificationError(
                f"{path}: {name}: must be a mapping, got {values!r:.60}. Give its keys below it."
            )
        named.append((str(name), values))
    return named


def _check_name(path: Path, where: str, name: str) -> None:
    """Refuse a name that would not do as part of a cell's name and of a file's."""
    if not _NAME.fullmatch(name):
        raise SpecificationError(
            f"{path}: {f'{where}: ' if where else ''}names are made of letters, digits, '_' and "
            f"'.', got '{name}'. Rename it."
        )


def _settings(path: Path, where: str, values: Any) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise SpecificationError(
            f"{path}: {where}: must be a mapping of dotted keys, got {values!r:.60}. Write "
            "{model.optimizer.lr: 0.004}."
        )
    return {str(key): value for key, value in values.items()}


def _numbers(path: Path, where: str, values: Any) -> list[int]:
    numbers = _list(path, where, values)
    for value in numbers:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise SpecificationError(
                f"{path}: {where}: must be whole numbers from 0 on, got {value!r}. Mend it."
            )
    return list(numbers)


def _list(path: Path, where: str, values: Any) -> Sequence[Any]:
    if not isinstance(values, list):
        raise SpecificationError(
            f"{path}: {where}: must be a list, got {values!r:.60}. Write [...]."
        )
    return values


def _check_keys(
    path: Path, where: str, values: Mapping[str, Any], known: set[str], *, needed: set[str]
) -> None:
    place = f"{path}: {where}." if where else f"{path}: "
    for key in values:
        if key not in known:
            raise SpecificationError(
                f"{place}{key}: must be one of {', '.join(sorted(known))}, got '{key}'. "
                "Rename or remove it."
            )
    for key in sorted(needed - values.keys()):
        raise SpecificationError(f"{place}{key}: is needed, got nothing. Add it.")
