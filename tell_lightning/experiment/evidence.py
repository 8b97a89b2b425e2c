"""What results hold of an arm: its scores and losses by seed, its curve over n, what it lacks.

Results enter, samples and estimates leave; cells that failed are no samples, and `gaps` names
them. An arm without task examples has one point, n = 0, which stands for every n. A millisecond a
sample.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tell_lightning.experiment.cells import Cell
from tell_lightning.experiment.equivalence import Equivalence, equivalence
from tell_lightning.experiment.results import COMPLETED, Result, read_results
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
"""The test rows in the form that the arm was trained on; the same with the anchor off (or on)."""
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


def all_results(experiment: Experiment) -> dict[str, Result]:
    """Read the results of the folder and of those that it uses; its own win."""
    folders = [experiment.results, *(folder / "results" for folder in experiment.uses)]
    found: dict[str, Result] = {}
    for folder in reversed(folders):
        found |= read_results(folder)
    return found


def samples(
    results: Results,
    testbed: str,
    arm: str,
    n: int,
    variant: str | None = None,
    part: Part = "test",
) -> Samples | None:
    """Collect what the test rows of each seed add to the score; None without a completed cell.

    Raises:
        StatisticsError: Seeds were not tested on the same number of rows.
    """
    found = {
        result["cell"]["seed"]: result[part]["items"]
        for result in _of(results, testbed, arm, n, variant)
        if result.get(part)
    }
    if not found:
        return None
    seeds = sorted(found)
    sizes = {len(found[seed]["rows"]) for seed in seeds}
    if len(sizes) > 1:
        raise StatisticsError(
            f"results: all seeds of {arm} on {testbed} must be tested on the same rows, got "
            f"{' and '.join(map(str, sorted(sizes)))} rows. Delete the older ones, and they are "
            "run again."
        )
    counts = np.array([found[seed]["rows"] for seed in seeds], dtype=np.float64)
    return Samples(found[seeds[0]]["statistic"], tuple(seeds), counts)


def losses(
    results: Results,
    testbed: str,
    arm: str,
    n: int,
    variant: str | None = None,
    part: Part = "test",
) -> Samples | None:
    """Collect the loss on the test rows of each seed, in nats a token; None where there is none."""
    found = {
        result["cell"]["seed"]: float(result[part]["loss"])
        for result in _of(results, testbed, arm, n, variant)
        if result.get(part) and result[part]["loss"] is not None
    }
    return Samples.of_losses(dict(sorted(found.items()))) if found else None


def tokens(results: Results, testbed: str, arm: str, n: int, variant: str | None = None) -> float:
    """Average the tokens that an arm trains on, task and general, over its seeds."""
    found = [sum(r["tokens"].values()) for r in _of(results, testbed, arm, n, variant)]
    return float(np.mean(found)) if found else 0.0


def sizes(results: Results, testbed: str, arm: str, variant: str | None = None) -> list[int]:
    """List the n at which an arm has a completed cell, rising."""
    return sorted({r["cell"]["n"] for r in _completed(results, testbed, arm, variant)})


def curve(
    results: Results, testbed: str, arm: str, variant: str | None = None, part: Part = "test"
) -> list[CurvePoint]:
    """Estimate the score of an arm at each n."""
    return [
        CurvePoint(n, interval(found), found.by_seed())
        for n in sizes(results, testbed, arm, variant)
        if (found := samples(results, testbed, arm, n, variant, part))
    ]


def loss_curve(
    results: Results, testbed: str, arm: str, variant: str | None = None, part: Part = "test"
) -> list[CurvePoint]:
    """Estimate the loss of an arm at each n; its interval is over seeds alone."""
    return [
        CurvePoint(n, interval(found), found.by_seed())
        for n in sizes(results, testbed, arm, variant)
        if (found := losses(results, testbed, arm, n, variant, part))
    ]


def data_equivalence(
    results: Results, testbed: str, n: int, baseline: str = "sft"
) -> Equivalence | None:
    """Estimate how many task examples a baseline needs for what TELL gets of n.

    Args:
        results: Completed ones count.
        testbed: Its name.
        n: Task examples of TELL.
        baseline: An arm that was run at two n or more.

    Returns:
        None where TELL has no cell at n, or the baseline fewer than two sizes.
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
    """Name the cells that failed or have no result; nothing where there are none.

    Args:
        cells: Those that are needed.
        results: By the cell's name.
        otherwise: Names of those whose result was left out: it is of another configuration.
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


def _completed(results: Results, testbed: str, arm: str, variant: str | None) -> Sequence[Result]:
    wanted = (testbed, arm, variant)
    return [
        result
        for result in results.values()
        if result["status"] == COMPLETED
        and tuple(result["cell"].get(key) for key in ("testbed", "arm", "variant")) == wanted
    ]


def _of(results: Results, testbed: str, arm: str, n: int, variant: str | None) -> list[Result]:
    """List completed results at n, at 0 where the arm has no task examples."""
    found = _completed(results, testbed, arm, variant)
    return [result for result in found if result["cell"]["n"] in {n, 0}]
