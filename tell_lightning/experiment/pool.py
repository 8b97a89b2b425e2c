"""Warm processes that run one piece of work after the other, each with its own log.

A function and pieces of work enter; what comes of each leaves as soon as it is there, in any order.
A process imports what it needs once. One that ends in the midst of its work, however, fails that
work alone, and another takes its place. What a process prints goes to the log of its work; with
Ctrl+C, or when this process is gone, all end at once.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Protocol

ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    )
}
"""Environment of a process that shares the cores with others; libraries read it as they start."""
LAST_LINES = 5
"""Of a log, as the reason of a failure."""


class Work(Protocol):
    """What a process is given."""

    @property
    def log(self) -> Path:
        """Where its output goes."""


@dataclass(frozen=True)
class Ended:
    """What came of one piece of work."""

    work: Any
    value: Any = None
    reason: str | None = None
    """Why there is no value."""


@dataclass
class _Worker:
    process: Any
    pipe: Any
    environment: Mapping[str, str]
    work: Any = None


def run(
    function: Callable[[Any], Any],
    works: Iterator[Any],
    environments: Sequence[Mapping[str, str]],
    started: Callable[[Any], None] = lambda work: None,
) -> Iterator[Ended]:
    """Run the pieces of work in as many processes as there are environments.

    Args:
        function: Importable; its argument and what it returns are sent between processes. What it
            raises is no value: the work has failed.
        works: Taken one by one, when a process is free.
        environments: Variables of each process, on top of the present ones.
        started: Told of each piece of work when it is given to a process.

    Yields:
        What came of each.
    """
    workers: list[_Worker] = []
    free = deque(environments)
    try:
        while True:
            for worker in workers:
                if worker.work is None and (work := next(works, None)) is not None:
                    _give(worker, work, started)
            while free and (work := next(works, None)) is not None:
                workers.append(_start(function, free.popleft()))
                _give(workers[-1], work, started)
            busy = [worker for worker in workers if worker.work is not None]
            if not busy:
                return
            for pipe in connection.wait([worker.pipe for worker in busy]):
                worker = next(worker for worker in busy if worker.pipe is pipe)
                work, worker.work = worker.work, None
                ended = _receive(worker, work)
                if ended is None:
                    workers.remove(worker)
                    free.append(worker.environment)
                    ended = Ended(work, reason=_death(worker, work))
                yield ended
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def last_lines(log: Path, most: int = LAST_LINES) -> str:
    """Return the last lines of a log that say something."""
    with suppress(OSError):
        text = log.read_text(encoding="utf-8", errors="replace")
        return "\n".join([line for line in text.splitlines() if line.strip()][-most:])
    return ""


def _start(function: Callable[[Any], Any], environment: Mapping[str, str]) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=False)
    # What a process has printed before it dies must be in its log.
    with _environment({**environment, "PYTHONUNBUFFERED": "1"}):
        process.start()
    theirs.close()
    return _Worker(process, ours, environment)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables while a process starts, which inherits them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _give(worker: _Worker, work: Work, started: Callable[[Any], None]) -> None:
    worker.work = work
    with suppress(OSError):  # a process that is gone already is seen by what it leaves
        worker.pipe.send(work)
    started(work)


def _receive(worker: _Worker, work: Any) -> Ended | None:
    """Take what a process has to say; None where it is gone."""
    try:
        value, reason = worker.pipe.recv()
    except (EOFError, OSError):
        return None
    return Ended(work, value, reason)


def _death(worker: _Worker, work: Work) -> str:
    """Say how a process ended that should not have."""
    worker.process.join(timeout=10)
    code = worker.process.exitcode
    worker.pipe.close()
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        how = f"the process was killed by {name}"
        if -code == signal.SIGKILL:
            how += ", as a machine does that is out of memory"
    else:
        how = f"the process ended with exit code {code}"
    return "\n".join(part for part in (how, last_lines(work.log)) if part)


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
    import traceback

    try:
        return function(work), None
    except BaseException as error:  # also exits: a library's must not take the process along
        traceback.print_exc()
        return None, f"{type(error).__name__}: {error}"


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what this process and its children print to a file."""
    import sys

    kept = [os.dup(1), os.dup(2)]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
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
