"""The claims with their verdicts, and the main number of each claim on each testbed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tell_lightning.experiment.contrasts import DECLARED_N, ContrastRow
from tell_lightning.experiment.findings import Finding
from tell_lightning.experiment.rules import Verdict
from tell_lightning.experiment.specification import Experiment
from tell_lightning.report.canvas import MINUS
from tell_lightning.report.experiments.accounts import progress
from tell_lightning.report.experiments.contents import Contents, Study
from tell_lightning.report.experiments.dials import CENTRE
from tell_lightning.report.experiments.ratios import times
from tell_lightning.report.experiments.sections import with_interval, with_seeds

SIGNS = {"reproduced": "✓", "refuted": "✗", "undecided": "?", "none": "\N{EN DASH}"}
NO_VERDICT = "no verdict"
TELL_LESS = "tell - "
"""The beginning of the name of a difference between TELL and an arm."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on a claim on one testbed, or on all."""

    testbed: str
    """Its name; empty: all of them."""
    label: str
    verdict: str
    reason: str
    number: str
    """The main number with its interval; empty if there is none."""

    @property
    def sign(self) -> str:
        """The sign of the verdict."""
        return SIGNS[self.verdict]

    @property
    def word(self) -> str:
        """The verdict as a word."""
        return NO_VERDICT if self.verdict == "none" else self.verdict

    @property
    def told(self) -> str:
        """The number and the verdict."""
        return f"{self.number}, {self.word}" if self.number else self.word


@dataclass(frozen=True)
class Claim:
    """One claim."""

    experiment: Experiment
    rule: str
    """Its rule in words."""
    measure: str
    """The meaning of its main number."""
    testbeds: Mapping[str, Judgement]
    """By name."""
    whole: Judgement
    progress: str


def claims(contents: Contents) -> list[Claim]:
    """Return the claims in the order of the page; tuning claims nothing."""
    return [_claim(contents, study) for study in contents.studies if study.verdicts]


def main_row(finding: Finding) -> ContrastRow | None:
    """Choose the main difference of a finding.

    It is the one at the declared number of examples; of several that are all needed, the weakest.
    """
    rows = finding.contrasts
    declared = [row for row in rows if row.name == f"n = {DECLARED_N}"]
    arms = [row for row in rows if row.name.startswith(TELL_LESS)]
    if declared or not rows:
        return declared[0] if declared else None
    return min(arms, key=lambda row: row.estimate.low) if arms else rows[0]


def _claim(contents: Contents, study: Study) -> Claim:
    experiment = study.experiment
    *found, whole = (_judgement(contents, verdict) for verdict in study.verdicts)
    rule = {key: value for key, value in experiment.rule.items() if key != "kind"}
    told = "no runs of its own"
    if study.cells:
        told = progress(len(study.cells), [*study.results.values()], "runs completed")
    if experiment.uses:
        told += f"; uses those of {', '.join(path.name for path in experiment.uses)}"
    return Claim(
        experiment,
        f"{experiment.kind}: " + ", ".join(f"{key} {_value(v)}" for key, v in rule.items()),
        _measure(study),
        {each.testbed: each for each in found},
        whole,
        told,
    )


def _judgement(contents: Contents, verdict: Verdict) -> Judgement:
    testbed, finding = verdict.testbed or "", verdict.finding
    label = contents.testbeds[testbed].label if testbed in contents.testbeds else "all testbeds"
    number = ""
    if finding and finding.equivalence:
        number = times(finding.equivalence.examples)
    elif finding and (row := main_row(finding)):
        number = with_interval(row.estimate, change=True)
    number = with_seeds(number, few=verdict.exploratory and finding is not None)
    return Judgement(testbed, label, verdict.verdict, _typographic(verdict.reason), number)


def _measure(study: Study) -> str:
    """Describe the main number of a claim."""
    rule, arms = study.experiment.rule, study.experiment.arms
    findings = [verdict.finding for verdict in study.verdicts if verdict.finding]
    if any(finding.equivalence for finding in findings):
        return "SFT's examples for one of TELL's"
    rows = {row.name for finding in findings if (row := main_row(finding))}
    if any(name.startswith("n = ") for name in rows):
        return f"TELL less SFT at n = {DECLARED_N}, points"
    others = {name.removeprefix(TELL_LESS) for name in rows if name.startswith(TELL_LESS)}
    labels = sorted(arms[name].label for name in others if name in arms)
    if labels:
        return f"TELL less {' or '.join(labels).lower()} at n = {rule.get('n', DECLARED_N)}, points"
    steps = rule.get("variants") or []
    if rows and steps:
        first, last = (str(steps[place] or CENTRE).replace("_", " ") for place in (0, -1))
        return f"TELL, {last} less {first}, points"
    return ""


def _value(value: Any) -> str:
    """Write a value of a rule."""
    if isinstance(value, list):
        return ", ".join(_value(each) for each in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _typographic(reason: str) -> str:
    """Write hyphens that mean minus as minus signs."""
    return re.sub(r"(?<=[\[, ])-(?=\d)", MINUS, reason.replace(" - ", f" {MINUS} "))
