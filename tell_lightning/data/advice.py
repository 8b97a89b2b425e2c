"""What in a plan is probably not meant, each with its figures and what to set instead."""

from collections.abc import Iterator, Mapping
from typing import Any

FEW_STEPS = 100
MANY_PASSES = 100
SHORT = 0.5
"""A task share of the label tokens below this part of its share of the examples is no intention."""


def advice(plan: Mapping[str, Any], *, by_tokens: bool = False) -> Iterator[str]:
    """Look for what is probably not meant.

    Args:
        plan: The content of `plan.json`.
        by_tokens: Whether the task share counts tokens, so that the lengths of rows are considered.
    """
    steps, realised = plan["steps"], plan["realised"]
    if steps < FEW_STEPS:
        yield (
            f"trainer.max_steps: a run should have {FEW_STEPS} updates or more, got {steps:,}. "
            f"{_longer(plan)}"
        )
    sources = realised["sources"]
    for name, source in sources.items():
        if source["kind"] == "task" and source["passes"] > MANY_PASSES:
            fewer = max(1, int(steps * MANY_PASSES / source["passes"]))
            yield (
                f"data.tasks.{name}: a row should be seen {MANY_PASSES} times at most, got "
                f"{source['passes']:,.0f} times each of its {source['rows']:,} rows. Set "
                f"trainer.max_steps: {fewer:,}, lower data.optimizer_batch or "
                "data.mixture.task_share, or add rows."
            )
    share = realised["task_share"]
    examples, labels = share["examples"], share["label_tokens"]
    if 0 < examples < 1 and not by_tokens and labels < SHORT * examples:
        odds = labels / (1 - labels) * (1 - examples) / examples  # tokens, task over general
        wanted = examples / (examples + (1 - examples) * odds)
        better = min(0.5, round(wanted, 2))
        becomes = better * odds / (better * odds + 1 - better)
        yield (
            f"data.mixture.task_share: tasks should have about the share of the trained tokens "
            f"that they have of the examples, {examples:.1%}, got {labels:.1%}, for their answers "
            f"are short. Set data.mixture.task_share: {better:g}, which makes it {becomes:.1%}."
        )


def _longer(plan: Mapping[str, Any]) -> str:
    if plan["length"] is None:
        return f"Set trainer.max_steps: {FEW_STEPS}, or lower data.optimizer_batch."
    return (
        "Lower data.optimizer_batch, add rows, or set data.mixture.general_repeat: true where "
        "the general rows run out."
    )
