"""The arms that TELL is compared with, and the uncertainty of each difference.

The family of contrasts is declared here once: six, at one declared n. P-values are adjusted within
it (Holm), on each testbed on its own. Half a second a testbed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tell_lightning.experiment.evidence import Results, samples
from tell_lightning.experiment.specification import UNTRAINED
from tell_lightning.experiment.statistics import (
    Contrast,
    Estimate,
    Samples,
    combine,
    difference,
    holm,
    paired_deltas,
    sign_flip,
)

FAMILY = (
    "sft",
    "sft_equal_steps",
    "general_only",
    "mix_without_anchor",
    "general_then_task",
    "arbitrary_anchor",
)
"""The arms that TELL is compared with."""
DECLARED_N = 10
"""Task examples at which the family is compared."""

EFFECTS: Mapping[str, Sequence[float]] = {
    "mix": (-0.5, -0.5, 0.5, 0.5),
    "anchor": (-0.5, 0.5, -0.5, 0.5),
    "interaction": (1.0, -1.0, -1.0, 1.0),
}
"""Weights of the arms of the factorial: what mixing adds, what the anchor adds, and how much more
the anchor adds to a mixture than to task data alone."""
FACTORIAL = ("sft_without_anchor", "sft", "mix_without_anchor", "tell")


@dataclass(frozen=True)
class ContrastRow:
    """One difference of two arms, or one effect of the factorial."""

    name: str
    """`first - second`, in names of arms; or the name of the effect."""
    estimate: Estimate
    p_value: float
    """Two-sided, by sign flips."""
    p_holm: float | None
    """The same after Holm; None for a contrast that stands alone."""
    deltas: Mapping[int, float]
    """By seed."""


def contrasts(
    testbed: str, results: Results, n: int = DECLARED_N, arms: Sequence[str] = FAMILY
) -> list[ContrastRow]:
    """Compare TELL with arms of the family.

    Args:
        testbed: Its name.
        results: Completed ones count.
        n: Task examples.
        arms: The members to estimate. P-values are adjusted within the whole family in any case.

    Returns:
        One row for each member with completed runs; those without any count in the adjustment.
    """
    tell = samples(results, testbed, "tell", n)
    if tell is None:
        return []
    family = {arm: samples(results, testbed, arm, n) for arm in FAMILY}
    there = {
        arm: found
        for arm, found in family.items()
        if found is not None and set(tell.seeds) & set(found.seeds)
    }
    p_values = {
        arm: sign_flip([*paired_deltas(tell, found).values()]) for arm, found in there.items()
    }
    adjusted = dict(zip(FAMILY, holm([p_values.get(arm) for arm in FAMILY]), strict=True))
    return [
        replace(row(f"tell - {arm}", difference(tell, found)), p_holm=adjusted[arm])
        for arm, found in there.items()
        if arm in arms
    ]


def factorial(testbed: str, results: Results, n: int = DECLARED_N) -> list[ContrastRow]:
    """Split what TELL adds to SFT without an anchor into mixing, the anchor, and both together.

    Returns:
        One row for each effect; none if one of the four arms has no completed run.
    """
    arms = [samples(results, testbed, arm, n) for arm in FACTORIAL]
    known = [arm for arm in arms if arm is not None]
    if len(known) < len(arms):
        return []
    effects = {
        name: combine(list(zip(weights, known, strict=True))) for name, weights in EFFECTS.items()
    }
    return [row(name, contrast) for name, contrast in effects.items()]


def row(name: str, contrast: Contrast) -> ContrastRow:
    """Make the row of a contrast that stands alone."""
    p_value = sign_flip([*contrast.deltas.values()])
    return ContrastRow(name, contrast.estimate, p_value, None, contrast.deltas)


def above_untrained(results: Results, testbed: str, trained: Samples) -> Contrast | None:
    """Compare an arm with the untrained base, whose one seed stands for all."""
    base = samples(results, testbed, UNTRAINED, 0)
    return None if base is None else difference(trained, base.spread(trained.seeds))
