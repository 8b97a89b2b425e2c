"""Warm processes, each of which does one piece of work after the other, with a log for each piece.

A process imports what it needs once. If it dies, the piece it was working on has failed, and a new
process takes its place. All processes end at Ctrl+C, and when the process that started them ends.

`concurrent.futures`, loky and `multiprocessing.Pool` cannot stand in here: when a process is
killed, the first two fail every other running piece too, and the third waits for ever.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Protocol

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
"""Environment of a process that shares the cores with others; libraries read it as they start."""
LAST_LINES = 5
"""Lines of a log that are shown as the reason of a failure."""


class Work(Protocol):
    """One piece of work for a process."""

    @property
    def log(self) -> Path:
        """The file for the output of this piece."""


@dataclass(frozen=True)
class Ended:
    """The result of one piece of work."""

    work: Any
    seconds: float
    value: Any = None
    reason: str | None = None
    """Why there is no value."""


@dataclass
class _Worker:
    process: Any
    pipe: Any
    environment: Mapping[str, str]
    work: Any = None
    since: float = 0.0


class Pool:
    """Processes that stay warm from one series of work to the next, until `close`."""

    def __init__(
        self, function: Callable[[Any], Any], environments: Sequence[Mapping[str, str]]
    ) -> None:
        """Start nothing yet.

        Args:
            function: Importable; its argument and what it returns are sent between processes. If
                it raises, the piece of work has failed.
            environments: Variables of each process, on top of the present ones.
        """
        self._function = function
        self._workers: list[_Worker] = []
        self._free = deque(environments)

    def run(self, works: Iterator[Any]) -> Iterator[Ended]:
        """Run pieces of work in as many processes as there are environments.

        Args:
            works: Taken one by one, when a process is free. One that has no work at the moment may
                have some later: it is asked again whenever a piece has ended.

        Yields:
            The result of each piece, as soon as it has ended.
        """
        while True:
            for worker in self._workers:
                if worker.work is None and (work := next(works, None)) is not None:
                    _give(worker, work)
            while self._free and (work := next(works, None)) is not None:
                self._workers.append(_start(self._function, self._free.popleft()))
                _give(self._workers[-1], work)
            busy = {worker.pipe: worker for worker in self._workers if worker.work is not None}
            if not busy:
                return
            for pipe in connection.wait(list(busy)):
                worker = busy[pipe]
                try:
                    value, reason = worker.pipe.recv()
                except (EOFError, OSError):
                    self._workers.remove(worker)
                    self._free.append(worker.environment)
                    value, reason = None, _death(worker)
                work, worker.work = worker.work, None
                yield Ended(work, time.perf_counter() - worker.since, value, reason)

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()


def run(
    function: Callable[[Any], Any],
    works: Iterator[Any],
    environments: Sequence[Mapping[str, str]],
) -> Iterator[Ended]:
    """Run one series of work, and end the processes; the arguments are those of `Pool`.

    Yields:
        The result of each piece, as soon as it has ended.
    """
    with closing(Pool(function, environments)) as pool:
        yield from pool.run(works)


def environments(jobs: int | None, shared: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the environments of processes that share this machine: one thread or one GPU each.

    Args:
        jobs: Processes at a time; None: one for each GPU, or one for each core without any.
        shared: Variables of all of them.
    """
    shared = {**ONE_THREAD, **shared}
    if gpus := _gpus():
        jobs = jobs or len(gpus)
        return [{**shared, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs)]
    return [dict(shared)] * (jobs or len(os.sched_getaffinity(0)))


def _gpus() -> list[str]:
    """List the GPUs that this process may use, without importing torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name not in {"", "-1"}]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


def last_lines(log: Path) -> str:
    """Return the last lines of a log that are not blank."""
    with suppress(OSError):
        text = log.read_text(encoding="utf-8", errors="replace")
        return "\n".join([line for line in text.splitlines() if line.strip()][-LAST_LINES:])
    return ""


def _start(function: Callable[[Any], Any], environment: Mapping[str, str]) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=False)
    before = dict(os.environ)
    # The process inherits these. What it prints must be in its log even if it dies.
    os.environ.update({**environment, "PYTHONUNBUFFERED": "1"})
    try:
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    theirs.close()
    return _Worker(process, ours, environment)


def _give(worker: _Worker, work: Work) -> None:
    worker.work, worker.since = work, time.perf_counter()
    with suppress(OSError):  # `run` finds out that a process is gone when it reads from its pipe
        worker.pipe.send(work)


def _death(worker: _Worker) -> str:
    """Describe how a process ended that should have kept running."""
    worker.process.join(timeout=10)
    code = worker.process.exitcode
    worker.pipe.close()
    if code is not None and code < 0:
        how = f"the process was killed by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += ", as a machine does that is out of memory"
    else:
        how = f"the process ended with exit code {code}"
    return "\n".join(part for part in (how, last_lines(worker.work.log)) if part)


# In the process that does the work


def _serve(function: Callable[[Any], Any], pipe: Any) -> None:
    """Work until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            work = pipe.recv()
        except EOFError:
            return
        with _output_to(work.log):
            pipe.send(_outcome(function, work))


def _outcome(function: Callable[[Any], Any], work: Any) -> tuple[Any, str | None]:
    try:
        return function(work), None
    except BaseException as error:  # a library that exits must not end the process
        traceback.print_exc()
        return None, f"{type(error).__name__}: {error}"


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what this process and its children print to a file."""
    kept = [os.dup(1), os.dup(2)]
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
