"""`run.json`: what ran, where, and with which scores. It is rewritten at every change of status."""

import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from tell_lightning.callbacks.evaluation import GenerationEvaluation, Scored
from tell_lightning.callbacks.folder import RunFolder, write_json

PACKAGES = (
    "tell_lightning",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "datasets",
    "tokenizers",
    "sacrebleu",
    "torchmetrics",
    "wandb",
    "numpy",
)


class RunRecord:
    """Collects facts and writes them to `run.json` on rank 0."""

    def __init__(
        self,
        folder: RunFolder,
        facts: Mapping[str, Any] | None = None,
        *,
        spent: Callable[[], Mapping[str, float]] = dict,
        started: float | None = None,
    ) -> None:
        """Begin a record.

        Args:
            folder: The folder of the run.
            facts: Those of an earlier session of the same run.
            spent: Says how many seconds of this session went where; the rest is set-up.
            started: When the session began, by `time.perf_counter`; None: now.
        """
        self.folder = folder
        self._spent = spent
        self.facts: dict[str, Any] = {
            "status": "running",
            "name": folder.path.name,
            "command": sys.argv[1:],
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": versions(),
            "git": git_state(),
            "machine": machine(),
            "seconds": {},
            **(facts or {}),
        }
        self._started = time.perf_counter() if started is None else started
        self._seconds_before: dict[str, float] = dict(self.facts["seconds"])

    @rank_zero_only
    def write(self, **facts: Any) -> None:
        """Add facts and write the file."""
        self.facts.update(facts)
        total, spent = time.perf_counter() - self._started, self._spent()
        rest = {"setup": total - sum(spent.values())} if spent else {}
        self.facts["seconds"] = {
            name: round(self._seconds_before.get(name, 0.0) + value, 2)
            for name, value in {**rest, **spent, "total": total}.items()
        }
        write_json(self.folder.record, self.facts)

    @rank_zero_only
    def write_end(self, status: str, error: str) -> None:
        """Write how the run ended; on a full disk change the status where it stands in the file."""
        try:
            self.write(status=status, error=error)
        except OSError:
            was, now = (f'"status": "{word}",' for word in ("running", status))
            content = self.folder.record.read_bytes() if self.folder.record.is_file() else b""
            if was.encode() in content and len(now) <= len(was):
                with self.folder.record.open("r+b") as file:
                    file.write(content.replace(was.encode(), now.ljust(len(was)).encode(), 1))


def scores_json(evaluation: GenerationEvaluation) -> dict[str, Any]:
    """Return all scores: by split before and after training, and on dev at each step.

    `floors` are the baselines, `before` is the base with the same prompts. Besides `dev` and `test`
    there is `test_without_anchor`, the test rows without the anchor after training. If training had
    no anchor, it is `test_with_anchor`.
    """
    result: dict[str, Any] = {}
    for split in dict.fromkeys(entry.split for entry in evaluation.history):
        scored = [entry for entry in evaluation.history if entry.split == split]
        result[split] = {
            "before": next((_scored(entry) for entry in scored if not entry.adapter), None),
            "after": next((_scored(entry) for entry in reversed(scored) if entry.adapter), None),
            "floors": evaluation.baselines.get(split, {}),
        }
    result["dev_history"] = [
        {"step": entry.step, "score": entry.selection if entry.tasks else None, **_scored(entry)}
        for entry in evaluation.history
        if entry.split == "dev"
    ]
    return result


def _scored(entry: Scored) -> dict[str, Any]:
    return {
        "step": entry.step,
        "tasks": {name: asdict(scores) for name, scores in entry.tasks.items()},
        "loss_nats_per_token": entry.losses,
        **({"probe": entry.probe} if entry.probe else {}),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that may change a score."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def promise(device_type: str) -> str:
    """Say what a repetition or a resume of this run has in common with it.

    Args:
        device_type: 'cpu' or 'cuda'. The Trainer exists, which sets PyTorch's deterministic mode.
    """
    if device_type == "cpu":
        return "same bits on a CPU of this kind, with the same devices, micro-batch and threads"
    if torch.are_deterministic_algorithms_enabled():
        return "same bits on a GPU of this kind, with the same devices and micro-batch"
    return (
        "same order and same data, but rounding may differ; trainer.deterministic: true asks for "
        "the same bits"
    )


def git_state() -> dict[str, Any] | None:
    """Return the git commit of this package; None if it is not in a git checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, Any]:
    """Describe the machine."""
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
    }


def _processor() -> str:
    """Return the processor and the instruction set that PyTorch uses; both affect rounding."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(": ")[2] for line in lines if "model name" in line), name)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"
