"""The claims with their verdicts, and the one number that stands for each on a testbed.

Studies enter; cards with what the rule says, testbed by testbed, leave.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tell_lightning.experiment.contrasts import DECLARED_N, ContrastRow
from tell_lightning.experiment.findings import Finding
from tell_lightning.experiment.results import COMPLETED, FAILED
from tell_lightning.experiment.rules import Verdict
from tell_lightning.report.experiments.contents import Contents, Study
from tell_lightning.report.experiments.dials import CENTRE
from tell_lightning.report.experiments.figures import MINUS, number
from tell_lightning.report.experiments.ratios import times
from tell_lightning.report.experiments.sections import FEW_SIGN, with_interval

SIGNS = {"reproduced": "✓", "refuted": "✗", "undecided": "?", "none": "\N{EN DASH}"}
WORDS = {"none": "no verdict"}
TOGETHER = "all testbeds"


@dataclass(frozen=True)
class Judgement:
    """What is said of a claim on one testbed, or on all."""

    testbed: str
    """Its name; empty: all of them."""
    label: str
    verdict: str
    sign: str
    reason: str
    number: str
    """The number that stands for it, with its interval; empty where there is none."""

    @property
    def word(self) -> str:
        """What the verdict is called."""
        return WORDS.get(self.verdict, self.verdict)


@dataclass(frozen=True)
class Claim:
    """One claim."""

    name: str
    title: str
    claim: str
    refuted_by: str
    rule: str
    digest: str
    measure: str
    """What its number is."""
    testbeds: Sequence[Judgement]
    whole: Judgement
    progress: str


def claims(contents: Contents) -> list[Claim]:
    """Return the claims in the order of the page; tuning claims nothing."""
    return [_claim(contents, study) for study in contents.studies if study.verdicts]


def _claim(contents: Contents, study: Study) -> Claim:
    experiment = study.experiment
    found = [_judgement(contents, verdict) for verdict in study.verdicts]
    findings = [verdict.finding for verdict in study.verdicts if verdict.finding]
    rule = {key: value for key, value in experiment.rule.items() if key != "kind"}
    done, lost = len(study.with_status(COMPLETED)), len(study.with_status(FAILED))
    cells = f"{number(done)} of {number(len(study.cells))} cells completed"
    borrowed = ", ".join(path.name for path in experiment.uses)
    progress = cells if study.cells else "no cells of its own"
    progress += f", {number(lost)} failed" if lost else ""
    progress += f"; uses those of {borrowed}" if borrowed else ""
    return Claim(
        experiment.name,
        experiment.title,
        experiment.claim,
        experiment.refuted_by,
        f"{experiment.kind}: " + ", ".join(f"{key} {_value(v)}" for key, v in rule.items()),
        experiment.rule_digest,
        _measure(study, findings),
        found[:-1],
        found[-1],
        progress,
    )


def _judgement(contents: Contents, verdict: Verdict) -> Judgement:
    testbed = verdict.testbed or ""
    return Judgement(
        testbed,
        contents.testbeds[testbed].label if testbed in contents.testbeds else TOGETHER,
        verdict.verdict,
        SIGNS[verdict.verdict],
        _typographic(verdict.reason),
        _number(verdict.finding) + (f" {FEW_SIGN}" if verdict.exploratory and testbed else "")
        if verdict.finding
        else "",
    )


def main_row(finding: Finding) -> ContrastRow | None:
    """Choose the difference that stands for a finding.

    That at the declared number of examples; of several that are all needed, the weakest.
    """
    rows = finding.contrasts
    declared = [row for row in rows if row.name == f"n = {DECLARED_N}"]
    arms = [row for row in rows if row.name.startswith("tell - ")]
    if declared or not rows:
        return declared[0] if declared else None
    return min(arms, key=lambda row: row.estimate.low) if arms else rows[0]


def _number(finding: Finding) -> str:
    if finding.equivalence:
        return times(finding.equivalence.examples)
    row = main_row(finding)
    return with_interval(row.estimate, change=True) if row else ""


def _measure(study: Study, findings: Sequence[Finding]) -> str:
    arms = study.experiment.arms
    if any(finding.equivalence for finding in findings):
        return "SFT's examples for one of TELL's"
    rows = {row.name for found in findings if (row := main_row(found))}
    if any(name.startswith("n = ") for name in rows):
        return f"TELL less SFT at n = {DECLARED_N}, points"
    others = sorted(
        {
            arms[name.removeprefix("tell - ")].label
            for name in rows
            if name.startswith("tell - ") and name.removeprefix("tell - ") in arms
        }
    )
    if others:
        n = study.experiment.rule.get("n", DECLARED_N)
        return f"TELL less {' or '.join(others).lower()} at n = {n}, points"
    steps = study.experiment.rule.get("variants") or []
    if rows and steps:
        first, last = (str(steps[place] or CENTRE).replace("_", " ") for place in (0, -1))
        return f"TELL, {last} less {first}, points"
    return ""


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value(each) for each in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _typographic(reason: str) -> str:
    text = reason.replace(">= ", "≥ ").replace("<= ", "≤ ").replace(" - ", f" {MINUS} ")
    return re.sub(r"(?<=[\[, ])-(?=\d)", MINUS, text)
