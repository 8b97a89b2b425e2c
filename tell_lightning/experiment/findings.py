"""What the results of one testbed say under a rule: one function for each kind of rule.

Each returns reproduced, refuted or undecided, with the reason in one sentence of numbers. "Better"
means the same everywhere: the whole 95 % interval of the difference is above 0, and p after Holm is
below 0.05. "Not better" means: the whole interval is below `equivalence`, a margin in points that
is too small to matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from tell_lightning.experiment.contrasts import (
    DECLARED_N,
    ContrastRow,
    above_untrained,
    contrasts,
    row,
)
from tell_lightning.experiment.equivalence import Equivalence
from tell_lightning.experiment.evidence import Results, data_equivalence, losses, samples
from tell_lightning.experiment.specification import UNTRAINED, Arm, Testbed
from tell_lightning.experiment.statistics import (
    Estimate,
    Samples,
    StatisticsError,
    difference,
    interval,
)

ALPHA = 0.05

Outcome = Literal["reproduced", "refuted", "undecided", "none"]
Rule = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """The results of one testbed."""

    testbed: Testbed
    arms: Mapping[str, Arm]
    results: Results

    def samples(self, arm: str, n: int, variant: str | None = None) -> Samples:
        """Collect the scores of an arm.

        Raises:
            StatisticsError: There are none.
        """
        return _there(samples(self.results, self.testbed.name, arm, n, variant), arm)

    def losses(self, arm: str, n: int, variant: str | None = None) -> Samples:
        """Collect the losses of an arm.

        Raises:
            StatisticsError: There are none.
        """
        return _there(losses(self.results, self.testbed.name, arm, n, variant), arm)

    def label(self, arm: str) -> str:
        """Return the name of an arm for readers."""
        return self.arms[arm].label if arm in self.arms else arm


@dataclass(frozen=True)
class Finding:
    """What a rule says of one testbed."""

    outcome: Outcome
    reason: str
    seeds: int
    """The fewest seeds that any of its numbers rests on."""
    contrasts: Sequence[ContrastRow] = ()
    levels: Mapping[str, Estimate] = field(default_factory=dict)
    """Scores of single arms that the rule looks at."""
    equivalence: Equivalence | None = None


def better(contrast: ContrastRow, margin: float, tested: bool = True) -> Outcome:
    """Decide whether the first of two arms is better.

    Args:
        contrast: The first minus the second.
        margin: A difference in points that is too small to matter.
        tested: Whether the p-value counts beside the interval.
    """
    p_value = contrast.p_value if contrast.p_holm is None else contrast.p_holm
    if contrast.estimate.low > 0 and (p_value < ALPHA or not tested):
        return "reproduced"
    return "refuted" if contrast.estimate.high < margin else "undecided"


def activation(rule: Rule, evidence: Evidence) -> Finding:
    """SFT stays at chance, TELL leaves it, and general data alone do not do it.

    Refuted if TELL does not leave chance, or adds nothing to general data alone. Undecided if SFT
    itself learns the task, since then there is nothing to activate.
    """
    n, chance = rule["n"], evidence.testbed.chance
    sft, tell = (interval(evidence.samples(arm, n)) for arm in ("sft", "tell"))
    alone = _in_family(evidence, n, "general_only")
    most, least = chance + rule["chance_margin"], chance + rule["activation_margin"]
    told = better(alone, rule["equivalence"])
    outcome: Outcome = "undecided"
    if sft.high <= most and tell.low >= least and told == "reproduced":
        outcome = "reproduced"
    elif tell.high < least or told == "refuted":
        outcome = "refuted"
    learns = ", so SFT itself learns the task" if sft.low > most else ""
    reason = (
        f"SFT {_level(sft)} (at chance: up to {most:g}){learns}; TELL {_level(tell)} (activated: "
        f"from {least:g}); {_contrast(evidence, alone)}"
    )
    levels = {"sft": sft, "tell": tell}
    seeds = min(sft.seeds, tell.seeds, alone.estimate.seeds)
    return Finding(outcome, reason, seeds, [alone], levels)


def same_data(rule: Rule, evidence: Evidence) -> Finding:
    """TELL is better than SFT at enough of the n.

    At the declared n the interval must be above 0 and p be small within the family. At the other n
    the interval is enough, since several sizes must agree, and five seeds cannot have a p below
    0.06. Refuted if it is not better at so many n that too few are left.
    """
    rows = [_at_size(evidence, n) for n in rule["n"]]
    outcomes = [better(each, rule["equivalence"], each.p_holm is not None) for each in rows]
    won, lost = (outcomes.count(outcome) for outcome in ("reproduced", "refuted"))
    outcome: Outcome = "undecided"
    if won >= rule["at_least"]:
        outcome = "reproduced"
    elif len(rule["n"]) - lost < rule["at_least"]:
        outcome = "refuted"
    each = "; ".join(f"{row.name}: {_difference(row)}" for row in rows)
    reason = (
        f"TELL is better than SFT at {won} of {len(rule['n'])} sizes and no better at {lost} "
        f"({rule['at_least']} are needed): {each}"
    )
    return Finding(outcome, reason, _fewest(rows), rows)


def tenfold(rule: Rule, evidence: Evidence) -> Finding:
    """SFT needs many times the task examples for the same score."""
    found = data_equivalence(evidence.results, evidence.testbed.name, rule["n"])
    if found is None:
        raise StatisticsError(
            f"rule: the curve of SFT on {evidence.testbed.name} must have two sizes or more, got "
            "fewer. Add runs."
        )
    low, high = found.examples.low, found.examples.high
    outcome: Outcome = "undecided"
    if low.value >= rule["reproduced_from"] and low.side != "at_most":
        outcome = "reproduced"
    elif high.value < rule["refuted_below"] and high.side != "at_least":
        outcome = "refuted"
    price = f" and {found.tokens} times the tokens" if found.tokens else ""
    reason = (
        f"for what TELL gets of {rule['n']} examples SFT needs {found.examples} times the "
        f"examples{price} (reproduced from {rule['reproduced_from']:g}, refuted below "
        f"{rule['refuted_below']:g})"
    )
    return Finding(outcome, reason, found.seeds, equivalence=found)


def ten_examples(rule: Rule, evidence: Evidence) -> Finding:
    """TELL of few examples is better than the base and than general data alone; both are needed."""
    n = rule["n"]
    tell = evidence.samples("tell", n)
    untrained = above_untrained(evidence.results, evidence.testbed.name, tell)
    rows = [
        *([] if untrained is None else [row(f"tell - {UNTRAINED}", untrained)]),
        _in_family(evidence, n, "general_only"),
    ]
    return _all_of(evidence, rows, [better(each, rule["equivalence"]) for each in rows])


def against(rule: Rule, evidence: Evidence) -> Finding:
    """TELL is better than one arm of the family."""
    found = _in_family(evidence, rule["n"], rule["against"])
    return _all_of(evidence, [found], [better(found, rule["equivalence"])])


def contrast(rule: Rule, evidence: Evidence) -> Finding:
    """TELL is better than one arm, whichever; the interval over seeds and rows alone decides.

    For claims on many testbeds with few seeds: five seeds cannot have a p below 0.06. p is given
    without a correction.
    """
    n, other = rule["n"], rule["against"]
    pair = evidence.samples("tell", n), evidence.samples(other, n)
    found = row(f"tell - {other}", difference(*pair))
    return _all_of(evidence, [found], [better(found, rule["equivalence"], tested=False)])


def amount(rule: Rule, evidence: Evidence) -> Finding:
    """More general data give a higher score and a lower loss, from the least to the most of it.

    No step may go the other way with its whole interval. Refuted if the most data give no better
    score than the least, or a higher loss.
    """
    arm, n = rule["arm"], rule.get("n", DECLARED_N)
    scored = [evidence.samples(arm, n, variant) for variant in rule["variants"]]
    lost = [evidence.losses(arm, n, variant) for variant in rule["variants"]]
    score = row("score, most - least", difference(scored[-1], scored[0]))
    loss = row("loss, least - most", difference(lost[0], lost[-1]))  # its fall
    pairs = [
        *((more, less) for less, more in pairwise(scored)),
        *pairwise(lost),
    ]
    against = sum(difference(*pair).estimate.high < 0 for pair in pairs)
    outcomes = [better(score, rule["equivalence"]), better(loss, 0.0)]
    if against and "refuted" not in outcomes:
        outcomes.append("undecided")
    outcome = _weakest(outcomes)
    reason = (
        f"from {rule['variants'][0]} to {rule['variants'][-1]} the score changes by "
        f"{_difference(score)}, the loss falls by {_difference(loss, 'nats', 3)}; "
        f"{against} of {len(pairs)} steps go the other way"
    )
    return Finding(outcome, reason, _fewest([score, loss]), [score, loss])


def _all_of(
    evidence: Evidence, rows: Sequence[ContrastRow], outcomes: Sequence[Outcome]
) -> Finding:
    reason = "; ".join(_contrast(evidence, each) for each in rows)
    return Finding(_weakest(outcomes), reason, _fewest(rows), rows)


def _weakest(outcomes: Sequence[Outcome]) -> Outcome:
    """Combine outcomes that are all needed."""
    order: tuple[Outcome, ...] = ("refuted", "undecided", "reproduced")
    return min(outcomes, key=order.index)


def _in_family(evidence: Evidence, n: int, arm: str) -> ContrastRow:
    """Compare TELL with an arm of the family, its p-value adjusted within that."""
    for each in contrasts(evidence.testbed.name, evidence.results, n, [arm]):
        if each.name == f"tell - {arm}":
            return each
    raise StatisticsError(
        f"rule: TELL and {evidence.label(arm)} on {evidence.testbed.name} must have a seed in "
        f"common at n = {n}, got none. Run both with the same seeds."
    )


def _at_size(evidence: Evidence, n: int) -> ContrastRow:
    """Compare TELL with SFT at one n; at the declared n within the family."""
    if n == DECLARED_N:
        return replace(_in_family(evidence, n, "sft"), name=f"n = {n}")
    return row(f"n = {n}", difference(evidence.samples("tell", n), evidence.samples("sft", n)))


def _fewest(rows: Sequence[ContrastRow]) -> int:
    return min(each.estimate.seeds for each in rows)


def _there(found: Samples | None, arm: str) -> Samples:
    if found is None:
        raise StatisticsError(f"results: {arm} must have completed runs, got none. Run them.")
    return found


def _level(estimate: Estimate) -> str:
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _contrast(evidence: Evidence, contrast: ContrastRow) -> str:
    first, second = (evidence.label(arm) for arm in contrast.name.split(" - "))
    return f"{first} - {second} {_difference(contrast)}"


def _difference(contrast: ContrastRow, unit: str = "points", digits: int = 1) -> str:
    """Format a difference: +12.3 [8.1, 16.0] points, p 0.004 after Holm."""
    at = contrast.estimate
    numbers = f"{at.value:+.{digits}f} [{at.low:.{digits}f}, {at.high:.{digits}f}] {unit}"
    if contrast.p_holm is None:
        return f"{numbers}, p {contrast.p_value:.2g}"
    return f"{numbers}, p {contrast.p_holm:.2g} after Holm"
