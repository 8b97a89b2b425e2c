"""How long a run is where neither `trainer.max_steps` nor `data.mixture.cycles` says it.

    steps = `PASSES` passes over the task examples, at least `LEAST` and at most `MOST`

but not so many that an example is seen more than `MOST_PASSES` times, and not more than the general
rows last for. At the default share of 0.2 and 16 examples a step:

    task examples     10     50    500
    steps            150    157    500
    passes            48     10    3.2
"""

from math import ceil, inf
from typing import NamedTuple

from tell_lightning.data.plan import Plan

PASSES = 10
"""What tuned runs of 10 to 100 examples took, in `experiments/tuning`: 4 to 16."""
LEAST, MOST = 150, 500
"""Fewest steps, so that the warm-up and the averages of AdamW do not decide the run, and most."""
MOST_PASSES = 100


class Length(NamedTuple):
    """A number of optimizer steps, and the reason for it."""

    steps: int
    why: str


def default_length(plan: Plan, per_step: float, *, general_repeat: bool) -> Length:
    """Choose the number of optimizer steps of a run.

    Args:
        plan: The resolved plan.
        per_step: Examples of an optimizer step.
        general_repeat: Whether general rows may be seen again.
    """
    rows = sum(source.rows for source in plan.sources if source.kind == "task")
    if not rows:
        return _limited(Length(ceil(plan.cycle / per_step), "one pass over the general rows"))
    one_pass = rows / (per_step * plan.task_share)  # in steps
    found = _limited(_told(ceil(PASSES * one_pass - 1e-9), rows), least=True)
    if found.steps > (most := int(MOST_PASSES * one_pass + 1e-9)):
        steps = max(1, most)
        found = Length(steps, f"{MOST_PASSES} passes over the {rows:,} task examples, the most")
    supply = inf if general_repeat else _supply(plan) / per_step
    if 1 <= supply < found.steps:
        why = f"as far as the general rows last without repeats; {_wish(found)}"
        return Length(int(supply), why)
    return found


def _told(steps: int, rows: int) -> Length:
    return Length(steps, f"{PASSES} passes over the {rows:,} task examples")


def _limited(length: Length, *, least: bool = False) -> Length:
    """Keep a length between `LEAST` and `MOST`."""
    if least and length.steps < LEAST:
        return Length(LEAST, f"the least; {length.why} are {length.steps:,}")
    if length.steps > MOST:
        return Length(MOST, f"the most; {length.why} are {length.steps:,}")
    return length


def _wish(length: Length) -> str:
    return f"else {length.steps:,}, {length.why}"


def _supply(plan: Plan) -> float:
    """Return the positions up to which no general row repeats, in whole cycles."""
    pools = [source for source in plan.sources if source.kind == "general"]
    return min((source.rows // source.slots for source in pools), default=inf) * plan.cycle
