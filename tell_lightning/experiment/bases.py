"""Bases that the runner makes before the cells that start from them.

A recipe of `bases.yaml` enters; what `fit` or `pretrain` is given for it, and the folder where the
base lies for all experiments, leave. The folder is named after all that decides the base, so a
changed recipe makes another one.

    known: {pretrain: {knowledge: 0.3}}              the microworld's base, with other settings
    tuned: {tuned: {trainer.max_steps: 200, ...}}    the base of base.yaml, tuned on general rows
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tell_lightning.experiment.forms import SpecificationError
from tell_lightning.experiment.overlays import merged, nested, value_of
from tell_lightning.experiment.specification import Experiment, digest
from tell_lightning.microworld.world import base_dir

MADE = "made:"
"""How the name of such a base begins where a configuration names it."""


@dataclass(frozen=True)
class Recipe:
    """How a base is made."""

    name: str
    kind: Literal["tuned", "pretrain"]
    settings: Mapping[str, Any]
    """tuned: the configuration of its run; pretrain: settings by name."""

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the base, beside the package."""
        return {"kind": self.kind, "settings": dict(self.settings)}


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
            f"bases.yaml: {name}.tuned: must start from a base that is there, got "
            f"'{value_of(settings, 'model.base')}'. Name 'microworld', a hub id or a folder."
        )
    return Recipe(name, "tuned", settings)


def made_folder(recipe: Recipe) -> Path:
    """Return where a base lies, or will lie once it is made."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    below = digest({**recipe.facts, "of": _raw_digest(recipe)})
    return cache / "tell_lightning" / "bases" / f"{recipe.name}-{below}"


def located(experiment: Experiment, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose base is a place: `made:NAME` and paths from experiments/ go.

    Args:
        experiment: Knows the recipes, and the folder that relative paths start from.
        config: A cell's configuration.
    """
    base = str(value_of(config, "model.base") or "")
    if base.startswith(MADE):
        path = made_folder(recipe(experiment, base.removeprefix(MADE)))
    elif base.startswith("."):
        path = Path(os.path.normpath(experiment.folder.resolve().parent / base))
    else:
        return dict(config)
    return merged(config, {"model": {"base": str(path)}})


def _raw_digest(recipe: Recipe) -> str:
    """Digest what a base is made from: the weights to tune, or the texts to read."""
    if recipe.kind == "tuned":
        base = str(value_of(recipe.settings, "model.base"))
        folder = base_dir() if base == "microworld" else Path(base).expanduser()
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not files:
            return base
    else:
        files = sorted(base_dir().parent.glob("*.py"))
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.read_bytes())
    return whole.hexdigest()
