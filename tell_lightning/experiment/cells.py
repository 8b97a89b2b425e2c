"""Cells: each is one run, with its name, its configuration and the digest of the configuration.

The configuration is merged from: the shared one, the testbed's, the settings that tuning chose for
the arm, the arm's, the group's, the variant's, and the user's files. Later ones win.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tell_lightning.experiment.bases import MADE, recipe
from tell_lightning.experiment.forms import (
    MAPPING,
    NUMBER,
    Form,
    SpecificationError,
    check_plain,
)
from tell_lightning.experiment.overlays import merged, nested, value_of
from tell_lightning.experiment.specification import Arm, Experiment, Group, digest
from tell_lightning.files import read_yaml
from tell_lightning.settings import EXTENDS, SHIPPED

TUNING = "tuning"
"""The kind of rule, and the name of the folder, that choose the settings of each arm."""
APART = {"run": None, "data.cache_dir": None, "eval.samples": None, "eval.table_rows": None}
"""Keys without an effect on a result; the digest leaves them out."""

PHASED = ("general_then_task", "task_then_general", "late_mix")
"""Orders with phases: a cycle begins with other rows than it ends with."""
WHOLE = 1e-6
"""Passes that differ less than this from a whole number are whole."""

_TASKS = Form(
    "a mapping of names to tasks",
    lambda value: isinstance(value, Mapping) and all(map(MAPPING.holds, value.values())),
    "{translate: {...}}",
)
_FORMS: Mapping[str, Form] = {
    **dict.fromkeys(("data", "data.mixture", "model", "trainer"), MAPPING),
    "data.tasks": _TASKS,
    **dict.fromkeys(("trainer.max_steps", "data.optimizer_batch"), NUMBER),
    **{f"data.mixture.{key}": NUMBER for key in ("task_share", "task_examples", "task_passes")},
}
"""Forms of the values that are read here; `fit` checks all others."""

Chosen = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
"""`chosen.json`: by testbed, tuned arm and number of examples the variant with its `set`."""


class UntunedError(SpecificationError):
    """An arm whose settings tuning has not chosen yet."""


@dataclass(frozen=True)
class Cell:
    """One run."""

    testbed: str
    arm: str
    n: int
    """Task examples; 0 where the arm has none."""
    seed: int
    variant: str | None = None
    group: Mapping[str, Any] = field(default_factory=dict, compare=False)
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Values of the variant by dotted key."""

    @property
    def name(self) -> str:
        """The name, which is also that of the result's file.

        >>> Cell("translate", "tell", 10, 3, "share_0.05").name
        'translate-tell-n10-share_0.05-s3'
        """
        variant = f"-{self.variant}" if self.variant else ""
        return f"{self.testbed}-{self.arm}-n{self.n}{variant}-s{self.seed}"

    @property
    def facts(self) -> dict[str, Any]:
        """The description of the cell that its result holds."""
        return {key: getattr(self, key) for key in ("testbed", "arm", "n", "seed", "variant")}


def expand(experiment: Experiment) -> list[Cell]:
    """List the cells: by group, and in a group by testbed, n, seed, arm and variant.

    An arm without task examples has one cell, n = 0, for all n of the group. All arms of a seed
    follow each other, so that an experiment that is stopped has complete pairs.

    Raises:
        SpecificationError: Two groups give a cell of one name different settings.
    """
    cells: dict[str, Cell] = {}
    for group in experiment.groups:
        for cell in _of_group(experiment, group):
            other = cells.setdefault(cell.name, cell)
            if (other.group, other.settings) != (cell.group, cell.settings):
                raise SpecificationError(
                    f"{experiment.folder / 'experiment.yaml'}: cells: a run must have one "
                    f"configuration, got two for {cell.name}. Give one of them a variant's name."
                )
    return list(cells.values())


def _of_group(experiment: Experiment, group: Group) -> Iterator[Cell]:
    variants: list[tuple[str | None, Mapping[str, Any]]] = [*group.variants.items()]
    variants = variants or [(None, {})]
    for testbed in group.testbeds:
        for n in group.n:
            for seed in group.seeds:
                for name in group.arms:
                    examples = n if experiment.arms[name].has_examples else 0
                    for variant, settings in variants:
                        yield Cell(testbed, name, examples, seed, variant, group.set, settings)


