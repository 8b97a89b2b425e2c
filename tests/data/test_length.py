"""The length of a run that says none, and what is told of a plan that is probably not meant."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import says

from tell_lightning.data.advice import advice
from tell_lightning.data.length import LEAST, MOST, MOST_PASSES, default_length
from tell_lightning.data.plan import Plan, check_supply, resolve_plan
from tell_lightning.data.settings import Mixture


def plan(rows: int, general: int = 10**6, **mixture: Any) -> Plan:
    tasks = {"t": rows} if rows else {}
    return resolve_plan(Mixture(**mixture), tasks, {"g": (general, None)}, seed=1)


@pytest.mark.parametrize(
    ("rows", "steps", "why"),
    [
        (10, 150, "the least; 10 passes over the 10 task examples are 32"),
        (50, 157, "10 passes over the 50 task examples"),
        (500, 500, "the most; 10 passes over the 500 task examples are 1,563"),
        (2, 62, "100 passes over the 2 task examples, the most"),
    ],
)
def test_ten_passes_between_bounds(rows: int, steps: int, why: str) -> None:
    assert default_length(plan(rows), 16, general_repeat=False) == (steps, why)


def test_general_rows_that_run_out_end_the_run() -> None:
    few = plan(10, general=300)
    found = default_length(few, 16, general_repeat=False)
    assert found.steps == 7 * 50 // 16
    assert "as far as the general rows last" in found.why
    assert default_length(few, 16, general_repeat=True).steps == LEAST


def test_general_rows_alone_are_passed_once() -> None:
    alone = plan(0, general=1000, arm="general_only")
    assert default_length(alone, 16, general_repeat=False).steps == 63
    many = plan(0, arm="general_only")
    assert default_length(many, 16, general_repeat=False).steps == MOST


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5000),
    general=st.integers(40_000, 10**6),
    share=st.floats(0.05, 0.9),
    per_step=st.integers(1, 300),
    arm=st.sampled_from(["tell", "sft"]),
)
def test_it_is_within_its_bounds_and_the_supply(
    rows: int, general: int, share: float, per_step: int, arm: Any
) -> None:
    made = plan(rows, general, task_share=share, arm=arm)
    found = default_length(made, per_step, general_repeat=False)
    assert 1 <= found.steps <= MOST
    passes = found.steps * per_step * made.task_share / rows
    assert passes <= MOST_PASSES * 1.001 or found.steps == 1
    if general // max(1, made.cycle) > 0 and found.steps > 1:
        check_supply(made, found.steps * per_step, general_repeat=False)


def facts(
    *, steps: int = 250, passes: float = 5.0, labels: float = 0.2, **more: Any
) -> dict[str, Any]:
    source = {"kind": "task", "rows": 10, "passes": passes}
    shares = {"examples": 0.2, "tokens": 0.2, "label_tokens": labels}
    realised = {"sources": {"letters": source}, "task_share": shares}
    return {"steps": steps, "length": None, "realised": realised, **more}


def test_nothing_is_said_of_a_usual_plan() -> None:
    assert not list(advice(facts()))
    assert not list(advice(facts(labels=0.9)))
    assert not list(advice(facts(labels=0.01), by_tokens=True))


def test_few_updates_are_told() -> None:
    (line,) = advice(facts(steps=20))
    assert line == says("trainer.max_steps", rule="100", got="20", cure="trainer.max_steps: 100")
    (line,) = advice(facts(steps=20, length="as far as the general rows last"))
    assert "data.mixture.general_repeat: true" in line


def test_many_passes_are_told() -> None:
    (line,) = advice(facts(passes=200))
    assert line == says(
        "data.tasks.letters", rule="100 times", got="200 times", cure="trainer.max_steps: 125"
    )


@pytest.mark.parametrize(("labels", "better", "becomes"), [(0.05, "0.5", "17.4%"),
                                                           (0.09, "0.39", "20.2%")])  # fmt: skip
def test_short_answers_are_told(labels: float, better: str, becomes: str) -> None:
    (line,) = advice(facts(labels=labels))
    assert line == says(
        "data.mixture.task_share",
        rule="20.0%",
        got=f"{labels:.1%}",
        cure=f"data.mixture.task_share: {better}, which makes it {becomes}",
    )
