"""The fits of `tune`: what a process needs for one, and what comes of it.

A trial is one fit for each fold, one after the other in one process. The verdict asks for single
fits, by `Request`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Overlay = Mapping[str, Any]
"""A nested part of a configuration, laid over the user's."""


@dataclass(frozen=True)
class Request:
    """A fit that the verdict asks for."""

    name: str
    """Of the fit and of its file in `fits/`."""
    settings: Overlay
    fold: int | None
    """The fold whose rows are left out, and scored; None: all task rows are trained on, and the
    test set is scored."""
    seed: int
    kind: Literal["adapter", "base", "few_shot"] = "adapter"
    """What answers: a trained adapter, the base, or the base with task rows as earlier turns."""
    before: bool = False
    """Whether the base is scored beside an adapter, on the same rows and with the same prompts."""


@dataclass(frozen=True)
class Common:
    """What all fits have in common."""

    values: Mapping[str, Any]
    """The user's configuration."""
    folds: Sequence[Overlay]
    """For each fold where its rows are."""
    all_rows: Overlay
    """Where all task rows are."""
    seed: int
    """Of the trials."""
    dev_rows: int | None
    """Dev rows of each task to score; None: all."""


@dataclass(frozen=True)
class TrialWork:
    """A trial, for the process that runs it."""

    common: Common
    number: int
    trial_id: int
    arm: str
    params: Mapping[str, Any]
    settings: Overlay
    url: str
    """The storage of the study, which is told how the trial does."""
    study: str
    folder: Path
    """A folder of its own, which is deleted."""

    @property
    def log(self) -> Path:
        """Where what it prints goes."""
        return self.folder / "log.txt"

    @property
    def facts(self) -> dict[str, Any]:
        """What its record holds, whether it fails or not."""
        return {
            "number": self.number,
            "arm": self.arm,
            "params": dict(self.params),
            "settings": dict(self.settings),
        }


@dataclass(frozen=True)
class FitWork:
    """A single fit, for the process that runs it."""

    common: Common
    request: Request
    folder: Path
    result: Path | None = None
    """The file of its result; None: there is none."""
    kept: Path | None = None
    """Where the folder of the run stays; None: it is deleted."""

    @property
    def log(self) -> Path:
        """Where what it prints goes."""
        return self.folder / "log.txt"

    @property
    def facts(self) -> dict[str, Any]:
        """What its result holds, whether it fails or not."""
        asked = self.request
        return {
            "name": asked.name,
            "kind": asked.kind,
            "fold": asked.fold,
            "seed": asked.seed,
            "settings": dict(asked.settings),
        }
