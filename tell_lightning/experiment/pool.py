"""Warm processes, each of which does one piece of work after the other, with a log for each piece.

A process imports what it needs once. If it dies, the piece it was working on has failed, and a new
process takes its place. All processes end at Ctrl+C, and when the process that started them ends.

`concurrent.futures`, loky and `multiprocessing.Pool` cannot stand in here: when a process is
killed, the first two fail every other running piece too, and the third waits for ever.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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


def run(
    function: Callable[[Any], Any],
    works: Iterator[Any],
    environments: Sequence[Mapping[str, str]],
) -> Iterator[Ended]:
    """Run the pieces of work in as many processes as there are environments.

    Args:
        function: Importable; its argument and what it returns are sent between processes. If it
            raises, the piece of work has failed.
        works: Taken one by one, when a process is free.
        environments: Variables of each process, on top of the present ones.

    Yields:
        The result of each piece, as soon as it has ended.
    """
    workers: list[_Worker] = []
    free = deque(environments)
    try:
        while True:
            for worker in workers:
                if worker.work is None and (work := next(works, None)) is not None:
                    _give(worker, work)
            while free and (work := next(works, None)) is not None:
                workers.append(_start(function, free.popleft()))
                _give(workers[-1], work)
            busy = {worker.pipe: worker for worker in workers if worker.work is not None}
            if not busy:
                return
            for pipe in connection.wait(list(busy)):
                worker = busy[pipe]
                try:
                    value, reason = worker.pipe.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    free.append(worker.environment)
                    value, reason = None, _death(worker)
                work, worker.work = worker.work, None
                yield Ended(work, time.perf_counter() - worker.since, value, reason)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


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
