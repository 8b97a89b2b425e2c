from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tuning_work import PRICE, SPACE

from tell_lightning.commands.check import check
from tell_lightning.settings import ConfigError
from tell_lightning.tuning.budget import Budget, Price
from tell_lightning.tuning.settings import Search
from tell_lightning.tuning.space import (
    FEWEST,
    WANTED,
    Defaults,
    Space,
    overlay,
    space_of,
    suggest,
)

FEW = len(Search().arm)
DEFAULTS = Defaults(
    lr=1e-3,
    task_share=0.2,
    steps={"tell": 150, "sft": 60, "mixture": 150},
    has_prefix=True,
    force=False,
    lasts=lambda share, steps: True,
)


def any_steps(steps: int, trials: int) -> bool:
    return True


def lasting(rows: int) -> Defaults:
    """General rows for so many positions, 16 examples a step."""
    return replace(DEFAULTS, lasts=lambda share, steps: 16 * steps * (1 - share) <= rows)


class Middle:
    """Chooses the lowest value, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: None = None, log: bool = False
    ) -> float:
        self.asked[name] = (low, high, log)
        return low

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        self.asked[name] = (low, high, log)
        return low

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked[name] = tuple(choices)
        return choices[0]


def test_ranges_lie_around_the_defaults() -> None:
    space = space_of(Search(), DEFAULTS, any_steps)
    assert space.arms == ("tell", "sft", "mixture")
    assert space.lr == (2.5e-4, 4e-3)
    assert space.task_share == (0.05, 0.5)
    assert space.steps == (30, 300)
    assert space.force == (False, True)
    assert space.starts["sft"] == {"lr": 1e-3, "steps": 60, "force_response_prefix": False}
    assert space.starts["mixture"] == {"lr": 1e-3, "steps": 150, "task_share": 0.2}


def test_given_ranges_and_fixed_values_are_taken() -> None:
    search = Search(
        arm=("tell",), lr=[1e-4], steps=[20, 40], task_share=[0.3], force_response_prefix=(True,)
    )
    space = space_of(search, DEFAULTS, any_steps)
    assert (space.lr, space.steps, space.task_share) == ((1e-4, 1e-4), (20, 40), (0.3, 0.3))
    point = {"lr": 1e-4, "steps": 40, "task_share": 0.3, "force_response_prefix": True}
    assert space.starts == {"tell": point}


def allowed(total: int) -> Space:
    return space_of(Search(), DEFAULTS, lambda steps, trials: steps * trials <= total)


def test_trials_are_longer_than_a_run_of_fit_if_the_budget_affords_enough_of_them() -> None:
    assert allowed(WANTED * 300).steps == (30, 300)
    assert allowed(WANTED * 200).steps[0] == 30
    assert 150 < allowed(WANTED * 200).steps[1] <= 200
    assert not any("`fit`" in line for line in allowed(WANTED * 200).lines())


def test_a_small_budget_has_fewer_trials_and_then_shorter_ones_and_says_so() -> None:
    assert allowed(150 * FEW).steps == (30, 150)
    assert 130 < allowed(149 * FEW).steps[1] < 150
    assert allowed(30 * FEW).steps == (30, 30)
    small = allowed(20 * FEW)
    assert 15 < small.steps[0] == small.steps[1] <= 20
    assert f"steps: {small.steps[0]}, where `fit` takes 60" in small.lines()
    assert allowed(0).steps == (FEWEST, FEWEST)


def test_the_shares_are_those_for_which_the_general_rows_last() -> None:
    space = space_of(Search(), lasting(3600), any_steps)
    assert space.steps == (30, 300)
    assert space.task_share == (0.25, 0.5)  # 300 steps of 16 take 3,600 general rows


def test_the_steps_are_lowered_where_no_share_is_enough() -> None:
    space = space_of(Search(), lasting(1000), any_steps)
    assert lasting(1000).lasts(space.task_share[0], space.steps[1])
    assert 30 < space.steps[1] <= 125
    assert space_of(Search(), lasting(160), any_steps).steps[1] <= 20


@pytest.mark.parametrize(
    "search", [Search(steps=[30, 300], task_share=[0.05, 0.5]), Search(steps=[30, 300])]
)
def test_a_range_that_the_general_rows_cannot_meet_is_refused(search: Search) -> None:
    with pytest.raises(ConfigError, match=r"tune.search.steps: the general rows must last"):
        space_of(search, lasting(500), any_steps)


def test_sft_alone_needs_no_general_rows() -> None:
    assert space_of(Search(arm=("sft",)), lasting(0), any_steps).steps == (30, 120)


def test_each_arm_has_settings_of_its_own() -> None:
    space = space_of(Search(), DEFAULTS, any_steps)
    chooses = Middle()
    for arm in space.arms:
        suggest(space, arm, chooses)
    assert sorted(chooses.asked) == sorted(
        [
            *(f"{arm}.{name}" for arm in space.arms for name in ("lr", "steps")),
            *("tell.task_share", "mixture.task_share"),
            *("tell.force_response_prefix", "sft.force_response_prefix"),
        ]
    )
    assert chooses.asked["tell.lr"] == (2.5e-4, 4e-3, True)


def test_a_task_without_a_response_prefix_has_none_to_force() -> None:
    space = space_of(Search(), replace(DEFAULTS, has_prefix=False), any_steps)
    chooses = Middle()
    suggest(space, "tell", chooses)
    assert "tell.force_response_prefix" not in chooses.asked


def test_an_overlay_is_a_configuration() -> None:
    point = {"lr": 1e-3, "steps": 50, "task_share": 0.2, "force_response_prefix": True}
    assert overlay("tell", point, ["a"]) == {
        "data": {
            "mixture": {
                **{"arm": "tell", "anchor": "given", "cycles": None},
                **{"task_share": 0.2, "task_passes": None},
            },
            "tasks": {"a": {"force_response_prefix": True}},
        },
        "model": {"optimizer": {"lr": 1e-3}},
        "trainer": {"max_steps": 50},
    }
    mixture = overlay("mixture", {"lr": 1e-3, "steps": 50, "task_share": 0.2}, ["a"])
    assert mixture["data"]["mixture"]["anchor"] == "none"
    assert mixture["data"]["mixture"]["arm"] == "tell"


def test_a_space_survives_being_written() -> None:
    import json

    assert Space.from_plain(json.loads(json.dumps(SPACE.plain()))) == SPACE


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("lr=[2,1]", r"tune.search.lr: must be \[low, high\]"),
        ("steps=[1,2,3]", r"tune.search.steps: must be \[low, high\]"),
        ("steps=[]", r"tune.search.steps: must be \[low, high\]"),
        ("arm=[]", r"tune.search.arm: must have one value or more"),
        ("arm=[x]", r"tune.search.arm: must be one of"),
        ("task_share=[0,1]", r"tune.search.task_share: must be above 0 and below 1"),
        ("steps=[0]", r"tune.search.steps: must be at least 1"),
    ],
)
def test_wrong_ranges_are_refused_in_one_line(option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check([f"--tune.search.{option}"])
    assert "\n" not in str(caught.value)


def test_steps_are_whole_numbers() -> None:
    with pytest.raises(ConfigError, match=r"tune.search.steps: must be whole numbers"):
        space_of(Search(steps=[1.5, 3]), DEFAULTS, any_steps)


# The budget


def test_a_trial_costs_a_fit_for_each_fold() -> None:
    point = {"lr": 1e-3, "steps": 50, "task_share": 0.5}
    one = replace(PRICE, folds=1).trial(point)
    assert PRICE.trial(point) == 5 * one
    # 50 steps of 16 rows, half of 100 tokens and half of 50, at 1,000 tokens/s; one scoring.
    assert one == pytest.approx(3.0 + 50 * 16 * 75 / 1000 + 1.0)


def test_task_rows_cost_what_they_are_long() -> None:
    assert PRICE.fit({"steps": 50}) > PRICE.fit({"steps": 50, "task_share": 0.2})


def test_the_second_trial_of_an_arm_has_twice_the_rate_and_the_most_steps() -> None:
    space = space_of(Search(), DEFAULTS, any_steps)
    points = space.first_points()
    assert [arm for arm, _ in points] == ["tell", "sft", "mixture", "tell", "sft"]
    assert [dict(point) for _, point in points[:3]] == [*space.starts.values()]
    for arm, point in points[3:]:
        assert point == {**space.starts[arm], "lr": 2e-3, "steps": space.steps[1]}
    fixed = space_of(Search(arm=("sft",), lr=[1.5e-3]), DEFAULTS, any_steps)
    assert [point["lr"] for _, point in fixed.first_points()] == [1.5e-3, 1.5e-3]


def test_the_search_gets_more_time_where_the_verdict_takes_less() -> None:
    def searched(scoring: float, minutes: float) -> float:
        budget = Budget(60 * minutes, None, 2)
        price = replace(PRICE, test_scoring=scoring)
        divided = budget.divided(price, steps=100, arms=3, seeds=5)
        assert divided.search is not None
        return divided.search / 60 / minutes

    fit = PRICE.fit({"steps": 100, "task_share": 0.0})
    assert searched(0.0, 1000) == 0.5  # no test set
    assert searched(1.0, 1000) == 0.65
    assert searched(1.0, 1) == 0.5
    assert searched(1.0, (16 * fit + 18) / 2 / 60 / 0.4) == pytest.approx(0.6)
    assert Budget(None, 5, 1).divided(PRICE, 100, 3, 5).search is None


def test_a_budget_below_the_two_cheapest_trials_is_refused() -> None:
    sft = PRICE.trial({"steps": 10})
    tell = PRICE.trial({"steps": 10, "task_share": 0.5})
    mixture = tell
    least = sum(sorted([sft, tell, mixture])[:2])
    Budget(least, None, 1).check(PRICE, SPACE)
    Budget(least / 2, None, 2).check(PRICE, SPACE)
    with pytest.raises(ConfigError, match=r"--minutes: must be enough for the two cheapest trials"):
        Budget(0.99 * least, None, 1).check(PRICE, SPACE)
    Budget(None, 2, 1).check(PRICE, SPACE)


def test_a_budget_affords_trials_if_the_rest_is_enough_for_adapter_and_verdict() -> None:
    point = {"steps": 100, "task_share": 0.05}
    trial, fit = PRICE.trial(point), PRICE.fit(point)

    def affords(price: Price, seconds: float, trials: int, **changes: Any) -> bool:
        return Budget(seconds, None, 1).affords(price, {**point, **changes}, trials, arms=3)

    assert affords(PRICE, 2 * WANTED * trial, WANTED)
    assert not affords(PRICE, 2 * WANTED * trial, WANTED, steps=101)
    assert not affords(PRICE, 2 * 3 * trial, 3)  # two seeds of three arms are six trials
    assert affords(PRICE, 2 * (6 * trial + fit), 3)
    tested = replace(PRICE, test_scoring=10.0)  # now they are six fits with a scoring
    assert affords(tested, 2 * 3 * trial, 3)
    assert affords(tested, 2 * (7 * fit + 9 * 10.0), 1)
    assert not affords(tested, 2 * (7 * fit + 8 * 10.0), 1)
    assert Budget(None, 5, 1).affords(PRICE, {**point, "steps": 10**6}, WANTED, arms=3)


def test_the_budget_says_how_many_trials_it_allows() -> None:
    mean = sum(PRICE.trial(point) for point in SPACE.starts.values()) / 3
    line = Budget(20 * mean, None, 2).line(PRICE, SPACE)
    assert f"; {10 * mean / 60:g} min in 2 processes allow about 20." in line
    assert "7 trials in one process" in Budget(None, 7, 1).line(PRICE, SPACE)
    assert "\n" not in line


def test_it_says_what_trials_as_long_as_those_of_fit_would_need() -> None:
    space = replace(SPACE, usual_steps=2 * SPACE.steps[1])
    longest = PRICE.trial({"steps": space.usual_steps, "task_share": space.task_share[0]})
    line = Budget(600, None, 2).line(PRICE, space)
    rest = 6 * longest + longest / 5  # six trials and the adapter, in half of the time
    assert line.endswith(
        f"\nTrials are shorter than a run of `fit`, and so is the best one: {space.usual_steps} "
        f"steps would need about {rest / 60:,.0f} min."
    )
