"""`experiment`: run the cells of an experiment that have no result yet.

    experiment FOLDER [--jobs N] [--dry-run] [--cell NAME] [--only TEXT] [--retry]
               [--results DIR] [-c FILE]... [--wandb]

FOLDER holds experiment.yaml: a claim, its rule and its cells. Each cell is one run of `fit`, and
leaves one file in FOLDER/results. Cells whose file is there are done: after a stop, however it
came about, the same line goes on. A failed cell stays, with its reason, until --retry.

  --jobs N       processes at a time; as it is: one for each GPU, else one for each core
  --dry-run      show which cells are there and what the missing ones will cost
  --cell NAME    this cell alone, by its name or its number, from 0
  --only TEXT    the cells whose name holds the text
  --retry        run failed cells again, and those made with another configuration
  --results DIR  where results are read and written; needed with -c
  -c FILE        a configuration over that of every cell, such as another base model
  --wandb        log every cell to W&B, as one group
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from tell_lightning.commands.cell import CellWork, failed, run_cell
from tell_lightning.commands.check import ConfigError
from tell_lightning.commands.config_files import config_paths, read_config
from tell_lightning.commands.startup import take_option, wants_usage
from tell_lightning.commands.tables import print_rows
from tell_lightning.experiment import pool
from tell_lightning.experiment.cells import TUNING
from tell_lightning.experiment.results import (
    FAILED,
    Result,
    as_text,
    points,
    write_result,
)
from tell_lightning.experiment.specification import Experiment, read_experiment
from tell_lightning.experiment.survey import Planned, check_same, costs, survey
from tell_lightning.experiment.tuning import choose
from tell_lightning.files import locked, write_whole


@dataclass(frozen=True)
class Request:
    """The command line."""

    folder: Path
    results: Path
    jobs: int | None
    dry_run: bool
    cell: str | None
    only: str | None
    retry: bool
    wandb: bool
    overlays: tuple[Mapping[str, Any], ...] = field(default=())


def experiment(arguments: list[str]) -> None:
    """Run the verb.

    Args:
        arguments: What follows the verb on the command line.
    """
    if wants_usage(arguments, __doc__):
        return
    request = read_request(arguments)
    found = read_experiment(request.folder)
    planned = survey(found, request.results, request.overlays)
    asked = _asked(planned, request)
    if request.dry_run:
        _show(found, asked, planned, request)
        return
    if not request.retry:
        check_same(asked)
    todo = [each for each in asked if _is_due(each, request)]
    went_wrong = _run(found, asked, planned, todo, request) if todo else 0
    _finish(found, request)
    if went_wrong:
        sys.exit(1)


def read_request(arguments: list[str]) -> Request:
    """Read the command line.

    Raises:
        ConfigError: An option or a value that there is not.
    """
    paths = config_paths(arguments)
    rest = list(arguments)
    for flag in ("-c", "--config"):
        while any(argument.partition("=")[0] == flag for argument in rest):
            _, rest = _take_first(rest, flag)
    jobs, rest = take_option(rest, "--jobs")
    cell, rest = take_option(rest, "--cell")
    only, rest = take_option(rest, "--only")
    results, rest = take_option(rest, "--results")
    flags = {"--dry-run", "--retry", "--wandb"}
    given = flags & set(rest)
    rest = [argument for argument in rest if argument not in flags]
    if len(rest) != 1 or rest[0].startswith("-"):
        raise ConfigError(
            f"experiment: needs one folder and options of its own, got '{' '.join(rest)}'. Write "
            "`experiment experiments/NAME`; see `experiment --help`."
        )
    if jobs is not None and not (jobs.isdecimal() and int(jobs) > 0):
        raise ConfigError(f"--jobs: must be a whole number from 1 on, got '{jobs}'. Mend it.")
    if paths and not results:
        raise ConfigError(
            "-c: needs a place of its own for the results, got none. Write --results DIR, so that "
            "they are not mixed with those of the folder."
        )
    folder = Path(rest[0])
    return Request(
        folder,
        Path(results) if results else folder / "results",
        int(jobs) if jobs else None,
        "--dry-run" in given,
        cell,
        only,
        "--retry" in given,
        "--wandb" in given,
        tuple(read_config(path) for path in paths),
    )


def _take_first(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """Take the first of an option that may come several times."""
    index = next(i for i, each in enumerate(arguments) if each.partition("=")[0] == flag)
    width = 1 if "=" in arguments[index] else 2
    return None, arguments[:index] + arguments[index + width :]


def _asked(planned: Sequence[Planned], request: Request) -> list[Planned]:
    """Choose the cells of --cell and --only."""
    asked = list(planned)
    if request.cell is not None:
        by_name = {each.cell.name: each for each in planned}
        if request.cell.isdecimal() and int(request.cell) < len(planned):
            asked = [planned[int(request.cell)]]
        elif request.cell in by_name:
            asked = [by_name[request.cell]]
        else:
            raise ConfigError(
                f"--cell: must be the name of a cell, or a number below {len(planned)}, got "
                f"'{request.cell}'. See --dry-run, or name a part of it with --only."
            )
    if request.only is not None:
        asked = [each for each in asked if request.only in each.cell.name]
        if not asked:
            raise ConfigError(
                f"--only: must be a part of a cell's name, got '{request.only}', which is in none "
                f"of {len(planned)}, such as {planned[0].cell.name}. See --dry-run."
            )
    return asked


def _is_due(each: Planned, request: Request) -> bool:
    return each.state == "missing" or (request.retry and each.state in {"failed", "other"})


def _run(
    found: Experiment,
    asked: Sequence[Planned],
    planned: Sequence[Planned],
    todo: Sequence[Planned],
    request: Request,
) -> int:
    """Run the cells.

    Returns:
        How many failed.
    """
    environments = _environments(found, request)[: len(todo)]
    display = _Display(found, len(asked), len(asked) - len(todo), len(environments))
    display.expect(todo, planned)
    request.results.mkdir(parents=True, exist_ok=True)
    went_wrong = 0
    with (
        tempfile.TemporaryDirectory(prefix="tell_lightning-") as home,
        display,
        ExitStack() as held,
    ):
        locks: dict[str, ExitStack] = {}
        since: dict[str, float] = {}

        def works() -> Iterator[CellWork]:
            for each in todo:
                lock = held.enter_context(ExitStack())
                if not _take(lock, each, request):
                    display.elsewhere(each)
                    continue
                locks[each.cell.name], since[each.cell.name] = lock, time.perf_counter()
                folder = Path(home) / each.cell.name
                folder.mkdir()
                yield CellWork(found, each.cell, each.config, each.digest, folder)

        try:
            for ended in pool.run(run_cell, works(), environments):
                work: CellWork = ended.work
                name = work.cell.name
                result = ended.value or failed(
                    work, ended.reason or "", time.perf_counter() - since[name]
                )
                write_result(request.results, result)
                locks[name].close()
                shutil.rmtree(work.folder, ignore_errors=True)
                went_wrong += result["status"] == FAILED
                display.ended(result)
        except KeyboardInterrupt:
            display.stop()
            line = " ".join(["python -m tell_lightning experiment", *map(str, _again(request))])
            print(f"\nStopped. What is done is kept. Go on with: {line}", file=sys.stderr)
            raise
    return went_wrong


def _again(request: Request) -> list[object]:
    return [request.folder]


def _take(lock: ExitStack, each: Planned, request: Request) -> bool:
    """Take a cell, unless another process has it or has just done it."""
    refusal = ConfigError("taken")
    with suppress(ConfigError):
        lock.enter_context(locked(request.results / f".{each.cell.name}.lock", refusal))
        path = request.results / f"{each.cell.name}.json"
        if path.is_file() and each.state == "missing":
            lock.close()
            return False
        return True
    return False


def _environments(found: Experiment, request: Request) -> list[dict[str, str]]:
    """Return the environment of each process."""
    shared = dict(pool.ONE_THREAD)
    if request.wandb:
        shared["WANDB_RUN_GROUP"] = found.name
    else:
        shared["WANDB_MODE"] = "disabled"
    gpus = _gpus()
    if gpus:
        jobs = request.jobs or len(gpus)
        return [{**shared, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs)]
    return [shared] * (request.jobs or len(os.sched_getaffinity(0)))


def _gpus() -> list[str]:
    """List the GPUs that this process may use, without importing torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name not in {"", "-1"}]
    if not shutil.which("nvidia-smi"):
        return []
    import subprocess

    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


