"""Runs of the command line: in this process, or as a stranger starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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


def environment(home: Path, **changes: str | None) -> dict[str, str]:
    """What a stranger's shell has; None takes a variable away."""
    wanted = {"HOME": str(home), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", **changes}
    wanted |= {"WANDB_API_KEY": None, "WANDB_SILENT": None, "PYTHONWARNINGS": None}
    found = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    return {name: value for name, value in (found | wanted).items() if value is not None}


def command(
    arguments: list[str],
    *,
    home: Path,
    stdin: str = "",
    **changes: str | None,
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m tell_lightning` as a stranger would; None takes a variable away."""
    return subprocess.run(
        [sys.executable, "-m", "tell_lightning", *arguments],
        env=environment(home, **changes),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


class Watched:
    """A `fit` in a process group of its own, watched through its audit, to be stopped midway."""

    def __init__(self, arguments: list[str], home: Path, runs: Path) -> None:
        self.runs = runs
        # The callbacks of the tests are found from the configuration.
        search = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self._log = home / "log.txt"
        with self._log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tell_lightning", *arguments],
                env=environment(home, PYTHONPATH=search),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text(encoding="utf-8")

    @property
    def folder(self) -> Path:
        """The one run folder."""
        (folder,) = self.runs.iterdir()
        return folder

    def wait_for(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until something has happened in the run's files."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            if happened():
                return
            time.sleep(0.005)
        raise AssertionError(f"ended before {what}: {self.log}")

    def wait_for_step(self, step: int) -> None:
        """Wait until the audit of rank 0 holds a step."""

        def happened() -> bool:
            return bool(list(self.runs.glob("*/audit/rank-0.jsonl"))) and any(
                line["step"] >= step for line in audit(self.folder)[0] if "step" in line
            )

        self.wait_for(happened, f"step {step}")

    def stop(self, signal_: signal.Signals) -> int:
        """Send a signal, to every process where it is SIGKILL, and return the exit code."""
        if signal_ == signal.SIGKILL:
            os.killpg(self.process.pid, signal_)
        else:
            self.process.send_signal(signal_)
        return self.process.wait(timeout=100)


def audit(folder: Path) -> list[list[dict[str, Any]]]:
    """Read what each rank has written of its sessions and steps; a line cut off is left out."""
    ranks = []
    for path in sorted((folder / "audit").glob("rank-*.jsonl")):
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        ranks.append([json.loads(line) for line in lines])
    return ranks


def consumed(folder: Path) -> dict[int, list[int]]:
    """The positions of each step over all ranks, in the order of the units.

    Of each attempt the records beyond the checkpoint that the next one started from are dropped.
    """
    steps: dict[int, list[list[int]]] = {}
    for lines in audit(folder):
        mine: dict[int, list[int]] = {}
        last = 0
        for line in lines:
            if "session" in line:
                last = line["session"]["step"]
                mine = {step: ids for step, ids in mine.items() if step <= last}
            else:
                assert line["step"] == last + 1
                last = line["step"]
                mine[last] = line["positions"]
        for step, ids in mine.items():
            steps.setdefault(step, []).append(ids)
    return {step: sorted(p for ids in ranks for p in ids) for step, ranks in steps.items()}
