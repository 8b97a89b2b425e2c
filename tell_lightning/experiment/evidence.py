"""What the results say about an arm: scores and losses by seed, curves over n, missing runs.

Failed runs give no samples; `gaps` names them. An arm without task examples has one point, n = 0,
which stands for every n.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tell_lightning.experiment.cells import Cell
from tell_lightning.experiment.equivalence import Equivalence, equivalence
from tell_lightning.experiment.results import COMPLETED, Result
from tell_lightning.experiment.specification import Experiment, read_experiment
from tell_lightning.experiment.statistics import (
    Estimate,
    Samples,
    StatisticsError,
    interval,
)

Results = Mapping[str, Result]
"""By the name of the cell."""
Part = Literal["test", "test_anchor_off"]
"""The test rows in the form that the arm was trained on; or with the anchor off (or on) instead."""
NAMED = 3
"""Cells that a reason names; of more it gives the number."""


@dataclass(frozen=True)
class CurvePoint:
    """An arm at one n."""

    n: int
    estimate: Estimate
    by_seed: Mapping[int, float]


def used_experiments(experiment: Experiment) -> list[Experiment]:
    """Read the experiment's own folder and those that it uses, itself first."""
    return [experiment, *(read_experiment(folder) for folder in experiment.uses)]


def samples(
    results: Results,
    testbed: str,
    arm: str,
    n: int,
    variant: str | None = None,
    part: Part = "test",
) -> Samples | None:
    """Collect what the test rows of each seed add to the score; None without a completed run.

    Raises:
        StatisticsError: Seeds were not tested on the same number of rows.
    """
    found = {
        seed: tested["items"]
        for seed, tested in _tested(results, testbed, arm, n, variant, part).items()
    }
    if not found:
        return None
    sizes = {len(items["rows"]) for items in found.values()}
    if len(sizes) > 1:
        raise StatisticsError(
            f"results: all seeds of {arm} on {testbed} must be tested on the same rows, got "
            f"{' and '.join(map(str, sorted(sizes)))} rows. Delete the older results, and they are "
            "made again."
        )
    counts = np.array([items["rows"] for items in found.values()], dtype=np.float64)
    (statistic, *_) = (items["statistic"] for items in found.values())
    return Samples(statistic, tuple(found), counts)


def losses(
    results: Results,
    testbed: str,
    arm: str,
    n: int,
    variant: str | None = None,
    part: Part = "test",
) -> Samples | None:
    """Collect the loss on the test rows of each seed, in nats a token; None if there is none."""
    tested = _tested(results, testbed, arm, n, variant, part)
    known = {seed: each.get("loss") for seed, each in tested.items()}
    found = {seed: float(loss) for seed, loss in known.items() if loss is not None}
    return Samples.of_losses(found) if found else None


def tokens(results: Results, testbed: str, arm: str, n: int, variant: str | None = None) -> float:
    """Return the mean over seeds of the tokens that an arm trains on, task and general together."""
    found = [sum(r["tokens"].values()) for r in _completed(results, testbed, arm, variant, n)]
    return float(np.mean(found)) if found else 0.0


def sizes(results: Results, testbed: str, arm: str, variant: str | None = None) -> list[int]:
    """List the n at which an arm has a completed run, rising."""
    return sorted({r["cell"]["n"] for r in _completed(results, testbed, arm, variant)})


def curve(
    results: Results,
    testbed: str,
    arm: str,
    variant: str | None = None,
    part: Part = "test",
    of: Callable[..., Samples | None] = samples,
) -> list[CurvePoint]:
    """Estimate at each n the score of an arm, or with `losses` its loss, over seeds alone."""
    return [
        CurvePoint(n, interval(found), found.by_seed())
        for n in sizes(results, testbed, arm, variant)
        if (found := of(results, testbed, arm, n, variant, part))
    ]


def data_equivalence(
    results: Results, testbed: str, n: int, baseline: str = "sft"
) -> Equivalence | None:
    """Estimate how many task examples a baseline needs for the score that TELL gets with n.

    Args:
        results: Completed ones count.
        testbed: Its name.
        n: Task examples of TELL.
        baseline: An arm that was run at two n or more.

    Returns:
        None if TELL has no run at n, or the baseline fewer than two sizes.
    """
    tell = samples(results, testbed, "tell", n)
    by_size = {
        size: found
        for size in sizes(results, testbed, baseline)
        if size and (found := samples(results, testbed, baseline, size))
    }
    if tell is None or len(by_size) < 2:
        return None
    prices = {size: tokens(results, testbed, baseline, size) for size in by_size}
    own = tokens(results, testbed, "tell", n)
    known = own > 0 and all(price > 0 for price in prices.values())
    return equivalence(tell, n, by_size, (own, prices) if known else None)


def gaps(cells: Iterable[Cell], results: Results, otherwise: Collection[str] = ()) -> str:
    """Name the runs that failed or have no result; an empty text if there are none.

    Args:
        cells: The cells whose runs are needed.
        results: By the cell's name.
        otherwise: Names of cells whose result was left out, because it was made with another
            configuration.
    """
    found = []
    for cell in cells:
        result = results.get(cell.name)
        if result is None and cell.name in otherwise:
            found.append(f"{cell.name} was made with another configuration")
        elif result is None:
            found.append(f"{cell.name} is missing")
        elif result["status"] != COMPLETED:
            why = str(result.get("reason") or "no reason").splitlines()[0]
            found.append(f"{cell.name} failed ({why:.80})")
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


def _tested(
    results: Results, testbed: str, arm: str, n: int, variant: str | None, part: Part
) -> dict[int, Any]:
    """Return what the completed runs at n hold of their test rows, by rising seed."""
    completed = _completed(results, testbed, arm, variant, n)
    found = {each["cell"]["seed"]: each[part] for each in completed if each.get(part)}
    return dict(sorted(found.items()))


def _completed(
    results: Results, testbed: str, arm: str, variant: str | None, n: int | None = None
) -> list[Result]:
    """List completed results of an arm, at n if given, at 0 if the arm has no task examples."""
    return [
        result
        for result in results.values()
        if result["status"] == COMPLETED
        and result["cell"]["testbed"] == testbed
        and result["cell"]["arm"] == arm
        and result["cell"].get("variant") == variant
        and (n is None or result["cell"]["n"] in {n, 0})
    ]
