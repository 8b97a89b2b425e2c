"""Rules and verdicts: reproduced, refuted, undecided or none, for each testbed and for the claim.

Every threshold is in the YAML. There is no verdict if a needed run failed or is missing. There is
none either if the rule was changed after a result was made: a rule must be written before its
numbers are seen. Fewer than five seeds are exploratory and decide nothing.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from tell_lightning.experiment.cells import TUNING, Cell, expand
from tell_lightning.experiment.contrasts import DECLARED_N, FAMILY
from tell_lightning.experiment.evidence import Results, gaps, used_experiments
from tell_lightning.experiment.findings import (
    Evidence,
    Finding,
    Outcome,
    Rule,
    activation,
    against,
    amount,
    contrast,
    same_data,
    ten_examples,
    tenfold,
)
from tell_lightning.experiment.forms import (
    NUMBER,
    TEXT,
    Form,
    check_keys,
    is_whole,
    one_of,
)
from tell_lightning.experiment.specification import UNTRAINED, Experiment
from tell_lightning.experiment.statistics import StatisticsError

LEAST_SEEDS = 5
"""With fewer a verdict is undecided: p of the sign-flip test of 4 seeds is at least 0.125."""
ENOUGH = 2
"""Testbeds on which a claim must be reproduced, or refuted, for a verdict as a whole."""

Need = tuple[str, int, str | None]
"""Arm, n and variant of runs without which there is no verdict."""
Needs = Callable[[Rule, Sequence[Cell]], list[Need]]
"""Lists what a rule needs, from the rule and the cells of a testbed."""


@dataclass(frozen=True)
class Kind:
    """One kind of rule."""

    apply: Callable[[Rule, Evidence], Finding]
    needs: Needs
    keys: Mapping[str, Form]
    """The keys that the rule must have."""
    optional: Mapping[str, Form] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim."""

    testbed: str | None
    """None: the verdict as a whole."""
    verdict: Outcome
    reason: str
    """One sentence, with the numbers."""
    exploratory: bool = False
    """Whether it rests on fewer than five seeds."""
    finding: Finding | None = None
    """The numbers; None if there is no verdict, and for the verdict as a whole."""


def verdicts(
    experiment: Experiment, results: Results, otherwise: Collection[str] = ()
) -> list[Verdict]:
    """Apply the rule of a claim to the results.

    Args:
        experiment: The claim.
        results: Those of its folder and of the folders that it uses; its own win.
        otherwise: Names of cells whose result was left out, because it was made with another
            configuration.

    Returns:
        One verdict for each testbed that has cells which the rule needs, and at the end the verdict
        as a whole; nothing for `tuning`. A claim with cells of its own is about their testbeds
        alone, although the folders that it uses may have others.

    Raises:
        SpecificationError: The rule is wrong.
    """
    kind = check_rule(experiment)
    if kind is None:
        return []
    folders = used_experiments(experiment)
    cells = {cell.name: cell for each in reversed(folders) for cell in expand(each)}
    own = {cell.name: cell.testbed for cell in expand(experiment)}
    # Results of seeds that are no longer planned do not count: nobody may choose among them.
    results = {name: results[name] for name in cells if name in results}
    found = []
    for name, testbed in experiment.testbeds.items():
        here = [cell for cell in cells.values() if cell.testbed == name]
        needed = {need: _cells_of(need, here) for need in kind.needs(experiment.rule, here)}
        if not any(needed.values()) or (own and name not in own.values()):
            continue
        looked_at = [*chain(*needed.values()), *(cell for cell in here if cell.name in own)]
        lacking = _lacking(needed, results, otherwise) or _other_rule(
            experiment, looked_at, results
        )
        if lacking:
            found.append(Verdict(name, "none", lacking))
        else:
            evidence = Evidence(testbed, experiment.arms, results)
            found.append(_applied(kind, experiment.rule, evidence))
    return [*found, overall(found)]


def overall(found: Sequence[Verdict]) -> Verdict:
    """Reproduced, or refuted, as a whole: on two testbeds or more, and on none the other way."""
    if not found:
        return Verdict(None, "none", "no testbed has runs that the rule needs")
    by = {
        outcome: [each.testbed or "" for each in found if each.verdict == outcome]
        for outcome in ("reproduced", "refuted", "undecided", "none")
    }
    parts = [f"{outcome} on {', '.join(names)}" for outcome, names in by.items() if names]
    verdict: Outcome = "undecided"
    if by["none"]:
        verdict = "none"
    elif len(by["reproduced"]) >= ENOUGH and not by["refuted"]:
        verdict = "reproduced"
    elif len(by["refuted"]) >= ENOUGH and not by["reproduced"]:
        verdict = "refuted"
    return Verdict(
        None, verdict, "; ".join(parts), exploratory=any(each.exploratory for each in found)
    )


