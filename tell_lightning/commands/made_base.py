"""Makes a base, in a process of `experiment`: pre-trained, or tuned on general rows and merged.

The result is an ordinary Hugging Face folder with a tokenizer, written whole or not at all.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.experiment.bases import Recipe


@dataclass(frozen=True)
class BaseWork:
    """What a process gets to make a base."""

    recipe: Recipe
    out: Path
    """The folder of the base."""
    folder: Path
    """A temporary folder of its own."""

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "log.txt"


def make_base(work: BaseWork) -> None:
    """Make a base.

    Raises:
        TellError: Its recipe is wrong.
    """
    draft = work.out.with_name(f".{work.out.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        if work.recipe.kind == "pretrain":
            _pretrain(work.recipe.settings, draft)
        else:
            _tune(work.recipe.settings, work.folder, draft)
        os.replace(draft, work.out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _pretrain(values: Mapping[str, Any], out: Path) -> None:
    from tell_lightning.microworld.pretrain import PretrainSettings, pretrain
    from tell_lightning.settings import ConfigError

    try:
        settings = PretrainSettings(**values)
    except TypeError as error:
        raise ConfigError(
            f"bases.yaml: pretrain: must hold settings of the pre-training, got: {error}. See "
            "`python -m tell_lightning.microworld.pretrain --help`."
        ) from error
    pretrain(out, settings)


def _tune(config: Mapping[str, Any], folder: Path, out: Path) -> None:
    """Train on the general rows alone, and merge the adapters into the weights."""
    from peft import PeftModel

    from tell_lightning.commands.check import check
    from tell_lightning.commands.fit import fit
    from tell_lightning.data.tokenizer import load_tokenizer
    from tell_lightning.model.base import load_base

    path, runs = folder / "config.yaml", folder / "runs"
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    options = ["-c", str(path), f"--run.dir={runs}", "--run.name=base"]
    fit(options)
    (run,) = runs.iterdir()
    settings = check(options).model
    model: Any = PeftModel.from_pretrained(load_base(settings), str(run / "adapter"))
    model.merge_and_unload().save_pretrained(out)
    load_tokenizer(settings.base, **settings.hub_options).save_pretrained(out)
