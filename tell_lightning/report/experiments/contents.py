"""What the folders of experiments hold, read once: the first stage of their report.

Each experiment comes with its planned runs (cells) and their results. The results of all are pooled
by what was trained, so that a claim may use the runs of another. Runs that are missing or failed,
or that had another configuration than their cell has now, are counted. Two seconds for 1,000
results; no torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tell_lightning.experiment.cells import TUNING, Cell, Chosen, expand, read_choice
from tell_lightning.experiment.overlays import value_of
from tell_lightning.experiment.results import COMPLETED, Result, read_results
from tell_lightning.experiment.rules import LEAST_SEEDS, Verdict, verdicts
from tell_lightning.experiment.specification import Arm, Experiment, Testbed, read_experiment
from tell_lightning.experiment.survey import made_otherwise, places
from tell_lightning.report.contents import ReportError

SPECIFICATION, TESTBEDS = "experiment.yaml", "testbeds.yaml"
KINDS = ("activation", "same_data", "tenfold", "ten_examples", "anchor", "shuffle", "amount")
"""Kinds of rules in the order of the page; other kinds follow, tuning is last."""


class Key(NamedTuple):
    """The runs of one estimate: they differ in the seed alone."""

    testbed: str
    arm: str
    n: int
    variant: str | None = None


@dataclass(frozen=True)
class Study:
    """One experiment and what has been run of it."""

    experiment: Experiment
    chosen: Chosen
    """The settings that tuning chose."""
    cells: Sequence[Cell]
    """Its planned runs."""
    kept: Mapping[str, Result]
    """All results of its folder by the name of their cell, except those of `otherwise`."""
    otherwise: Sequence[str]
    """Cells whose result was made with another configuration than they have now: left out."""
    verdicts: Sequence[Verdict] = ()
    """One for each testbed, and at the end that of the whole claim; tuning has none."""

    @cached_property
    def results(self) -> dict[str, Result]:
        """The results of its cells."""
        return {cell.name: self.kept[cell.name] for cell in self.cells if cell.name in self.kept}

    @property
    def strangers(self) -> int:
        """How many results are of cells that it does not have."""
        return len(self.kept) - len(self.results)

    @property
    def tuning(self) -> bool:
        """Whether it only chooses settings."""
        return self.experiment.kind == TUNING

    def with_status(self, status: str) -> list[Result]:
        """Return the results with a status, in the order of the cells."""
        return [result for result in self.results.values() if result["status"] == status]

    @property
    def missing(self) -> list[Cell]:
        """The cells without a result."""
        known = {*self.results, *self.otherwise}
        return [cell for cell in self.cells if cell.name not in known]


@dataclass(frozen=True)
class Contents:
    """All experiments of one folder: a suite, which shares testbeds, arms and base."""

    folder: Path
    root: Path | None
    """Where their results are; None: in the folders."""
    studies: Sequence[Study]
    """In the order of the page."""
    results: Mapping[str, Result]
    """Of all of them but tuning, by the cell's name."""
    groups: Mapping[Key, Mapping[int, Result]]
    """The completed ones by what was trained and by seed."""
    settings: Mapping[str, Mapping[str, Any]]
    """The settings of each variant, by its name."""
    chosen: Chosen
    conflicts: Sequence[str]
    """Names of cells that two folders have run with different configurations."""
    least_seeds: int = LEAST_SEEDS
    """Fewer are called exploratory."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def heading(self) -> str:
        """The name with the base of `base.yaml`; below a root, a file of -c may have another."""
        base = value_of(self.studies[0].experiment.base, "model.base")
        return f"{self.name}, base {base}" if base and self.root is None else self.name

    @property
    def planned(self) -> int:
        """How many cells the experiments have."""
        return sum(len(study.cells) for study in self.studies)

    @property
    def own_results(self) -> list[Result]:
        """The results of these cells."""
        return [result for study in self.studies for result in study.results.values()]

    @property
    def testbeds(self) -> Mapping[str, Testbed]:
        """The testbeds that occur, in the order of their file."""
        used = {cell.testbed for study in self.studies for cell in study.cells}
        used |= {key.testbed for key in self.groups}
        known = self.studies[0].experiment.testbeds
        return {name: testbed for name, testbed in known.items() if name in used}

    @property
    def arms(self) -> Mapping[str, Arm]:
        """All arms, in the order of their file."""
        return self.studies[0].experiment.arms

    def label(self, arm: str) -> str:
        """Return the label of an arm with a capital first letter."""
        found = self.arms[arm].label if arm in self.arms else arm
        return found[:1].upper() + found[1:]

    def keys(
        self, testbed: str, arms: Iterable[str] | None = None, variant: str | None = None
    ) -> list[Key]:
        """List the keys of a testbed and a variant (None: without one), ordered by arm and n."""
        order = {name: index for index, name in enumerate(self.arms)}
        wanted = set(self.arms if arms is None else arms)
        found = [
            key
            for key in self.groups
            if key.testbed == testbed and key.variant == variant and key.arm in wanted
        ]
        return sorted(found, key=lambda key: (order[key.arm], key.n))


def holds_experiments(folder: Path) -> bool:
    """Say whether a folder is an experiment, or has some in it."""
    return (folder / SPECIFICATION).is_file() or any(folder.glob(f"*/{SPECIFICATION}"))


def read_suites(folder: Path, root: Path | None = None) -> list[Contents]:
    """Read a folder of experiments, and those inside it that have testbeds of their own.

    Args:
        folder: A folder of experiments, or one experiment.
        root: As for `read_experiments`. Only the folder itself is read then: below a root, results
            lie by the name of their experiment, which two suites may share.

    Returns:
        The suite of the folder first, the others by name.

    Raises:
        ReportError: There is no experiment, or no result below the root.
        TellError: An experiment's file is wrong.
    """
    below = [] if root else sorted(path.parent for path in folder.glob(f"*/{TESTBEDS}"))
    return [
        read_experiments(folder, root),
        *map(read_experiments, filter(holds_experiments, below)),
    ]


def read_experiments(folder: Path, root: Path | None = None) -> Contents:
    """Read a folder of experiments, or one experiment with those that it uses.

    Args:
        folder: A folder of experiments, or one experiment.
        root: The folder of `experiment --results`; None: the results are in the experiments'
            folders. Results below a root are not checked against the configuration of their cells,
            since the files given with -c are not known; none is left out.

    Raises:
        ReportError: There is no experiment, or no result below the root.
        TellError: An experiment's file is wrong.
    """
    single = (folder / SPECIFICATION).is_file()
    folders = sorted(path.parent for path in folder.glob(f"*/{SPECIFICATION}"))
    own = {path.resolve(): _read(path, root) for path in ([folder] if single else folders)}
    if not own:
        raise ReportError(
            f"report: needs a folder with experiments, got '{folder}' with no {SPECIFICATION} in "
            "it or below it. Name experiments/, or one of its folders."
        )
    used = {path.resolve(): path for each in own.values() for path in each.experiment.uses}
    known = own | {name: _read(path, root) for name, path in used.items() if name not in own}
    if root and not any(each.kept for each in known.values()):
        names = ", ".join(each.experiment.name for each in known.values())
        raise ReportError(
            f"--results: must be a folder with results in NAME/results, got '{root}' with none of "
            f"{names}. Name the folder that you gave to `experiment --results`."
        )
    order = {kind: index for index, kind in enumerate((*KINDS, "", TUNING))}
    studies = [_judged(each, known) for each in own.values()]
    studies.sort(
        key=lambda each: (order.get(each.experiment.kind, len(KINDS)), each.experiment.name)
    )
    pool = [each for each in known.values() if not each.tuning]
    results, groups, settings, conflicts = _pooled(pool)
    chosen = studies[0].chosen  # the same for all
    return Contents(folder, root, studies, results, groups, settings, chosen, conflicts)


def _read(folder: Path, root: Path | None) -> Study:
    """Read one experiment, without its verdicts."""
    experiment = read_experiment(folder)
    where = places(experiment, root)
    chosen = read_choice(where.chosen) or {}
    results = read_results(where.results)
    otherwise = [] if root else made_otherwise(experiment, chosen, results)
    kept = {name: result for name, result in results.items() if name not in set(otherwise)}
    return Study(experiment, chosen, expand(experiment), kept, otherwise)


def _judged(study: Study, known: Mapping[Path, Study]) -> Study:
    """Add the verdicts, which may need the results of other experiments."""
    results: dict[str, Result] = {}
    others = [known[path.resolve()] for path in study.experiment.uses]
    for each in (*reversed(others), study):
        results |= each.kept
    otherwise = {name for each in (*others, study) for name in each.otherwise}
    return replace(study, verdicts=verdicts(study.experiment, results, otherwise))


def _pooled(
    known: Sequence[Study],
) -> tuple[
    dict[str, Result], dict[Key, dict[int, Result]], dict[str, Mapping[str, Any]], list[str]
]:
    pool: dict[str, Result] = {}
    groups: dict[Key, dict[int, Result]] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    conflicts = []
    for each in known:
        for cell in each.cells:
            result = each.kept.get(cell.name)
            if result is None or result["status"] != COMPLETED:
                continue
            if cell.variant:
                settings.setdefault(cell.variant, cell.settings)
            first = pool.setdefault(cell.name, result)
            key = Key(cell.testbed, cell.arm, cell.n, cell.variant)
            groups.setdefault(key, {}).setdefault(cell.seed, first)
            if first["config_digest"] != result["config_digest"]:
                conflicts.append(cell.name)
    return pool, groups, settings, conflicts