def check_rule(experiment: Experiment) -> Kind | None:
    """Check that a rule has the thresholds of its kind.

    Returns:
        The kind; None for `tuning`, which has no verdict.

    Raises:
        SpecificationError: The kind or a key is unknown, or a threshold is missing or wrong.
    """
    if experiment.kind == TUNING:
        return None
    where = f"{experiment.folder / 'experiment.yaml'}: rule."
    check_keys(where, {"kind": experiment.kind}, {"kind": one_of([*RULES, TUNING])})
    kind = RULES[experiment.kind]
    rule = {key: value for key, value in experiment.rule.items() if key != "kind"}
    check_keys(where, rule, kind.keys, kind.optional)
    return kind


def _applied(kind: Kind, rule: Rule, evidence: Evidence) -> Verdict:
    try:
        finding = kind.apply(rule, evidence)
    except StatisticsError as error:
        return Verdict(evidence.testbed.name, "none", str(error))
    few = finding.seeds < LEAST_SEEDS
    seeds = f"{finding.seeds} seeds" if finding.seeds > 1 else "one seed"
    return Verdict(
        evidence.testbed.name,
        "undecided" if few else finding.outcome,
        f"exploratory, {seeds}: {finding.reason}" if few else finding.reason,
        exploratory=few,
        finding=finding,
    )


def _cells_of(need: Need, cells: Sequence[Cell]) -> list[Cell]:
    arm, n, variant = need
    return [
        cell for cell in cells if cell.arm == arm and cell.n in {n, 0} and cell.variant == variant
    ]


def _lacking(
    needed: Mapping[Need, Sequence[Cell]], results: Results, otherwise: Collection[str]
) -> str:
    for (arm, n, variant), cells in needed.items():
        if not cells:
            return f"no run of {arm} at n = {n}{f' ({variant})' if variant else ''} is planned"
    by_name = {cell.name: cell for found in needed.values() for cell in found}
    return gaps(by_name.values(), results, otherwise)


def _other_rule(experiment: Experiment, cells: Iterable[Cell], results: Results) -> str:
    """Name a result that was made while the claim had another rule; nothing if there is none."""
    names = sorted({cell.name for cell in cells if cell.name in results})
    made = {name: results[name].get("rules", {}).get(experiment.name) for name in names}
    other = [name for name, digest in made.items() if digest != experiment.rule_digest]
    if not other:
        return ""
    return (
        f"the rule was changed: {len(other)} of {len(made)} results were made under another one, "
        f"such as {other[0]} under {made[other[0]]}"
    )


def _at_n(*arms: str) -> Needs:
    """Need these arms, and the arm that the rule compares with, at each n of the rule."""

    def needs(rule: Rule, cells: Sequence[Cell]) -> list[Need]:
        sizes = rule["n"] if isinstance(rule["n"], list) else [rule["n"]]
        named = [*arms, *([rule["against"]] if "against" in rule else [])]
        return [(arm, n, None) for arm in named for n in sizes]

    return needs


def _curve(rule: Rule, cells: Sequence[Cell]) -> list[Need]:
    sizes = {cell.n for cell in cells if cell.arm == "sft" and cell.variant is None}
    return [("tell", rule["n"], None), *(("sft", n, None) for n in sorted(sizes))]


def _variants(rule: Rule, cells: Sequence[Cell]) -> list[Need]:
    n = rule.get("n", DECLARED_N)
    return [(rule["arm"], n, variant) for variant in rule["variants"]]


SIZE = Form("a whole number from 1 on", lambda value: is_whole(value, 1), "10")
SIZES = Form(
    "a list of whole numbers from 1 on",
    lambda value: isinstance(value, list) and bool(value) and all(map(SIZE.holds, value)),
    "[10, 100]",
)
VARIANTS = Form(
    "a list of two variants or more, the least first",
    lambda value: (
        isinstance(value, list)
        and len(value) >= 2
        and all(name is None or isinstance(name, str) for name in value)
    ),
    "[low, high]",
)

_AGAINST = Kind(
    against, _at_n("tell"), {"n": SIZE, "against": one_of(FAMILY), "equivalence": NUMBER}
)
RULES: Mapping[str, Kind] = {
    "activation": Kind(
        activation,
        _at_n("tell", "sft", "general_only"),
        {
            "n": SIZE,
            "chance_margin": NUMBER,
            "activation_margin": NUMBER,
            "equivalence": NUMBER,
        },
    ),
    "same_data": Kind(
        same_data,
        _at_n("tell", "sft"),
        {"n": SIZES, "at_least": SIZE, "equivalence": NUMBER},
    ),
    "tenfold": Kind(
        tenfold, _curve, {"n": SIZE, "reproduced_from": NUMBER, "refuted_below": NUMBER}
    ),
    "ten_examples": Kind(
        ten_examples,
        _at_n("tell", UNTRAINED, "general_only"),
        {"n": SIZE, "equivalence": NUMBER},
    ),
    "anchor": _AGAINST,
    "shuffle": _AGAINST,
    "contrast": Kind(contrast, _at_n("tell"), {"n": SIZE, "against": TEXT, "equivalence": NUMBER}),
    "amount": Kind(
        amount,
        _variants,
        {"arm": TEXT, "variants": VARIANTS, "equivalence": NUMBER},
        optional={"n": SIZE},
    ),
}
"""By kind. `tuning` chooses settings and has no verdict."""
