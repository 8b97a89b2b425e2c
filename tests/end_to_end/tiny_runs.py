"""Runs of the command line: in this process, or as a stranger starts them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_world import World

from tell_lightning.cli import main


@dataclass(frozen=True)
class Run:
    """A run folder with what its command printed."""

    folder: Path
    stdout: str = ""
    stderr: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """What run.json says."""
        return json.loads((self.folder / "run.json").read_text(encoding="utf-8"))

    def jsonl(self, name: str) -> list[dict[str, Any]]:
        """Read a predictions file."""
        lines = (self.folder / "predictions" / f"{name}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in lines.splitlines()]


class Fits:
    """Runs `fit` in this process, each into a new folder."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, *options: str) -> Run:
        runs = self.world.folder / "runs"
        before = set(runs.iterdir()) if runs.is_dir() else set()
        main(["fit", *self.world.overlay, *options])
        (folder,) = set(runs.iterdir()) - before
        return Run(folder)


def command(
    arguments: list[str],
    *,
    home: Path,
    stdin: str = "",
    **changes: str | None,
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m tell_lightning` as a stranger would; None takes a variable away."""
    wanted = {"HOME": str(home), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", **changes}
    wanted |= {"WANDB_API_KEY": None, "WANDB_SILENT": None, "PYTHONWARNINGS": None}
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    environment |= {name: value for name, value in wanted.items() if value is not None}
    for name in (name for name, value in wanted.items() if value is None):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", "tell_lightning", *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
