import math
from pathlib import Path
from typing import Any

import pytest
from messages import says
from small_experiment import EXPERIMENT, result_of, write_experiment

from tell_lightning.experiment.results import ResultError, write_result
from tell_lightning.experiment.specification import Experiment, read_experiment
from tell_lightning.experiment.survey import (
    SECONDS_PER_CELL,
    SECONDS_PER_STEP,
    Planned,
    check_same,
    costs,
    places,
    survey,
)
from tell_lightning.experiment.tuning import choose

GROUP = EXPERIMENT["cells"][0]


def look(experiment: Experiment, root: Path | None = None) -> list[Planned]:
    return survey(experiment, places(experiment, root))


def store(experiment: Experiment, number: int, **changes: Any) -> None:
    each = look(experiment)[number]
    write_result(experiment.results, result_of(each.cell, each.digest, **changes))


def states(planned: list[Planned]) -> list[str]:
    return [each.state for each in planned]


def test_a_cell_is_there_failed_missing_or_made_with_another_configuration(
    first: Experiment,
) -> None:
    store(first, 0)
    store(first, 1, status="failed", reason="x")
    store(first, 2, config_digest="0" * 12)
    assert states(look(first)) == ["there", "failed", "other", "missing"]


def test_results_of_another_configuration_are_refused(first: Experiment) -> None:
    check_same(look(first))
    store(first, 2, config_digest="0" * 12)
    store(first, 3, config_digest="0" * 12)
    digest = look(first)[2].digest
    with pytest.raises(ResultError) as caught:
        check_same(look(first))
    assert str(caught.value) == says(
        f"{first.results}/translate-tell-n10-s1.json",
        rule=digest,
        got="000000000000",
        cure=["1 more", "--retry"],
    )


def test_a_used_folder_gives_results_of_the_same_configuration_alone(
    root: Path, first: Experiment
) -> None:
    store(first, 0)
    store(first, 1, config_digest="0" * 12)
    store(first, 2, status="failed", reason="x")
    second = read_experiment(write_experiment(root / "second", uses=["../first"]))
    planned = look(second)
    assert states(planned) == ["there", "missing", "missing", "missing"]
    assert planned[0].source == first.results


def test_with_a_place_of_its_own_results_and_choices_are_looked_for_below_it(
    root: Path, first: Experiment
) -> None:
    store(first, 0)
    other = root / "mine"
    assert states(look(first, other)) == ["missing"] * 4
    assert places(first, other).results == other / "first" / "results"
    shared = root / "tuning" / "chosen.json"
    assert places(first, other).chosen == shared
    assert places(first, other, own_config=True).chosen == other / "tuning" / "chosen.json"
    (other / "tuning").mkdir(parents=True)
    (other / "tuning" / "chosen.json").write_text("{}")
    assert places(first, other).chosen == other / "tuning" / "chosen.json"
    assert places(first).chosen == shared


def test_a_cell_costs_what_those_of_its_arm_have_cost_or_by_its_steps(first: Experiment) -> None:
    store(first, 0, seconds=3.0)
    store(first, 2, seconds=5.0)
    store(first, 1, seconds=99.0, status="failed", reason="x")
    planned = look(first)
    by_steps = SECONDS_PER_CELL + SECONDS_PER_STEP * 100
    assert [costs(planned)(each) for each in planned] == [4.0, by_steps, 4.0, by_steps]


def test_another_base_costs_what_nobody_knows_until_a_run_of_it_has_ended(
    first: Experiment,
) -> None:
    store(first, 0, seconds=3.0)
    mine = [{"model": {"base": "someone/large"}}]
    planned = survey(first, places(first), mine)
    assert states(planned)[0] == "other"
    assert all(math.isnan(costs(planned)(each)) for each in planned)
    result = result_of(planned[0].cell, planned[0].digest, seconds=70.0)
    write_result(first.results, result)
    planned = survey(first, places(first), mine)
    assert [costs(planned)(each) for each in planned if each.cell.arm == planned[0].cell.arm] == [
        70.0
    ] * 2


def test_tuning_chooses_the_best_mean_on_dev_and_of_equals_the_shorter_run(root: Path) -> None:
    values = {"a": [10, 20], "b": [16, 14], "c": [15, 15], "d": [14, 15]}
    steps = {"a": 100, "b": 100, "c": 50, "d": 10}
    variants = {name: {"trainer.max_steps": number} for name, number in steps.items()}
    groups = [{**GROUP, "arms": ["tell"], "n": [10], "variants": variants}]
    folder = write_experiment(root / "tuning", cells=groups, rule={"kind": "tuning"})
    tuning = read_experiment(folder)
    for number, each in enumerate(look(tuning)):
        dev = values[each.cell.variant or ""][each.cell.seed]
        store(tuning, number, dev={"values": {"bleu": dev}, "loss": 1.0}, test=None)
    chosen = choose(tuning, look(tuning))
    best = {"variant": "c", "set": {"trainer.max_steps": 50}, "dev": 15.0}
    assert chosen == {"translate": {"tell": {"10": best}}}


def test_tuning_compares_scores_in_points_and_names_the_tuned_arm(root: Path) -> None:
    groups = [{**GROUP, "testbeds": ["compose"], "arms": ["best"], "variants": {"a": {}}}]
    folder = write_experiment(root / "tuning", cells=groups, rule={"kind": "tuning"})
    tuning = read_experiment(folder)
    for number in range(2):
        store(tuning, number)
    best = {"variant": "a", "set": {}, "dev": 50.0}
    assert choose(tuning, look(tuning)) == {"compose": {"tell": {"10": best}}}
