"""`experiment`: run the cells of an experiment that have no result yet.

    experiment FOLDER [--jobs N] [--dry-run] [--cell NAME] [--only TEXT] [--retry]
               [--results DIR] [-c FILE]... [--wandb] [--slurm FILE] [--sweep FILE]

FOLDER holds experiment.yaml: a claim, its rule and its cells. Each cell is one run of `fit`, and
leaves one file in FOLDER/results. A cell whose file is there is done: after a stop, however it came
about, the same line goes on. A failed cell stays, with its reason, until --retry.

  --jobs N       processes at a time; without it one for each GPU, else one for each core
  --dry-run      show which cells are there and what the missing ones will cost
  --cell NAME    this cell alone, by its name or by its number, from 0
  --only TEXT    the cells whose name holds the text
  --retry        run failed cells again, and those made with another configuration
  --results DIR  read and write results in DIR/NAME/results, in place of FOLDER/results
  -c FILE        a configuration over that of every cell, such as another base; needs --results
  --wandb        log every cell to W&B, as one group; its run folders stay in runs/NAME
  --slurm FILE   write an sbatch script that runs the missing cells as an array, and stop
  --sweep FILE   write a W&B sweep over the missing cells, and stop
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tell_lightning.commands.cell import CellWork, failed, run_cell
from tell_lightning.commands.check import ConfigError
from tell_lightning.commands.config_files import config_paths, read_config
from tell_lightning.commands.experiment_display import Display, duration, print_survey
from tell_lightning.commands.made_base import BaseWork, make_base
from tell_lightning.commands.startup import take_option, wants_usage
from tell_lightning.experiment import cluster, pool
from tell_lightning.experiment.bases import MADE, Recipe, located, made_folder, recipe
from tell_lightning.experiment.cells import TUNING
from tell_lightning.experiment.overlays import value_of
from tell_lightning.experiment.results import as_text, write_result
from tell_lightning.experiment.rules import check_rule
from tell_lightning.experiment.specification import Experiment, read_experiment
from tell_lightning.experiment.survey import (
    Places,
    Planned,
    check_same,
    costs,
    places,
    survey,
)
from tell_lightning.experiment.tuning import choose
from tell_lightning.files import locked, write_whole

ALIKE = 3
"""So many cells that fail first, all for one reason, end the run: it would fail the others, too."""


@dataclass(frozen=True)
class ExperimentOptions:
    """The command line."""

    folder: Path
    jobs: int | None = None
    dry_run: bool = False
    cell: str | None = None
    only: str | None = None
    retry: bool = False
    results: str | None = None
    configs: tuple[str, ...] = ()
    wandb: bool = False
    slurm: str | None = None
    sweep: str | None = None

    def line(self, *, absolute: bool = False) -> list[str]:
        """Return the words that name the same cells in a new command line, without a choice."""
        place = (lambda path: str(Path(path).resolve())) if absolute else str
        words = [place(str(self.folder))]
        for path in self.configs:
            words += ["-c", place(path)]
        if self.results:
            words += ["--results", place(self.results)]
        return words


@dataclass(frozen=True)
class Run:
    """What the command line comes to."""

    request: ExperimentOptions
    experiment: Experiment
    places: Places
    planned: Sequence[Planned]
    """All cells."""
    asked: Sequence[Planned]
    """Those of --cell and --only."""

    def is_due(self, each: Planned) -> bool:
        """Say whether a cell is to be run."""
        again = self.request.retry and each.state in {"failed", "other"}
        return each.state == "missing" or again


def experiment(arguments: list[str]) -> None:
    """Run the verb.

    Args:
        arguments: What follows the verb on the command line.
    """
    if wants_usage(arguments, __doc__):
        return
    run = _look(read_request(arguments))
    request = run.request
    if request.dry_run:
        _show(run)
        return
    if not request.retry:
        check_same(run.asked)
    if request.slurm or request.sweep:
        _write_cluster(run)
        return
    went_wrong = 0
    if todo := [each for each in run.asked if run.is_due(each)]:
        went_wrong = _run(run, todo)
    _finish(_look(request))
    if went_wrong:
        sys.exit(1)


def read_request(arguments: list[str]) -> ExperimentOptions:
    """Read the command line.

    Raises:
        ConfigError: An option or a value that there is not.
    """
    configs = config_paths(arguments)
    rest = _without_configs(arguments)
    values: dict[str, Any] = {}
    for name in ("jobs", "cell", "only", "results", "slurm", "sweep"):
        values[name], rest = take_option(rest, f"--{name}")
    for name in ("dry_run", "retry", "wandb"):
        flag = f"--{name.replace('_', '-')}"
        values[name] = flag in rest
        rest = [argument for argument in rest if argument != flag]
    if len(rest) != 1 or rest[0].startswith("-"):
        raise ConfigError(
            f"experiment: needs one folder and options of its own, got '{' '.join(rest)}'. Write "
            "`experiment experiments/NAME`; see `experiment --help`."
        )
    jobs = values.pop("jobs")
    if jobs is not None and not (jobs.isdecimal() and int(jobs) > 0):
        raise ConfigError(f"--jobs: must be a whole number from 1 on, got '{jobs}'. Mend it.")
    if configs and not values["results"]:
        raise ConfigError(
            "-c: needs results of its own, got no --results. Write --results DIR, so that they "
            "are not mixed with those of the folder."
        )
    return ExperimentOptions(
        Path(rest[0]), jobs=int(jobs) if jobs else None, configs=tuple(configs), **values
    )


def _without_configs(arguments: list[str]) -> list[str]:
    rest: list[str] = []
    walk = iter(arguments)
    for argument in walk:
        name, has_value, _ = argument.partition("=")
        if name not in {"-c", "--config"}:
            rest.append(argument)
        elif not has_value:
            next(walk)
    return rest


def _look(request: ExperimentOptions) -> Run:
    """Read the experiment and see what is there of it."""
    overlays = [read_config(path) for path in request.configs]
    found = read_experiment(request.folder)
    check_rule(found)
    root = Path(request.results) if request.results else None
    where = places(found, root, own_config=bool(overlays))
    planned = survey(found, where, overlays)
    return Run(request, found, where, planned, _asked(planned, request))


def _asked(planned: Sequence[Planned], request: ExperimentOptions) -> list[Planned]:
    """Choose the cells of --cell and --only.

    Raises:
        ConfigError: There is none.
    """
    asked = list(planned)
    if request.cell is not None:
        by_name = {each.cell.name: each for each in planned}
        by_name |= {str(number): each for number, each in enumerate(planned)}
        if request.cell not in by_name:
            raise ConfigError(
                f"--cell: must be the name of a cell, or a number below {len(planned)}, got "
                f"'{request.cell}'. See --dry-run, or give a part of the name to --only."
            )
        asked = [by_name[request.cell]]
    if request.only is not None:
        asked = [each for each in asked if request.only in each.cell.name]
        if not asked:
            example = f", such as {planned[0].cell.name}" if planned else ""
            raise ConfigError(
                f"--only: must be a part of a cell's name, got '{request.only}', which is in none "
                f"of {len(planned)}{example}. See --dry-run."
            )
    return asked


def _show(run: Run) -> None:
    """Print what is there, and what the rest will cost."""
    total = print_survey(run.experiment.title, run.asked, run.is_due, costs(run.planned))
    due = [each for each in run.asked if run.is_due(each)]
    for made in _recipes(run, run.asked):
        state = "is there" if made_folder(made).is_dir() else "will be made first"
        print(f"base {made.name}: {state}, in {made_folder(made)}")
    jobs = len(_environments(run))
    print(
        f"{len(run.asked)} cells, {len(due)} to run: about {duration(total)} in one process, "
        f"{duration(total / jobs)} in {jobs}."
    )
    if not run.request.retry:
        check_same(run.asked)


# Running


def _run(run: Run, todo: Sequence[Planned]) -> int:
    """Run cells.

    Returns:
        How many failed.
    """
    estimate = costs(run.planned)
    ahead = {each.cell.name: estimate(each) for each in todo}
    there = len(run.asked) - len(todo)
    display = Display(run.experiment.name, total=len(run.asked), there=there, ahead=ahead)
    _make_place(run.places.results)
    try:
        with tempfile.TemporaryDirectory(prefix="tell_lightning-") as home:
            _make_bases(run, todo, Path(home), display)
            return _run_cells(run, todo, Path(home), display)
    except KeyboardInterrupt:
        again = shlex.join(["python", "-m", "tell_lightning", "experiment", *run.request.line()])
        print(f"\nStopped; what is done is kept. Go on with: {again}", file=sys.stderr)
        raise
    finally:
        display.stop()


def _run_cells(run: Run, todo: Sequence[Planned], home: Path, display: Display) -> int:
    environments = _environments(run)[: len(todo)]
    display.start(len(environments))
    reasons: list[str | None] = []
    since: dict[str, float] = {}
    with ExitStack() as held:
        locks: dict[str, ExitStack] = {}

        def works() -> Iterator[CellWork]:
            for each in todo:
                lock = _taken(run, each)
                if lock is None:
                    display.elsewhere(each.cell.name)
                    continue
                locks[each.cell.name] = held.enter_context(lock)
                since[each.cell.name] = time.perf_counter()
                yield _work(run, each, home)

        for ended in pool.run(run_cell, works(), environments):
            work: CellWork = ended.work
            seconds = time.perf_counter() - since[work.cell.name]
            result = ended.value or failed(work, ended.reason or "", seconds)
            write_result(run.places.results, result)
            locks.pop(work.cell.name).close()
            shutil.rmtree(work.folder, ignore_errors=True)
            display.ended(result)
            reasons.append(result["reason"])
            _check_alike(reasons, len(todo))
    return len(reasons) - reasons.count(None)


def _work(run: Run, each: Planned, home: Path) -> CellWork:
    folder = home / each.cell.name
    folder.mkdir()
    runs = Path("runs") / run.experiment.name / each.cell.name if run.request.wandb else None
    config = located(run.experiment, each.config)
    return CellWork(run.experiment, each.cell, config, each.digest, folder, runs)


def _taken(run: Run, each: Planned) -> ExitStack | None:
    """Take a cell; None where another process has it, or has done it meanwhile."""
    lock = ExitStack()
    name, taken = each.cell.name, ConfigError("taken")
    with suppress(ConfigError):
        lock.enter_context(locked(run.places.results / f".{name}.lock", taken))
        if each.state != "missing" or not (run.places.results / f"{name}.json").exists():
            return lock
        lock.close()
    return None


def _check_alike(reasons: Sequence[str | None], total: int) -> None:
    """Stop a run whose first cells have all failed for the same reason.

    Raises:
        ConfigError: So it is.
    """
    if len(reasons) == ALIKE < total and None not in reasons and len(set(reasons)) == 1:
        raise ConfigError(
            f"experiment: the first cells must not all fail alike, got {ALIKE} times: {reasons[0]} "
            "The others are not run; mend it, and go on with --retry."
        )


def _make_place(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--results: must be a folder to write to, got '{folder}': {error.strerror}. Give "
            "another one."
        ) from error


def _environments(run: Run) -> list[dict[str, str]]:
    """Return the environment of each process."""
    shared = dict(pool.ONE_THREAD)
    if run.request.wandb:
        shared["WANDB_RUN_GROUP"] = run.experiment.name
    else:
        shared["WANDB_MODE"] = "disabled"
    most_devices = max((_devices(each) for each in run.asked), default=1)
    gpus = _gpus()
    if most_devices > 1:  # a cell that has the devices for itself
        return [shared]
    if gpus:
        jobs = run.request.jobs or len(gpus)
        return [{**shared, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs)]
    return [shared] * (run.request.jobs or len(os.sched_getaffinity(0)))


def _devices(each: Planned) -> int:
    devices = value_of(each.config, "trainer.devices")
    return devices if isinstance(devices, int) else 1


def _gpus() -> list[str]:
    """List the GPUs that this process may use, without importing torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name not in {"", "-1"}]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


