"""The picture of the plan is the plan."""

from collections import Counter

import pytest
from small_run import BATCH, PLAN, STEPS, saved_plan, small_record

from tell_lightning.data.plan import Plan, PlanSource
from tell_lightning.report.plan_figures import MOST, plan_figures, source_styles


def test_every_cell_is_what_stands_at_its_position(contents):
    figures = plan_figures(contents())
    assert list(figures.cells.sources) == PLAN.at(range(BATCH * STEPS)).sources.tolist()
    assert figures.cells.rows == BATCH
    assert figures.cells.title == "Every slot of the run"
    assert list(figures.cells.cycles) == [0, 20]
    assert figures.cells.mark == ("adapter kept", 10.0)
    assert figures.notes == ()


def test_shares_over_the_run_are_those_of_the_plan(contents):
    bars = plan_figures(contents()).bars
    assert bars.names == ["turn"]
    assert len(bars.shares) == STEPS
    sources = PLAN.at(range(BATCH * STEPS)).sources
    assert [share for (share,) in bars.shares] == [
        (sources[n * BATCH : (n + 1) * BATCH] == 0).mean() for n in range(STEPS)
    ]
    assert bars.level == ("task share of a cycle", 0.25)


def test_a_run_without_tasks_shows_its_general_sources(contents):
    plan = Plan(7, (PlanSource("a", "general", 50, 15), PlanSource("b", "general", 50, 5)))
    bars = plan_figures(contents(plan=saved_plan(plan))).bars
    assert bars.title.startswith("General slots")
    assert all(sum(shares) == pytest.approx(1) for shares in bars.shares)
    assert bars.level is None


def test_a_run_that_ended_early_says_where(contents):
    ended = {
        key: value for key, value in small_record().items() if key not in {"steps", "selected"}
    }
    figures = plan_figures(contents(record=ended, log="step,train/loss\n5,1.0\n"))
    assert figures.cells.done == 5 * BATCH
    assert figures.bars.done == 5
    assert figures.bars.mark is None


def test_a_large_batch_is_shown_by_position(contents):
    figures = plan_figures(contents(plan=saved_plan(batch=100)))
    assert figures.cells.x_label == "position in the plan"
    assert figures.cells.per_column == figures.cells.rows == 32
    assert figures.bars.x_label == "optimizer step"


def test_a_long_run_shows_its_first_slots_and_says_so(contents):
    plan = Plan(
        7, (PlanSource("turn", "task", 50, 500), PlanSource("writing", "general", 9000, 4500))
    )
    saved = saved_plan(plan, steps=2000, batch=4)
    figures = plan_figures(contents(plan=saved))
    assert figures.cells.title == "The first 250 steps, slot by slot"
    assert len(figures.bars.shares) == 100
    assert Counter(map(len, figures.bars.shares)) == {1: 100}
    saved["steps"], saved["realised"]["complete"] = 10**6, False
    (note,) = plan_figures(contents(plan=saved)).notes
    assert f"{MOST:,}" in note


def test_packed_runs_are_shown_by_position(contents):
    saved = saved_plan() | {"unit": "bins"}
    figures = plan_figures(contents(plan=saved))
    assert figures.cells.x_label == figures.bars.x_label == "position in the plan"
    assert figures.cells.done is None
    assert "packed" in figures.notes[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"without": ("plan.json",)}, "there is no plan.json"),
        ({"plan": {**saved_plan(), "algorithm": "old-v0"}}, "plan.json is of order old-v0"),
    ],
)
def test_an_order_that_cannot_be_known_is_not_drawn(contents, changes, why):
    figures = plan_figures(contents(**changes))
    assert figures.cells is None
    assert why in figures.notes[0]


def test_a_source_keeps_its_colour_in_every_arm(contents):
    plan = Plan(7, (PlanSource("writing", "general", 50, 15),))
    styles = source_styles(contents(plan=saved_plan(plan)))
    assert styles == {"turn": "t1", "writing": "g1"}
