"""`experiment`: run, in parallel, what an experiment has no result of yet.

An experiment is a folder with a claim, a rule and many runs of `fit` (in the code: cells). Each run
leaves one file in the folder's results/. This module reads the command line, chooses the runs,
gives them to warm processes and stores what they return. No torch in this process.
"""

import math
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tell_lightning.commands.arguments import CommandParser, as_path, whole_number, write_file
from tell_lightning.commands.cell import CellWork, devices, failed, run_cell
from tell_lightning.commands.config_files import read_config
from tell_lightning.commands.experiment_display import Display, duration, print_survey
from tell_lightning.commands.made_base import make_missing
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
    by_steps,
    check_same,
    check_tuned,
    costs,
    places,
    survey,
)
from tell_lightning.experiment.tuning import choose
from tell_lightning.files import locked, write_whole
from tell_lightning.settings import ConfigError

ALIKE = 3
"""If this many first runs all fail for the same reason, the others are not started."""
DESCRIPTION = """
Run, in parallel, what an experiment has no result of yet.

FOLDER holds experiment.yaml: a claim, its rule, and a list of runs of `fit`, which it calls cells.
The result of each run is one file in FOLDER/results. A run that has a file is done: after a stop,
the same command continues with the others. The file of a failed run holds the reason; --retry runs
it again.
"""


@dataclass(frozen=True)
class ExperimentOptions:
    """The options of the command line, as `_parser` describes them."""

    folder: Path
    jobs: int | None = None
    dry_run: bool = False
    cell: str | None = None
    only: str | None = None
    retry: bool = False
    results: Path | None = None
    config: Sequence[str] = ()
    wandb: bool = False
    slurm: Path | None = None
    sweep: Path | None = None

    def line(self, *, absolute: bool = False) -> list[str]:
        """Return the words that name the same experiment in a new command line, without a choice.

        Args:
            absolute: Whether paths begin at the root, for a line that is run in another folder.
        """

        def place(path: str | Path) -> str:
            return str(Path(path).resolve() if absolute else path)

        words = [place(self.folder)]
        for path in self.config:
            words += ["-c", place(path)]
        if self.results:
            words += ["--results", place(self.results)]
        return words


@dataclass(frozen=True)
class Status:
    """An experiment, what is there of it, and what is asked for."""

    options: ExperimentOptions
    experiment: Experiment
    places: Places
    planned: Sequence[Planned]
    """All cells."""
    asked: Sequence[Planned]
    """Those of --cell and --only."""

    def is_due(self, each: Planned) -> bool:
        """Return whether a cell is to be run."""
        again = self.options.retry and each.state in {"failed", "other"}
        return each.state == "missing" or again


