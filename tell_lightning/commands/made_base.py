"""Makes the bases of an experiment: pre-trained, or tuned on general rows and merged.

Each is an ordinary Hugging Face folder with a tokenizer, written complete or not at all.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from tell_lightning.experiment import pool
from tell_lightning.experiment.bases import Recipe, made_folder
from tell_lightning.files import follow_umask
from tell_lightning.settings import ConfigError


@dataclass(frozen=True)
class BaseWork:
    """What a worker process needs to make a base."""

    recipe: Recipe
    out: Path
    """The folder of the base."""
    folder: Path
    """A temporary folder of its own."""

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "log.txt"


def make_missing(recipes: Iterable[Recipe], home: Path, say: Callable[[str], None]) -> None:
    """Make the bases that are missing, or wait for the process that makes them.

    Args:
        recipes: The bases that are needed.
        home: A temporary folder.
        say: Shows a line to the user.

    Raises:
        ConfigError: One cannot be made.
    """
    for recipe in recipes:
        out = made_folder(recipe)
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out.with_name(f".{out.name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(f"base {recipe.name}  is made by another process; waiting")
            lock.acquire()
        try:
            if not out.is_dir():
                say(f"base {recipe.name}  is made first, once, in {out}")
                seconds = _make_in_process(recipe, out, home)
                say(f"base {recipe.name}  {seconds:.0f} s")
        finally:
            lock.release()


def _make_in_process(recipe: Recipe, out: Path, home: Path) -> float:
    started = time.perf_counter()
    folder = home / f"base-{recipe.name}"
    folder.mkdir()
    environment = {**pool.ONE_THREAD, "WANDB_MODE": "disabled"}
    (ended,) = pool.run(make_base, iter([BaseWork(recipe, out, folder)]), [environment])
    if ended.reason is not None:
        raise ConfigError(
            f"bases.yaml: {recipe.name}: must be made before the runs that start from it, got: "
            f"{ended.reason} Correct its recipe."
        )
    return time.perf_counter() - started


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
    follow_umask(Path(out))
