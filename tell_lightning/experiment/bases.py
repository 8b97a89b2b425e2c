"""Bases that the runner makes before the runs that start from them, by the recipes in `bases.yaml`.

A base lies in one folder for all experiments. The folder's name holds a digest of everything that
decides the base, so that a changed recipe makes another one.

    known: {pretrain: {knowledge: 0.3}}              the microworld's base, with other settings
    tuned: {tuned: {trainer.max_steps: 200, ...}}    the base of base.yaml, tuned on general rows
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tell_lightning.data.named_bases import NAMED
from tell_lightning.data.settings import DataSettings
from tell_lightning.data.splits import cache_folder
from tell_lightning.experiment.forms import SpecificationError
from tell_lightning.experiment.overlays import merged, nested, value_of
from tell_lightning.experiment.specification import Experiment, digest
from tell_lightning.files import expanded
from tell_lightning.microworld.world import base_dir
from tell_lightning.settings import EXTENDS

MADE = "made:"
"""Prefix of the name of such a base in a configuration."""


@dataclass(frozen=True)
class Recipe:
    """How a base is made."""

    name: str
    kind: Literal["tuned", "pretrain"]
    settings: Mapping[str, Any]
    """tuned: the configuration of its run; pretrain: settings by name."""

    @property
    def facts(self) -> dict[str, Any]:
        """Everything in the recipe that decides the base."""
        settings = {key: value for key, value in self.settings.items() if key != EXTENDS}
        return {"kind": self.kind, "settings": settings}


def recipe(experiment: Experiment, name: str) -> Recipe:
    """Return the recipe of a base.

    Raises:
        SpecificationError: There is none.
    """
    if name not in experiment.bases:
        known = ", ".join(experiment.bases) or "none"
        raise SpecificationError(
            f"model.base: made:NAME must name a base of bases.yaml ({known}), got '{MADE}{name}'. "
            "Name one of them, or write its recipe there."
        )
    ((kind, values),) = experiment.bases[name].items()
    if kind == "pretrain":
        return Recipe(name, "pretrain", values)
    alone = {"data.tasks": {}, "data.mixture.arm": "general_only", "eval.test": False}
    settings = merged(experiment.base, {"seed_everything": 0}, nested(alone), nested(values))
    if str(value_of(settings, "model.base")).startswith(MADE):
        raise SpecificationError(
            f"bases.yaml: {name}.tuned: must start from an existing base, got "
            f"'{value_of(settings, 'model.base')}'. Name another: {', '.join(NAMED)}, a hub id or "
            "a folder."
        )
    return Recipe(name, "tuned", settings)


def made_folder(recipe: Recipe) -> Path:
    """Return the folder of a base, whether it has been made or not."""
    below = digest({**recipe.facts, "of": _raw_digest(recipe)})
    return cache_folder(DataSettings()) / "bases" / f"{recipe.name}-{below}"


def located(experiment: Experiment, config: Mapping[str, Any]) -> dict[str, Any]:
    """Replace a base `made:NAME`, and paths of base and data that start with a dot, by whole paths.

    Such paths start from the folder of the shared files, so that a configuration is the same on
    every machine.

    Args:
        experiment: Has the recipes, and the folder that relative paths start from.
        config: A cell's configuration.
    """
    base, root = (str(value_of(config, key) or "") for key in ("model.base", "data.root"))
    shared = experiment.folder.resolve().parent
    found: dict[str, Any] = {}
    if base.startswith(MADE):
        found["model.base"] = str(made_folder(recipe(experiment, base.removeprefix(MADE))))
    elif base.startswith("."):
        found["model.base"] = os.path.normpath(shared / base)
    if root.startswith("."):
        found["data.root"] = os.path.normpath(shared / root)
    return merged(config, nested(found))


def _raw_digest(recipe: Recipe) -> str:
    """Digest what a base is made from: the weights to tune, or the code that writes its texts."""
    if recipe.kind == "tuned":
        base = str(value_of(recipe.settings, "model.base"))
        folder = NAMED[base]() if base in NAMED else expanded(base)
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not files:
            return base
    else:
        files = sorted(base_dir().parent.glob("*.py"))
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.read_bytes())
    return whole.hexdigest()
