"""The folder of a run: its name, its files, and how they are written."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tell_lightning.errors import TellError

LAST = "last.ckpt"
"""Name of the checkpoint to resume from."""


class RunFolderError(TellError):
    """A run folder that cannot be used."""


@dataclass(frozen=True)
class RunFolder:
    """Paths inside the folder of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The complete configuration."""
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        """What happened, with the scores."""
        return self.path / "run.json"

    @property
    def checkpoints(self) -> Path:
        """Adapters with optimizer and position, to resume from."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The adapter, ready to load."""
        return self.path / "adapter"

    @property
    def predictions(self) -> Path:
        """What the model answered."""
        return self.path / "predictions"


def new_folder(parent: str, name: str) -> RunFolder:
    """Choose a folder for a run: `<parent>/<time>-<name>`, with a number where that is taken.

    Raises:
        RunFolderError: The name does not do as part of a path.
    """
    if not name or not all(letter.isalnum() or letter in "-_." for letter in name):
        raise RunFolderError(
            f"run.name: must be made of letters, digits, '-', '_' and '.', got '{name}'. Rename it."
        )
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    candidates = (
        Path(parent) / (stem + suffix) for suffix in ("", *(f"-{n}" for n in range(2, 99)))
    )
    return RunFolder(next(path for path in candidates if not path.exists()))


def existing_folder(path: str) -> RunFolder:
    """Open the folder of a run.

    Raises:
        RunFolderError: It is none.
    """
    folder = RunFolder(Path(path))
    if not folder.config.is_file():
        raise RunFolderError(
            f"RUN: must be the folder of a run, with config.yaml in it, got '{path}'. "
            "`fit` prints the folder that it writes to."
        )
    return folder


def read_record(folder: RunFolder) -> dict[str, Any]:
    """Return what `run.json` says; nothing where there is none."""
    if not folder.record.is_file():
        return {}
    facts: dict[str, Any] = json.loads(folder.record.read_text(encoding="utf-8"))
    return facts


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    _replace(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file whole or not at all."""
    _replace(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
