"""What a run's folder holds, read once: the first stage of the report.

A run may be of any age and status; what its folder lacks is empty. Predictions are read when they
are asked for.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.metrics_log import read_log
from tell_lightning.errors import TellError
from tell_lightning.files import parse_yaml
from tell_lightning.metrics.settings import Scoring


class ReportError(TellError):
    """A run folder whose files cannot be read."""


@dataclass(frozen=True)
class RunContents:
    """The files of a run as plain values."""

    folder: RunFolder
    config_text: str
    """The configuration in force, as it is written."""
    config: Mapping[str, Any]
    plan: Mapping[str, Any]
    """`plan.json`."""
    record: Mapping[str, Any]
    """`run.json`."""
    log: list[dict[str, float]]
    """Rows of `metrics.csv`, each with the numbers that it holds."""

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.record.get("name") or self.folder.path.resolve().name)

    @property
    def status(self) -> str:
        """completed, failed, interrupted, running, or unknown where there is no `run.json`."""
        return str(self.record.get("status", "unknown"))

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Everything that was scored; empty before the first scoring."""
        return self.record.get("metrics") or {}

    @property
    def tasks(self) -> Mapping[str, Mapping[str, Any]]:
        """The configured tasks by name."""
        return (self.config.get("data") or {}).get("tasks") or {}

    @property
    def selected_step(self) -> int | None:
        """Step of the adapter that was kept; None where the run did not get so far."""
        step = (self.record.get("selected") or {}).get("step")
        return None if step is None else int(step)

    @property
    def trained_steps(self) -> int:
        """Optimizer steps that were taken, as far as the folder says."""
        if "steps" in self.record:
            return int(self.record["steps"])
        return max((completed(row) for row in self.log if is_training(row)), default=0)

    def scoring(self, task: str) -> Scoring:
        """How a task is scored; keys that this version does not know are left out."""
        given = self.tasks.get(task, {}).get("scoring") or {}
        known = {field.name for field in fields(Scoring)} - {"baselines", "floors"}
        values = {key: value for key, value in given.items() if key in known}
        if values.get("labels"):
            values["labels"] = tuple(values["labels"])
        return Scoring(**values)

    def predictions(self, stem: str) -> dict[str, dict[str, Any]] | None:
        """Read a predictions file by id of the row; None where there is no such file."""
        path = self.folder.predictions / f"{stem}.jsonl"
        if not path.is_file():
            return None
        return {str(row.get("id")): row for row in _rows(path)}

    def prediction_stems(self) -> list[str]:
        """Name the predictions files, without their ending."""
        return sorted(path.stem for path in self.folder.predictions.glob("*.jsonl"))


def read_run(folder: RunFolder) -> RunContents:
    """Read the files of a run.

    Raises:
        ReportError: A file is there and cannot be read.
    """
    config_text = _text(folder.latest_config)
    try:
        config = parse_yaml(config_text)
    except yaml.YAMLError as error:
        raise _damaged(folder.latest_config, "YAML", error) from error
    if not isinstance(config, dict):
        raise _damaged(folder.latest_config, "a mapping", type(config).__name__)
    return RunContents(
        folder=folder,
        config_text=config_text,
        config=config,
        plan=_object(folder.path / "plan.json"),
        record=_object(folder.record),
        log=_log(folder.path / "metrics.csv"),
    )


def is_training(row: Mapping[str, float]) -> bool:
    """Say whether a row of `metrics.csv` speaks of training steps."""
    return any(name.startswith("train/") for name in row)


def completed(row: Mapping[str, float]) -> int:
    """Return the optimizer steps after which a row was logged."""
    return int(row.get("step", 0))


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise _damaged(path, "JSON", error) from error
    if not isinstance(value, dict):
        raise _damaged(path, "a JSON object", type(value).__name__)
    return value


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _damaged(f"{path}:{number}", "JSON", error) from error
        if not isinstance(row, dict):
            raise _damaged(f"{path}:{number}", "a JSON object", type(row).__name__)
        yield row


def _log(path: Path) -> list[dict[str, float]]:
    try:
        return read_log(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, "CSV in UTF-8 that can be read", error) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, "UTF-8 text that can be read", error) from error


def _damaged(where: Path | str, rule: str, got: object) -> ReportError:
    return ReportError(
        f"{where}: must be {rule}, as `fit` writes it, got: {got}. Copy the run's folder again."
    )
