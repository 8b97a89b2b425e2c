"""Which results an experiment has, which are missing, and what the missing ones will cost."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from tell_lightning.experiment.bases import MADE
from tell_lightning.experiment.cells import (
    TUNING,
    Cell,
    Chosen,
    UntunedError,
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
"""Estimates for a run on one core, used until there are results."""

State = Literal["there", "missing", "failed", "other", "waiting"]


@dataclass(frozen=True)
class Planned:
    """A cell, its configuration and its result, if there is one."""

    cell: Cell
    config: Mapping[str, Any]
    digest: str
    state: State
    """`other`: the result was made with another configuration. `waiting`: tuning has not chosen
    the settings yet, so that there is neither a configuration nor a digest."""
    result: Result | None
    source: Path | None
    """The folder in which the result was found."""
    waits_for: str = ""
    """What a cell that waits needs, in one line."""


@dataclass(frozen=True)
class Places:
    """The folders of results, and the file of the settings that tuning chose."""

    results: Path
    """Results of the experiment."""
    used: tuple[Path, ...]
    """Results of the experiments that it uses."""
    chosen: Path


def places(experiment: Experiment, root: Path | None = None, *, own_config: bool = False) -> Places:
    """Return where results are: in the experiment's folder, or below a root in `NAME/results`.

    Args:
        experiment: The experiment.
        root: Used in place of the folder that the experiments lie in.
        own_config: Whether the user changes the configuration. Then the settings that tuning
            chose without this change do not count.
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
    """Find the result of every cell, in the experiment's own folder or in those that it uses.

    A result of a used folder counts if it was made with the same configuration. A cell whose
    settings are not chosen yet waits.
    """
    chosen = read_chosen(experiment, places.chosen)
    found = [(place, read_results(place)) for place in (places.results, *places.used)]
    planned = []
    for cell in expand(experiment):
        try:
            config = configuration(experiment, cell, chosen, overlays)
        except UntunedError as error:
            planned.append(Planned(cell, {}, "", "waiting", None, None, str(error)))
            continue
        digest = config_digest(experiment, config)
        planned.append(_planned(cell, config, digest, found))
    return planned


def made_otherwise(
    experiment: Experiment, chosen: Chosen | None, results: Mapping[str, Result]
) -> list[str]:
    """Name the cells whose result was made with another configuration than the cell has now.

    Args:
        experiment: The experiment.
        chosen: What tuning has chosen; without it every result of a tuned arm is named.
        results: By the cell's name.
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
    result = results.get(cell.name)
    if result is None:
        for place, others in used:
            other = others.get(cell.name, {})
            if other.get("config_digest") == digest and other["status"] != FAILED:
                return Planned(cell, config, digest, "there", other, place)
        return Planned(cell, config, digest, "missing", None, None)
    state: State = "there"
    if result["config_digest"] != digest:
        state = "other"
    elif result["status"] == FAILED:
        state = "failed"
    return Planned(cell, config, digest, state, result, own)


def check_tuned(planned: Iterable[Planned]) -> None:
    """Refuse to run cells whose settings tuning has not chosen yet.

    Raises:
        UntunedError: There is one.
    """
    for each in planned:
        if each.state == "waiting":
            raise UntunedError(each.waits_for)


def check_same(planned: Iterable[Planned]) -> None:
    """Refuse results that were made with another configuration.

    Raises:
        ResultError: There is one.
    """
    others = [each for each in planned if each.state == "other"]
    if others:
        first = others[0]
        assert first.source is not None
        assert first.result is not None
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise ResultError(
            f"{first.source / first.cell.name}.json: must be made with the configuration that the "
            f"run has now, {first.digest}, got {first.result['config_digest']}{more}. Undo the "
            "change, delete the results, or run them again with --retry."
        )


def costs(planned: Sequence[Planned]) -> Callable[[Planned], float]:
    """Estimate the seconds of a cell.

    Args:
        planned: All cells, with the results that there are.

    Returns:
        A function from a cell to the mean seconds of the results of the same testbed, arm and
        base. If there are none, it gives an estimate by steps for the base of the microworld, and
        NaN for any other base.
    """
    known: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for each in planned:
        if each.state == "there" and each.result is not None:
            known[_like(each)].append(float(each.result["seconds"]))

    def seconds(each: Planned) -> float:
        if found := known.get(_like(each)):
            return mean(found)
        base = _like(each)[-1]
        return by_steps(each) if base == "microworld" or base.startswith(MADE) else math.nan

    return seconds


def by_steps(planned: Planned) -> float:
    """Estimate the seconds of a cell by its steps, for the base of the microworld on one core."""
    steps = value_of(planned.config, "trainer.max_steps") or 0
    return SECONDS_PER_CELL + SECONDS_PER_STEP * steps


def _like(planned: Planned) -> tuple[str, str, str]:
    base = str(value_of(planned.config, "model.base"))
    return planned.cell.testbed, planned.cell.arm, base