# Bases


def _recipes(run: Run, cells: Sequence[Planned]) -> list[Recipe]:
    """Return the recipes of the bases that cells start from and the runner makes."""
    names = [str(value_of(each.config, "model.base") or "") for each in cells]
    made = dict.fromkeys(name.removeprefix(MADE) for name in names if name.startswith(MADE))
    return [recipe(run.experiment, name) for name in made]


def _make_bases(run: Run, todo: Sequence[Planned], home: Path, display: Display) -> None:
    """Make the bases that are missing.

    Raises:
        ConfigError: One cannot be made.
    """
    for made in _recipes(run, todo):
        out = made_folder(made)
        out.parent.mkdir(parents=True, exist_ok=True)
        waits = False
        while not out.is_dir():
            busy = ConfigError("busy")
            try:
                with locked(out.with_name(f".{out.name}.lock"), busy):
                    if not out.is_dir():
                        _make(made, out, home, display)
            except ConfigError as error:
                if error is not busy:
                    raise
                if not waits:
                    display.say(f"base {made.name}  is made by another process; waiting")
                waits = True
                time.sleep(2)


def _make(made: Recipe, out: Path, home: Path, display: Display) -> None:
    display.say(f"base {made.name}  is made first, once, in {out}")
    started = time.perf_counter()
    folder = home / f"base-{made.name}"
    folder.mkdir()
    environment = {**pool.ONE_THREAD, "WANDB_MODE": "disabled"}
    (ended,) = pool.run(make_base, iter([BaseWork(made, out, folder)]), [environment])
    if ended.reason is not None:
        raise ConfigError(
            f"bases.yaml: {made.name}: must be made before the cells, got: {ended.reason} Mend "
            "its recipe."
        )
    display.say(f"base {made.name}  {time.perf_counter() - started:.0f} s")


