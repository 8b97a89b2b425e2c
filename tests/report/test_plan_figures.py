"""The picture of the plan is the plan."""

from collections import Counter

import pytest
from small_run import BATCH, PLAN, STEPS, saved_plan, small_record

from tell_lightning.data.plan import Plan, PlanSource
from tell_lightning.report.plan_figures import MOST, plan_figures, source_styles


def test_every_cell_is_what_stands_at_its_position(contents):
    figures = plan_figures(contents())
    slots, _ = figures.figures
    at = {
        int(block.x * BATCH + BATCH - 1 - block.y): style
        for style, blocks in slots.blocks.items()
        for block in blocks
    }
    styles = {0: "t1", 1: "g1"}
    wanted = PLAN.at(range(BATCH * STEPS)).sources.tolist()
    assert [at[position] for position in range(BATCH * STEPS)] == [styles[s] for s in wanted]
    assert (slots.high, slots.length) == (BATCH, STEPS)
    assert slots.title == "Every slot of the run"
    assert list(slots.cycles) == [0, 20 / BATCH]
    assert slots.mark == ("adapter kept", 10.0)
    assert "a column is one optimizer step; strokes above are cycles" in figures.reading
    assert figures.notes == ()


def test_shares_over_the_run_are_those_of_the_plan(contents):
    _, shares = plan_figures(contents()).figures
    assert set(shares.blocks) == {"t1"}
    assert shares.columns == STEPS
    sources = PLAN.at(range(BATCH * STEPS)).sources
    wanted = [(sources[n * BATCH : (n + 1) * BATCH] == 0).mean() for n in range(STEPS)]
    assert [block.height for block in shares.blocks["t1"]] == [share for share in wanted if share]
    assert shares.level == 0.25
    assert shares.note == "dotted: task share of a cycle, 25.0%"


def test_a_run_without_tasks_shows_its_general_sources(contents):
    plan = Plan(7, (PlanSource("a", "general", 50, 15), PlanSource("b", "general", 50, 5)))
    _, shares = plan_figures(contents(plan=saved_plan(plan))).figures
    assert shares.title.startswith("General slots")
    tops = Counter()
    for block in (block for blocks in shares.blocks.values() for block in blocks):
        tops[block.x] = max(tops[block.x], block.y + block.height)
    assert len(tops) == STEPS
    assert all(top == pytest.approx(1) for top in tops.values())
    assert shares.level is None


def test_a_run_that_ended_early_says_where(contents):
    ended = {
        key: value for key, value in small_record().items() if key not in {"steps", "selected"}
    }
    figures = plan_figures(contents(record=ended, log="step,train/loss\n5,1.0\n")).figures
    assert [figure.done for figure in figures] == [5, 5]
    assert [figure.mark for figure in figures] == [None, None]


def test_a_large_batch_is_shown_by_position(contents):
    figures = plan_figures(contents(plan=saved_plan(batch=100)))
    slots, shares = figures.figures
    assert slots.x_label == "position in the plan"
    assert slots.high == 32
    assert {block.width for blocks in slots.blocks.values() for block in blocks} == {32}
    assert shares.x_label == "optimizer step"
    assert "columns are read downwards" in figures.reading


def test_a_long_run_shows_its_first_slots_and_says_so(contents):
    plan = Plan(
        7, (PlanSource("turn", "task", 50, 500), PlanSource("writing", "general", 9000, 4500))
    )
    saved = saved_plan(plan, steps=2000, batch=4)
    slots, shares = plan_figures(contents(plan=saved)).figures
    assert slots.title == "The first 250 steps, slot by slot"
    assert shares.columns == 100
    assert len(shares.blocks["t1"]) == 100
    saved["steps"], saved["realised"]["complete"] = 10**6, False
    (note,) = plan_figures(contents(plan=saved)).notes
    assert f"{MOST:,}" in note


def test_packed_runs_are_shown_by_position(contents):
    saved = saved_plan() | {"unit": "bins"}
    figures = plan_figures(contents(plan=saved))
    assert [figure.x_label for figure in figures.figures] == ["position in the plan"] * 2
    assert [figure.done for figure in figures.figures] == [None, None]
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
    assert figures.figures == ()
    assert why in figures.notes[0]


def test_a_source_keeps_its_colour_in_every_arm(contents):
    plan = Plan(7, (PlanSource("writing", "general", 50, 15),))
    styles = source_styles(contents(plan=saved_plan(plan)))
    assert styles == {"turn": "t1", "writing": "g1"}
