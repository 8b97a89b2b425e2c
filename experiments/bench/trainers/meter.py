"""Reports of a contender's process to `train.py`: the time of each step, losses and memory.

A report is a line of standard output that begins with MARK. If the job has a gate, the process
waits after each step for a line on standard input, so that contenders take turns, step by step.
"""

import json
import os
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from trainers.job import MARK, Job

PACKAGES = ("torch", "transformers", "peft", "lightning", "accelerate", "trl", "ms_swift")
PACKAGES += ("llamafactory", "unsloth")


def say(**report: Any) -> None:
    """Send a report."""
    assert sys.__stdout__ is not None
    print(f"\n{MARK}{json.dumps(report)}", file=sys.__stdout__, flush=True)


class Meter:
    """Times the steps of a contender and collects its losses.

    Attributes:
        losses: The loss of steps, in nats per supervised token.
    """

    def __init__(self, job: Job) -> None:
        """Start the clock, which stands while the process waits at the gate."""
        self.job = job
        self.losses: dict[int, float] = {}
        self.seconds: list[float] = []
        self.first = 0.0
        self.since = time.perf_counter()

    def stepped(self) -> None:
        """Report the end of an optimizer step, and wait at the gate."""
        step, job = len(self.seconds) + 1, self.job
        if job.device == "cuda" and (job.gate or step in {1, job.warm, job.steps}):
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self.since)
        if step == 1:
            self.first = time.time() - float(os.environ["BENCH_STARTED"])
        say(step=step)
        if job.gate and not sys.stdin.readline():
            os._exit(1)  # `train.py` has ended
        self.since = time.perf_counter()

    def end(self, tokens: list[int]) -> None:
        """Report the figures of all steps.

        Args:
            tokens: Tokens of each step, without padding.
        """
        timed = slice(self.job.warm, self.job.steps)
        say(
            seconds=[round(value, 4) for value in self.seconds[timed]],
            tokens=tokens[timed],
            first_step_seconds=round(self.first, 2),
            losses={str(step): loss for step, loss in self.losses.items()},
            peak_bytes=peak_bytes(self.job.device),
            versions=versions(),
        )


def peak_bytes(device: str) -> int:
    """Return the most memory that this process had: of the GPU, else resident memory."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions() -> dict[str, str]:
    """Return the versions of the packages that train."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