class _Display:
    """One line a cell, and on a terminal a bar below them."""

    def __init__(self, found: Experiment, total: int, there: int, jobs: int) -> None:
        self._found, self._total, self._done, self._jobs = found, total, there, jobs
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                console=self._console,
            )
            self._task = self._progress.add_task(found.name, total=total, completed=there, left="")

    def expect(self, todo: Sequence[Planned], planned: Sequence[Planned]) -> None:
        """Estimate what is ahead."""
        estimate = costs(planned)
        self._ahead = {each.cell.name: estimate(each) for each in todo}
        self._expected = self._spent = 0.0

    def __enter__(self) -> "_Display":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress:
            self._progress.stop()

    def elsewhere(self, each: Planned) -> None:
        """Say that another process has a cell."""
        self._ahead.pop(each.cell.name)
        self._total -= 1
        self._print(f"{each.cell.name}  is run by another process")

    def ended(self, result: Result) -> None:
        """Show what came of a cell."""
        self._done += 1
        name, seconds = str(result["name"]), float(result["seconds"])
        self._expected += self._ahead.pop(name)
        self._spent += seconds
        left = sum(self._ahead.values()) * self._spent / self._expected / self._jobs
        ahead = f"about {duration(left)} left" if self._ahead else "done"
        what = _outcome(result)
        self._print(
            f"{self._done} of {self._total}  {name}  {what}  {seconds:.0f} s"
            + ("" if self._progress else f"  {ahead}")
        )
        if self._progress:
            self._progress.update(self._task, completed=self._done, left=ahead)

    def _print(self, line: str) -> None:
        (self._progress.console if self._progress else self._console).print(line, markup=False)