def experiment(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
    """
    options = read_options(arguments)
    status = _look(options)
    if options.dry_run:
        _show(status)
        return
    check_tuned(status.asked)
    if not options.retry:
        check_same(status.asked)
    if options.slurm or options.sweep:
        _write_cluster(status)
        return
    went_wrong = 0
    if todo := [each for each in status.asked if status.is_due(each)]:
        went_wrong = _run(status, todo)
    _finish(_look(options))
    if went_wrong:
        sys.exit(1)


def read_options(arguments: list[str]) -> ExperimentOptions:
    """Read the command line.

    Raises:
        ConfigError: An option that does not exist, a wrong value, or -c without --results.
    """
    options = ExperimentOptions(**vars(_parser().parse(arguments)))
    if options.config and not options.results:
        raise ConfigError(
            "-c: needs a place of its own for the results, got no --results. Write --results DIR, "
            "so that they are not mixed with the results in the folder."
        )
    return options


def _parser() -> CommandParser:
    parser = CommandParser("experiment", DESCRIPTION)
    add = parser.add_argument
    add("folder", type=as_path, metavar="FOLDER", help="a folder such as experiments/same_data")
    add(
        "--jobs",
        type=whole_number(1),
        metavar="N",
        help="processes at a time; default: one for each GPU, or one for each core without any",
    )
    add(
        "--dry-run",
        action="store_true",
        help="show which results exist, and how long the other runs will take",
    )
    add("--cell", metavar="NAME", help="this run alone, by its name or its number, from 0")
    add("--only", metavar="TEXT", help="the runs whose names contain the text")
    add(
        "--retry",
        action="store_true",
        help="repeat the runs that failed or were made with another configuration",
    )
    add(
        "--results",
        type=as_path,
        metavar="DIR",
        help="read and write results in DIR/NAME/results instead of FOLDER/results",
    )
    add(
        *("-c", "--config"),
        action="append",
        default=[],
        metavar="FILE",
        help="a configuration over that of every run, such as another base; needs --results",
    )
    add(
        "--wandb",
        action="store_true",
        help="log every run to W&B, as one group; the run folders stay in runs/NAME",
    )
    add("--slurm", type=as_path, metavar="FILE", help="write an sbatch array script, and stop")
    add("--sweep", type=as_path, metavar="FILE", help="write a W&B sweep, and stop")
    return parser


def _look(options: ExperimentOptions) -> Status:
    """Read the experiment and find its results."""
    overlays = [read_config(path) for path in options.config]
    found = read_experiment(options.folder)
    check_rule(found)
    where = places(found, options.results, own_config=bool(overlays))
    planned = survey(found, where, overlays)
    return Status(options, found, where, planned, _asked(planned, options))


def _asked(planned: Sequence[Planned], options: ExperimentOptions) -> list[Planned]:
    """Choose the cells of --cell and --only.

    Raises:
        ConfigError: There is none.
    """
    asked = list(planned)
    if options.cell is not None:
        by_name = {str(number): each for number, each in enumerate(planned)}
        by_name |= {each.cell.name: each for each in planned}
        if options.cell not in by_name:
            raise ConfigError(
                f"--cell: must be the name of a run, or a number below {len(planned)}, got "
                f"'{options.cell}'. See --dry-run, or give a part of the name to --only."
            )
        asked = [by_name[options.cell]]
    if options.only is not None:
        asked = [each for each in asked if options.only in each.cell.name]
        if not asked:
            example = f", such as {planned[0].cell.name}" if planned else ""
            raise ConfigError(
                f"--only: must be a part of a run's name, got '{options.only}', which is in none "
                f"of {len(planned)}{example}. See --dry-run."
            )
    return asked


def _show(status: Status) -> None:
    """Print what is there, and what the rest will cost."""
    total = print_survey(
        status.experiment.title, status.asked, status.is_due, costs(status.planned)
    )
    due = [each for each in status.asked if status.is_due(each)]
    for made in _recipes(status, status.asked):
        state = "is there" if made_folder(made).is_dir() else "will be made first"
        print(f"base {made.name}: {state}, in {made_folder(made)}")
    jobs = len(_environments(status))
    cost = f"about {duration(total)} in one process, {duration(total / jobs)} in {jobs}"
    if math.isnan(total):
        cost = "for how long is known when a run of each testbed and arm with this base has ended"
    print(f"{len(status.asked)} runs, {len(due)} to do: {cost}.")
    if waiting := [each for each in status.asked if each.state == "waiting"]:
        print(f"{len(waiting)} wait for their settings. {waiting[0].waits_for}")
    if not status.options.retry:
        check_same(status.asked)


# Running


def _run(status: Status, todo: Sequence[Planned]) -> int:
    """Run cells.

    Returns:
        How many failed.
    """
    estimate = costs(status.planned)
    unknown = any(math.isnan(estimate(each)) for each in todo)
    ahead = {each.cell.name: (by_steps if unknown else estimate)(each) for each in todo}
    there = len(status.asked) - len(todo)
    display = Display(status.experiment.name, total=len(status.asked), there=there, ahead=ahead)
    _make_folder(status.places.results)
    try:
        with tempfile.TemporaryDirectory(prefix="tell_lightning-") as home:
            make_missing(_recipes(status, todo), Path(home), display.say)
            return _run_cells(status, todo, Path(home), display)
    except KeyboardInterrupt:
        again = shlex.join(["python", "-m", "tell_lightning", "experiment", *status.options.line()])
        print(f"\nStopped; finished runs are kept. Continue with: {again}", file=sys.stderr)
        raise
    finally:
        display.stop()


def _run_cells(status: Status, todo: Sequence[Planned], home: Path, display: Display) -> int:
    environments = _environments(status)[: len(todo)]
    display.start(len(environments))
    reasons: list[str | None] = []
    with ExitStack() as held:
        locks: dict[str, ExitStack] = {}

        def works() -> Iterator[CellWork]:
            for each in todo:
                lock = _claimed(status, each)
                if lock is None:
                    display.elsewhere(each.cell.name)
                    continue
                locks[each.cell.name] = held.enter_context(lock)
                yield _work(status, each, home)

        for ended in pool.run(run_cell, works(), environments):
            work: CellWork = ended.work
            result = ended.value or failed(work, ended.reason or "", ended.seconds)
            write_result(status.places.results, result)
            locks.pop(work.cell.name).close()
            shutil.rmtree(work.folder, ignore_errors=True)
            display.ended(result)
            reasons.append(result["reason"])
            _check_alike(reasons, len(todo))
    return len(reasons) - reasons.count(None)


def _work(status: Status, each: Planned, home: Path) -> CellWork:
    folder = home / each.cell.name
    folder.mkdir()
    runs = Path("runs") / status.experiment.name / each.cell.name if status.options.wandb else None
    config = located(status.experiment, each.config)
    return CellWork(status.experiment, each.cell, config, each.digest, folder, runs)


def _claimed(status: Status, each: Planned) -> ExitStack | None:
    """Lock a cell for this process; None where another process has it, or has just done it."""
    lock = ExitStack()
    name, taken = each.cell.name, ConfigError("taken")
    with suppress(ConfigError):
        lock.enter_context(locked(status.places.results / f".{name}.lock", taken))
        if each.state != "missing" or not (status.places.results / f"{name}.json").exists():
            return lock
        lock.close()
    return None


def _check_alike(reasons: Sequence[str | None], total: int) -> None:
    """Stop when the first runs have all failed for the same reason.

    Raises:
        ConfigError: They have.
    """
    if len(reasons) == ALIKE < total and None not in reasons and len(set(reasons)) == 1:
        raise ConfigError(
            f"experiment: the first runs must not all fail alike, got {ALIKE} times: {reasons[0]} "
            "The others were not started. Correct the cause, and continue with --retry."
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--results: must be a folder to write to, got '{folder}': {error.strerror}. Give "
            "another one."
        ) from error


def _environments(status: Status) -> list[dict[str, str]]:
    """Return the environment of each process."""
    shared = {"WANDB_MODE": "disabled"}
    if status.options.wandb:
        shared = {"WANDB_RUN_GROUP": status.experiment.name}
    if any(devices(each.config) > 1 for each in status.asked):  # each run uses all devices
        return [{**pool.ONE_THREAD, **shared}]
    return pool.environments(status.options.jobs, shared)


# Bases


def _recipes(status: Status, cells: Sequence[Planned]) -> list[Recipe]:
    """Return the recipes of the bases that cells start from and the runner makes."""
    names = [str(value_of(each.config, "model.base") or "") for each in cells]
    made = dict.fromkeys(name.removeprefix(MADE) for name in names if name.startswith(MADE))
    return [recipe(status.experiment, name) for name in made]


# What is left


def _finish(status: Status) -> None:
    """Say what is there now; write what tuning has chosen."""
    states = [each.state for each in status.asked]
    line = f"{states.count('there')} of {len(states)} results exist, in {status.places.results}."
    if count := states.count("failed"):
        line += f" {count} failed: their files say why; repeat them with --retry."
    print(line)
    if status.experiment.kind == TUNING and (chosen := choose(status.experiment, status.planned)):
        path = status.places.results.parent / "chosen.json"
        write_whole(path, as_text(chosen).encode())
        print(f"Chosen settings: {path}")


def _write_cluster(status: Status) -> None:
    """Write the files that run the missing cells on a cluster."""
    _make_folder(status.places.results)
    asked = {each.cell.name for each in status.asked if status.is_due(each)}
    numbers = [i for i, each in enumerate(status.planned) if each.cell.name in asked]
    if not numbers:
        print("Nothing to write: all results exist.")
        return
    options, name = status.options, status.experiment.name
    command = [sys.executable, "-m", "tell_lightning", "experiment", *options.line(absolute=True)]
    command += ["--retry"] if options.retry else []
    if options.slurm:
        own = [*command, "--wandb"] if options.wandb else command
        place = str(status.places.results.resolve())
        text = cluster.array_script(name, str(Path.cwd()), own, numbers, results=place)
        write_file("--slurm", options.slurm, text.encode())
        print(f"{len(numbers)} runs. Submit them with: sbatch {options.slurm}")
    if options.sweep:
        project = str(value_of(status.asked[0].config, "run.wandb_project") or "tell_lightning")
        names = [status.planned[i].cell.name for i in numbers]
        text = cluster.sweep(name, project, command, names)
        write_file("--sweep", options.sweep, text.encode())
        print(
            f"{len(names)} runs. Start with: wandb sweep {options.sweep}; then run the "
            "`wandb agent` line that it prints, on as many machines as you like."
        )
