"""One run of an experiment (a cell): `fit` with its configuration, and the result that is kept.

This runs in the worker processes of `experiment`. A process imports torch once and does one run
after another, each in a temporary folder. The arms that train nothing are scored at once: `base`,
and those that have the task examples before each prompt. What `fit`
prints goes to the log of the run.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from tell_lightning.commands.check import check
from tell_lightning.commands.general import with_written_rows
from tell_lightning.errors import TellError
from tell_lightning.experiment.cells import Cell
from tell_lightning.experiment.overlays import value_of
from tell_lightning.experiment.results import FAILED, completed
from tell_lightning.experiment.specification import Experiment, rule_digests
from tell_lightning.settings import ConfigError


@dataclass(frozen=True)
class CellWork:
    """What a worker process needs to do one run."""

    experiment: Experiment
    cell: Cell
    config: Mapping[str, Any]
    """The file for `fit`."""
    digest: str
    """Of the configuration."""
    folder: Path
    """A temporary folder of its own."""
    runs: Path | None = None
    """Where the run's folder is kept; None: it is deleted."""

    @property
    def log(self) -> Path:
        """Where what it prints goes."""
        return self.folder / "log.txt"

    @property
    def facts(self) -> dict[str, Any]:
        """What the result holds, whether the run fails or not."""
        return {
            "name": self.cell.name,
            "cell": self.cell.facts,
            "rule_digest": self.experiment.rule_digest,
            "rules": rule_digests(self.experiment.folder),
            "config_digest": self.digest,
        }


def run_cell(work: CellWork) -> dict[str, Any]:
    """Do one run.

    Returns:
        Its result. A mistake in its configuration becomes the reason of a failed result.
    """
    import tell_lightning.commands.session  # noqa: F401 (once, before the clock starts)

    started, worked = time.perf_counter(), _processor_seconds()
    path = work.folder / "config.yaml"
    path.write_text(yaml.safe_dump(dict(work.config), sort_keys=False), encoding="utf-8")
    runs = work.runs or work.folder / "runs"
    before = set(runs.glob("*"))
    options = ["-c", str(path), f"--run.dir={runs}", f"--run.name={work.cell.name}"]
    if root := value_of(work.config, "data.root"):
        options.append(f"--data.root={root}")  # not beside the file just written
    git = _git()
    try:
        arm = work.experiment.arms[work.cell.arm]
        if not arm.trains:
            score_base(options, few_shot=arm.few_shot)
        elif devices(work.config) > 1:
            _in_processes(options)
        else:
            _fit(options)
    except TellError as error:
        return failed(work, str(error), time.perf_counter() - started)
    (folder,) = set(runs.glob("*")) - before
    seconds = time.perf_counter() - started
    found = completed(work.experiment, work.cell, folder, seconds) | work.facts | {"git": git}
    return found | {"processor_seconds": round(_processor_seconds() - worked, 2)}


def _processor_seconds() -> float:
    """Return the processor time of this process and those that it has waited for."""
    return sum(os.times()[:4])


def devices(config: Mapping[str, Any]) -> int:
    """Return the number of devices of a run."""
    given = value_of(config, "trainer.devices")
    return given if isinstance(given, int) else 1


def failed(work: CellWork, reason: str, seconds: float) -> dict[str, Any]:
    """Make the result of a run that failed."""
    return work.facts | {
        "status": FAILED,
        "reason": reason,
        "seconds": round(seconds, 2),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": _git(),
    }


def _fit(options: list[str]) -> None:
    import torch

    from tell_lightning.commands.fit import fit

    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    fit(options)


def score_base(
    options: list[str],
    *,
    few_shot: bool = False,
    splits: Sequence[Literal["dev", "test"]] = ("dev", "test"),
) -> None:
    """Score the base as `fit` scores it before training, and write the same files.

    Args:
        options: The command line of `fit`.
        few_shot: Whether the drawn task examples stand before each prompt; `shots` in run.json
            says how many, by task.
        splits: What is scored: dev where there are dev rows, test if `eval.test` says so.
    """
    from tell_lightning.callbacks.folder import new_folder
    from tell_lightning.callbacks.run_record import RunRecord, scores_json
    from tell_lightning.commands.session import open_session
    from tell_lightning.commands.startup import quieten
    from tell_lightning.data.base_files import base_digests
    from tell_lightning.data.splits import read_splits

    quieten()
    config, _ = with_written_rows(check(options))
    rows = read_splits(config.data)
    folder = new_folder(config.run.dir, config.run.name)
    folder.path.mkdir(parents=True)
    folder.config.write_text(config.to_yaml(), encoding="utf-8")
    (folder.path / "plan.json").write_text("{}", encoding="utf-8")
    record = RunRecord(folder)
    session = open_session(config, folder, rows, training=False)
    trainer, module, datamodule = session.trainer, session.module, session.datamodule
    datamodule.prepare_data()
    datamodule.setup("validate")
    shots = datamodule.prepared.add_shots(splits) if few_shot else None
    if "dev" in splits and any(task.has("dev") for task in config.data.tasks.values()):
        trainer.validate(module, datamodule=datamodule, verbose=False)
    if "test" in splits and config.eval.test:
        trainer.test(module, datamodule=datamodule, verbose=False)
        if config.eval.anchor_check and datamodule.swap_anchor():
            trainer.test(module, datamodule=datamodule, verbose=False)
    record.write(
        status="completed",
        shots=shots,
        metrics=scores_json(session.evaluation),
        base={
            "name": config.model.base,
            "sha256": base_digests(config.model.base, config.model.revision),
        },
    )


def _in_processes(options: list[str]) -> None:
    """Run `fit` on several devices, in processes of their own."""
    command = [sys.executable, "-m", "tell_lightning", "fit", *options]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise ConfigError(
            f"fit: must exit with 0, got exit code {done.returncode}. Read the log of the run."
        )


@cache
def _git() -> dict[str, Any] | None:
    """Return the commit of this code, and whether more than the output of commands has changed."""
    here = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    written = ("results/**", "chosen.json", "report.html", "report.md")
    apart = [f":(top,exclude,glob)experiments/**/{name}" for name in written]
    try:
        git("ls-files", "--error-unmatch", "cli.py")
        changed = git("status", "--porcelain", "--", ":(top)", *apart)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None