def _outcome(result: Result) -> str:
    """Say in a few words what came of a cell."""
    if result["status"] == FAILED:
        return f"FAILED: {result['reason'].splitlines()[0]}"
    score = result["score"]
    found = result["test"] or result["dev"]
    return f"{score} {points(found['values'][score], score):.1f}"


def duration(seconds: float) -> str:
    """Write a time that is not known exactly.

    >>> duration(20), duration(700), duration(9000)
    ('20 s', '12 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _show(
    found: Experiment, asked: Sequence[Planned], planned: Sequence[Planned], request: Request
) -> None:
    """Print how many cells are there, by testbed, arm and n, and what the rest will cost."""
    estimate = costs(planned)
    groups: dict[tuple[str, str, int], list[Planned]] = {}
    for each in asked:
        groups.setdefault((each.cell.testbed, each.cell.arm, each.cell.n), []).append(each)
    rows = [["testbed", "arm", "n", "cells", "there", "missing", "failed", "other", "cost"]]
    total = 0.0
    for (testbed, arm, n), cells in groups.items():
        states = [each.state for each in cells]
        cost = sum(estimate(each) for each in cells if _is_due(each, request))
        total += cost
        counts = [states.count(state) for state in ("there", "missing", "failed", "other")]
        rows.append([testbed, arm, str(n), str(len(cells)), *map(str, counts), duration(cost)])
    print_rows(rows, found.title)
    due = sum(_is_due(each, request) for each in asked)
    jobs = len(_environments(found, request))
    print(
        f"{len(asked)} cells, {due} to run: about {duration(total)} of one process, "
        f"{duration(total / jobs)} with {jobs}."
    )
    if not request.retry:
        check_same(asked)


def _finish(found: Experiment, request: Request) -> None:
    """Say what is there now; write what tuning has chosen."""
    planned = survey(found, request.results, request.overlays)
    asked = _asked(planned, request)
    states = [each.state for each in asked]
    line = f"{states.count('there')} of {len(asked)} cells are there, in {request.results}."
    if count := states.count("failed"):
        line += f" {count} failed: see their reason, then run them again with --retry."
    print(line)
    complete = all(each.state == "there" for each in planned)
    if found.kind == TUNING and complete:
        path = request.results.parent / "chosen.json"
        write_whole(path, as_text(choose(found, planned)).encode())
        print(f"Chosen: {path}")
