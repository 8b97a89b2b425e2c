"""The folder of a run: its name, its files, and how to write them."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tell_lightning.errors import TellError
from tell_lightning.files import as_json, locked, sha256_of, write_whole

LAST = "last.ckpt"
"""File name of the checkpoint to resume from."""


class RunFolderError(TellError):
    """A run folder that cannot be used."""


@dataclass(frozen=True)
class RunFolder:
    """The paths in the folder of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The complete configuration."""
        return self.path / "config.yaml"

    @property
    def latest_config(self) -> Path:
        """The configuration of the session that wrote the last checkpoint."""
        last = self._last_resume()
        return self.path / f"config.resume-{last}.yaml" if last else self.config

    @property
    def draft_config(self) -> Path:
        """The configuration of a resumed session that has not written a checkpoint yet."""
        return self.path / ".config.resume.yaml"

    def keep_config(self) -> None:
        """Keep the draft: later resumes use its values, which need not be typed again."""
        if self.draft_config.is_file():
            number = self._last_resume() + 1
            os.replace(self.draft_config, self.path / f"config.resume-{number}.yaml")

    def _last_resume(self) -> int:
        """Return the number of the last resume that is kept; 0 if there is none.

        Runs of earlier versions have the time in seconds as the number, and go on from there.
        """
        names = (path.stem.rpartition("-")[2] for path in self.path.glob("config.resume-*.yaml"))
        return max((int(name) for name in names if name.isdigit()), default=0)

    @property
    def record(self) -> Path:
        """The record of the run (`run.json`): status, versions and scores."""
        return self.path / "run.json"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints, each with adapter, optimizer and position."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The adapter, ready to load."""
        return self.path / "adapter"

    @property
    def predictions(self) -> Path:
        """The answers of the model, one JSONL file per task and scoring."""
        return self.path / "predictions"


def new_folder(parent: str, name: str) -> RunFolder:
    """Choose the folder of a new run: `<parent>/<time>-<name>`, with a number if that exists.

    Raises:
        RunFolderError: The name cannot be part of a path.
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


def claim(folder: RunFolder) -> bool:
    """Make the folder of a new run, and return False if another run has just made it.

    Raises:
        RunFolderError: The folder cannot be made.
    """
    try:
        folder.path.mkdir(parents=True)
    except OSError as error:
        if folder.path.exists():
            return False
        raise RunFolderError(
            f"run.dir: must be a folder to write to, got '{folder.path.parent}': "
            f"{error.strerror}. Give another one."
        ) from error
    return True


def begin(folder: RunFolder) -> None:
    """Make a folder whose name is given, or begin anew in that of a run without a checkpoint.

    Raises:
        RunFolderError: The folder cannot be made, or holds something else.
    """
    if claim(folder) or folder.config.is_file():
        return
    if found := sorted(path.name for path in folder.path.iterdir() if path.name != ".lock"):
        raise RunFolderError(
            f"--folder: must be the folder of a run, or a new one, got '{folder.path}' with "
            f"{found[0]} in it. Give another one."
        )


@contextmanager
def held(folder: RunFolder) -> Iterator[None]:
    """Lock the folder while the body runs. A kill releases the lock, too.

    Raises:
        RunFolderError: Another process holds the lock.
    """
    refusal = RunFolderError(
        f"RUN: must be a run that has ended, got '{folder.path}', which another process uses. "
        "Wait for its end, or stop it."
    )
    with locked(folder.path / ".lock", refusal):
        yield


def existing_folder(path: str) -> RunFolder:
    """Open the folder of a run.

    Raises:
        RunFolderError: The path is not the folder of a run.
    """
    folder = RunFolder(Path(path))
    if not folder.config.is_file():
        raise RunFolderError(
            f"RUN: must be the folder of a run, with config.yaml in it, got '{path}'. "
            "`fit` prints the folder that it writes to."
        )
    return folder


def run_of_predictions(file: Path) -> RunFolder | None:
    """Return the run that a file in `predictions/` belongs to; None for any other file."""
    folder = RunFolder(file.resolve().parent.parent)
    inside = file.resolve().parent == folder.predictions.resolve() and folder.config.is_file()
    return folder if inside else None


def read_record(folder: RunFolder) -> dict[str, Any]:
    """Return the content of `run.json`, or an empty dictionary if the file does not exist."""
    if not folder.record.is_file():
        return {}
    facts: dict[str, Any] = json.loads(folder.record.read_text(encoding="utf-8"))
    return facts


def current_neural_scores(folder: RunFolder, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of the command `neural` that still belong to the present predictions.

    A score is left out if its file has changed since. A file outside the run's predictions/ may be
    missing; its score is kept.

    Args:
        folder: The run.
        metrics: The value of "metrics" in run.json.

    Returns:
        The scores by stem of the file and by metric.
    """
    found: dict[str, Any] = {}
    for stem, by_metric in (metrics.get("neural") or {}).items():
        for metric, entry in by_metric.items():
            path = folder.predictions / entry.get("file", f"{stem}.jsonl")
            elsewhere = path.parent != folder.predictions
            digest = entry.get("predictions_sha256") if elsewhere else None
            if path.is_file():
                digest = sha256_of(path)
            if digest is not None and digest == entry.get("predictions_sha256"):
                found.setdefault(stem, {})[metric] = entry
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file completely or not at all."""
    _replace(path, as_json(value, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file completely or not at all."""
    _replace(path, "".join(as_json(row) + "\n" for row in rows))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A model may write half a surrogate pair, which UTF-8 does not allow: it becomes a JSON escape.
    write_whole(path, text.encode("utf-8", "backslashreplace"))
