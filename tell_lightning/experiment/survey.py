"""Which cells are there, which are missing, and what these will cost.

An experiment, its results and those that it may use enter; every cell with its configuration and
its state leaves, and an estimate of seconds by cell. No torch; a millisecond a cell.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from tell_lightning.experiment.cells import (
    TUNING,
    Cell,
    Chosen,
    config_digest,
    configuration,
    expand,
    read_chosen,
    tuning_folder,
)
from tell_lightning.experiment.forms import SpecificationError
from tell_lightning.experiment.overlays import value_of
from tell_lightning.experiment.results import FAILED, Result, ResultError, read_results
from tell_lightning.experiment.specification import Experiment

SECONDS_PER_CELL, SECONDS_PER_STEP = 4.0, 0.08
"""Of a run on one core, where nothing is known yet."""

State = Literal["there", "missing", "failed", "other"]


@dataclass(frozen=True)
class Planned:
    """A cell with what is known of it."""

    cell: Cell
    config: Mapping[str, Any]
    digest: str
    state: State
    """other: there is a result, made with another configuration."""
    result: Result | None
    source: Path | None
    """Folder of the results that it was found in."""


@dataclass(frozen=True)
class Places:
    """Where results and choices are."""

    results: Path
    """Of the experiment."""
    used: tuple[Path, ...]
    """Of the experiments that it uses."""
    chosen: Path


def places(experiment: Experiment, root: Path | None = None, *, own_config: bool = False) -> Places:
    """Say where results are: in the experiment's folder, or below a root in `NAME/results`.

    Args:
        experiment: The experiment.
        root: In place of the folder that the experiments lie in.
        own_config: Whether the user changes the configuration, so that what is chosen for the
            experiments as they are is not chosen for these.
    """
    chosen = tuning_folder(experiment) / "chosen.json"
    if root is None:
        used = tuple(folder / "results" for folder in experiment.uses)
        return Places(experiment.results, used, chosen)
    own_choice = root / TUNING / "chosen.json"
    return Places(
        root / experiment.name / "results",
        tuple(root / folder.name / "results" for folder in experiment.uses),
        own_choice if own_config or own_choice.is_file() else chosen,
    )


def survey(
    experiment: Experiment, places: Places, overlays: Sequence[Mapping[str, Any]] = ()
) -> list[Planned]:
    """Look for the result of every cell, in its own folder first, then in those that are used.

    A result of a used folder counts where it was made with the same configuration.
    """
    chosen = read_chosen(experiment, places.chosen)
    found = [(place, read_results(place)) for place in (places.results, *places.used)]
    planned = []
    for cell in expand(experiment):
        config = configuration(experiment, cell, chosen, overlays)
        digest = config_digest(experiment, config)
        planned.append(_planned(cell, config, digest, found))
    return planned


def made_otherwise(
    experiment: Experiment, chosen: Chosen | None, results: Mapping[str, Result]
) -> list[str]:
    """Name the cells whose result was made with another configuration than the cell has now.

    Args:
        experiment: The experiment.
        chosen: What tuning has chosen; where an arm's settings are not chosen, no result is of it.
        results: By the cell's name; those of no cell are not looked at.
    """
    names = []
    for cell in expand(experiment):
        result = results.get(cell.name)
        if result is None:
            continue
        try:
            config = configuration(experiment, cell, chosen)
        except SpecificationError:
            config = None
        if config is None or config_digest(experiment, config) != result["config_digest"]:
            names.append(cell.name)
    return names


def _planned(
    cell: Cell,
    config: Mapping[str, Any],
    digest: str,
    found: Sequence[tuple[Path, Mapping[str, Result]]],
) -> Planned:
    (own, results), *used = found
    for place, others in used:
        other = others.get(cell.name)
        same = other is not None and other["config_digest"] == digest
        if same and cell.name not in results and other is not None and other["status"] != FAILED:
            return Planned(cell, config, digest, "there", other, place)
    result = results.get(cell.name)
    if result is None:
        return Planned(cell, config, digest, "missing", None, None)
    state: State = "there"
    if result["config_digest"] != digest:
        state = "other"
    elif result["status"] == FAILED:
        state = "failed"
    return Planned(cell, config, digest, state, result, own)


def check_same(planned: Iterable[Planned]) -> None:
    """Refuse results that were made with another configuration.

    Raises:
        ResultError: There are some.
    """
    others = [each for each in planned if each.state == "other"]
    if others:
        first = others[0]
        assert first.source is not None
        assert first.result is not None
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise ResultError(
            f"{first.source / first.cell.name}.json: must be made with the configuration that its "
            f"cell has now, {first.digest}, got {first.result['config_digest']}{more}. Undo the "
            "change, delete the results, or run their cells again with --retry."
        )


def costs(planned: Sequence[Planned]) -> Callable[[Planned], float]:
    """Estimate the seconds of a cell.

    Args:
        planned: All cells, those that are there with their results.

    Returns:
        The mean of the results of the same testbed and arm; where there is none, by its steps.
    """
    by_arm: dict[tuple[str, str], list[float]] = defaultdict(list)
    for each in planned:
        if each.result is not None and each.result["status"] != FAILED:
            by_arm[each.cell.testbed, each.cell.arm].append(float(each.result["seconds"]))

    def seconds(each: Planned) -> float:
        known = by_arm.get((each.cell.testbed, each.cell.arm))
        steps = value_of(each.config, "trainer.max_steps") or 0
        return mean(known) if known else SECONDS_PER_CELL + SECONDS_PER_STEP * steps

    return seconds
