"""Choose settings: for each testbed, arm and number of examples the best variant on dev."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import Any

from tell_lightning.experiment.cells import Cell
from tell_lightning.experiment.overlays import value_of
from tell_lightning.experiment.results import Result, points
from tell_lightning.experiment.specification import Experiment
from tell_lightning.experiment.survey import Planned


def choose(experiment: Experiment, planned: Sequence[Planned]) -> dict[str, Any]:
    """Choose by the mean dev score over seeds; among equal ones the shorter run.

    Nothing is chosen for an arm on a testbed before all of its cells there, of every number of
    examples, have a completed result.

    Args:
        experiment: The experiment.
        planned: All its cells.

    Returns:
        The content of `chosen.json`: by testbed, tuned arm and number of examples the variant, its
        settings and its mean.
    """
    groups: dict[tuple[str, str, int], dict[str, list[tuple[Planned, Result]]]] = defaultdict(dict)
    open_yet: set[tuple[str, str]] = set()
    for each in planned:
        cell: Cell = each.cell
        arm = experiment.arms[cell.arm].tuned or cell.arm
        if each.state != "there" or each.result is None:
            open_yet.add((cell.testbed, arm))
            continue
        by_variant = groups[cell.testbed, arm, cell.n]
        by_variant.setdefault(cell.variant or "", []).append((each, each.result))
    chosen: dict[str, Any] = {}
    for (testbed, arm, n), by_variant in groups.items():
        if (testbed, arm) in open_yet:
            continue
        score = experiment.testbeds[testbed].score
        ranked = sorted(
            (
                -mean(points(result["dev"]["values"][score], score) for _, result in found),
                _examples(found[0][0]),
                variant,
            )
            for variant, found in by_variant.items()
        )
        value, _, variant = ranked[0]
        settings = dict(by_variant[variant][0][0].cell.settings)
        best = {"variant": variant, "set": settings, "dev": round(-value, 4)}
        chosen.setdefault(testbed, {}).setdefault(arm, {})[str(n)] = best
    return chosen


def _examples(each: Planned) -> int:
    """Count the examples that a run trains on."""
    batch = value_of(each.config, "data.optimizer_batch") or 1
    return int((value_of(each.config, "trainer.max_steps") or 0) * batch)
