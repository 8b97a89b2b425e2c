"""The bases that have a name: `model.base: microworld` stands for a folder."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tell_lightning.data.settings import DataSettings
from tell_lightning.data.splits import cache_folder
from tell_lightning.microworld import world
from tell_lightning.smollm2 import base as smollm2


def _smollm2() -> Path:
    cache = cache_folder(DataSettings(), "model.base", "Set XDG_CACHE_HOME to such a folder")
    return smollm2.base_dir(cache)


NAMED: Mapping[str, Callable[[], Path]] = {"microworld": world.base_dir, "smollm2": _smollm2}
"""What returns the folder of each; of `smollm2` it is made on first use, for all runs."""