def configuration(
    experiment: Experiment,
    cell: Cell,
    chosen: Chosen | None = None,
    overlays: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Merge the configuration of a cell, as a file for `fit`.

    Args:
        experiment: The experiment.
        cell: One of its cells.
        chosen: The settings that tuning chose; needed if the arm is tuned.
        overlays: The user's own files.

    Raises:
        UntunedError: The arm is tuned and nothing is chosen for it.
        SpecificationError: A value has another form than `fit` takes.
    """
    arm = experiment.arms[cell.arm]
    own: dict[str, Any] = {"seed_everything": cell.seed}
    if cell.n:
        own["data"] = {"mixture": {"task_examples": cell.n}}
    config = merged(
        experiment.base,
        experiment.testbeds[cell.testbed].config,
        own,
        nested(_tuned(experiment, cell, arm, chosen)),
        nested(arm.set),
        nested(cell.group),
        nested(cell.settings),
        *overlays,
    )
    where = f"{experiment.folder / 'experiment.yaml'}: {cell.name}"
    for key, form in _FORMS.items():
        value = value_of(config, key)
        if value is not None and not form.holds(value):
            raise SpecificationError(
                f"{where}.{key}: must be {form.says}, got {value!r:.60}. Write {key}: "
                f"{form.example} in the file that sets it."
            )
    check_plain(where, config)
    return merged(config, _in_one_cycle(config))


def config_digest(experiment: Experiment, config: Mapping[str, Any]) -> str:
    """Digest a cell's configuration, merged over the shipped one that it extends.

    The places of the run and its cache are left out. For a base that the runner makes, its recipe
    counts.

    Args:
        experiment: Has the recipes.
        config: What `configuration` returned.
    """
    own = {key: value for key, value in config.items() if key != EXTENDS}
    whole = _as_first_named(merged(_extended(config), own, nested(APART)))
    base = str(value_of(config, "model.base") or "")
    if base.startswith(MADE):
        whole["recipe"] = recipe(experiment, base.removeprefix(MADE)).facts
    return digest(whole)


def read_chosen(experiment: Experiment, path: Path | None = None) -> Chosen | None:
    """Read what tuning has chosen; None if it has not, or if this experiment is the tuning.

    Args:
        experiment: The experiment.
        path: The file; None: the one in the tuning folder beside the experiment's.

    Raises:
        SpecificationError: The file is broken.
    """
    path = path or tuning_folder(experiment) / "chosen.json"
    return None if experiment.kind == TUNING else read_choice(path)


def read_choice(path: Path) -> Chosen | None:
    """Read what tuning has chosen; None if there is no such file.

    Raises:
        SpecificationError: The file is broken.
    """
    if not path.is_file():
        return None
    cure = (
        "Delete it, and let `experiment` write it again: python -m tell_lightning experiment "
        f"{path.parent}"
    )
    try:
        chosen = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SpecificationError(f"{path}: must be JSON, got: {error}. {cure}") from error
    if not _is_choice(chosen):
        raise SpecificationError(
            f"{path}: must hold, by testbed, arm and number of examples, a mapping with set, got "
            f"{chosen!r:.60}. {cure}"
        )
    return dict(chosen)


def _is_choice(value: Any, keys: int = 3) -> bool:
    """Return whether a value is a `Chosen`: so many mappings in each other, then a `set`."""
    if not isinstance(value, dict):
        return False
    if keys == 0:
        return isinstance(value.get("set"), dict)
    named = keys > 1 or all(key.isdecimal() for key in value)
    return named and all(_is_choice(each, keys - 1) for each in value.values())


def tuning_folder(experiment: Experiment) -> Path:
    """Return the folder of the tuning, beside the experiment's."""
    return experiment.folder.parent / TUNING


def nearest(n: int, tuned: Sequence[int]) -> int:
    """Choose the tuned number of examples nearest in log n; of two equally near the smaller.

    >>> nearest(30, [10, 100, 1000]), nearest(0, [10, 100]), nearest(3000, [10, 100, 1000])
    (10, 10, 1000)
    """

    def distance(other: int) -> tuple[float, int]:
        return round(abs(math.log(max(other, 1) / max(n, 1))), 9), other

    return min(tuned, key=distance)


def _tuned(
    experiment: Experiment, cell: Cell, arm: Arm, chosen: Chosen | None
) -> Mapping[str, Any]:
    if arm.tuned is None or experiment.kind == TUNING:
        return {}
    by_n = (chosen or {}).get(cell.testbed, {}).get(arm.tuned, {})
    if not by_n:
        folder = tuning_folder(experiment)
        raise UntunedError(
            f"{folder / 'chosen.json'}: must hold the settings that were chosen for {arm.tuned} on "
            f"{cell.testbed}, got nothing. Run first, with the same -c and --results if you give "
            f"any: python -m tell_lightning experiment {folder}"
        )
    best = by_n[str(nearest(cell.n, [int(n) for n in by_n]))]
    settings: Mapping[str, Any] = best["set"]
    return settings


def _in_one_cycle(config: Mapping[str, Any]) -> dict[str, Any]:
    """Make the whole run one cycle if its order has phases, so that each phase comes once."""
    wanted = (value_of(config, f"data.mixture.{key}") for key in ("order", "task_passes"))
    order, passes = wanted
    if order not in PHASED or passes is not None:
        return {}
    keys = ("trainer.max_steps", "data.optimizer_batch", "data.mixture.task_share")
    steps, batch, share = (float(value_of(config, key)) for key in keys)
    examples = int(value_of(config, "data.mixture.task_examples"))
    passes = steps * batch * share / examples
    if passes < 1 or abs(passes - round(passes)) > WHOLE:
        raise SpecificationError(
            f"data.mixture.order: {order} needs whole passes over the task examples in a run, got "
            f"{passes:g} ({steps:g} steps of {batch:g}, task share {share:g}, {examples} "
            "examples). Choose another number of steps, share or examples."
        )
    return nested({"data.mixture.task_passes": round(passes)})


def _as_first_named(config: dict[str, Any]) -> dict[str, Any]:
    """Give baselines their first name, floors, by which the digests of results know them."""
    tasks = dict(value_of(config, "data.tasks") or {})
    for name, task in tasks.items():
        scoring = dict(task.get("scoring") or {})
        if "baselines" in scoring:
            scoring["floors"] = {**scoring.get("floors", {}), **scoring.pop("baselines")}
            tasks[name] = {**task, "scoring": scoring}
    return {**config, "data": {**config["data"], "tasks": tasks}} if tasks else config


def _extended(config: Mapping[str, Any]) -> Mapping[str, Any]:
    name = config.get(EXTENDS)
    return _shipped(name) if name in SHIPPED else {}


@cache
def _shipped(name: str) -> Mapping[str, Any]:
    """Read a shipped configuration without its tasks and sources, which a testbed replaces."""
    values = read_yaml(Path(SHIPPED[name]), SpecificationError)
    for section in ("tasks", "general"):
        values["data"].pop(section, None)
    return values