# What is left


def _finish(run: Run) -> None:
    """Say what is there now; write what tuning has chosen."""
    states = [each.state for each in run.asked]
    line = f"{states.count('there')} of {len(states)} cells are there, in {run.places.results}."
    if count := states.count("failed"):
        line += f" {count} failed: the files say why; run them again with --retry."
    print(line)
    if run.experiment.kind == TUNING and all(each.state == "there" for each in run.planned):
        path = run.places.results.parent / "chosen.json"
        write_whole(path, as_text(choose(run.experiment, run.planned)).encode())
        print(f"Chosen settings: {path}")


def _write_cluster(run: Run) -> None:
    """Write the files that run the missing cells on a cluster."""
    _make_place(run.places.results)
    numbers = [i for i, each in enumerate(run.planned) if run.is_due(each) and each in run.asked]
    names = [run.planned[i].cell.name for i in numbers]
    if not numbers:
        print("Nothing to write: all cells are there.")
        return
    words = ["-m", "tell_lightning", "experiment", *run.request.line(absolute=True)]
    words += ["--retry"] if run.request.retry else []
    if run.request.slurm:
        command = [sys.executable, *words, *(["--wandb"] if run.request.wandb else [])]
        text = cluster.array_script(
            run.experiment.name,
            str(Path.cwd()),
            command,
            numbers,
            results=str(run.places.results.resolve()),
        )
        _write("--slurm", run.request.slurm, text)
        print(f"{len(numbers)} cells. Submit them with: sbatch {run.request.slurm}")
    if run.request.sweep:
        project = str(value_of(run.asked[0].config, "run.wandb_project") or "tell_lightning")
        text = cluster.sweep(run.experiment.name, project, [sys.executable, *words], names)
        _write("--sweep", run.request.sweep, text)
        print(
            f"{len(names)} cells. Start with: wandb sweep {run.request.sweep}; then run the "
            "`wandb agent` line that it prints, on as many machines as you like."
        )


def _write(option: str, path: str, text: str) -> None:
    try:
        write_whole(Path(path), text.encode())
    except OSError as error:
        raise ConfigError(
            f"{option}: must be a file that can be written, got '{path}': {error.strerror}. Name "
            "another one."
        ) from error
