"""The claims with their verdicts, and the main number of each claim on each testbed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tell_lightning.experiment.contrasts import DECLARED_N, ContrastRow
from tell_lightning.experiment.findings import Finding
from tell_lightning.experiment.results import COMPLETED
from tell_lightning.experiment.rules import Verdict
from tell_lightning.experiment.specification import Experiment
from tell_lightning.report.canvas import MINUS
from tell_lightning.report.experiments.accounts import progress
from tell_lightning.report.experiments.contents import Contents, Study
from tell_lightning.report.experiments.dials import CENTRE
from tell_lightning.report.experiments.ratios import times
from tell_lightning.report.experiments.sections import behind, with_interval, with_seeds

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
    state: str
    """The verdict as a whole, and how many of its own runs are completed if not all are."""
    suite: str = ""
    """The name of its suite; empty: that of the folder of the report."""

    @property
    def title(self) -> str:
        """Its title, behind the name of its suite."""
        return behind(self.suite, self.experiment.title)

    @property
    def id(self) -> str:
        """Its place on the page."""
        return "-".join(("claim", *self.experiment.folder.resolve().parts[-2:]))

    @property
    def asks(self) -> tuple[str, str | None]:
        """The kind of its rule, and the arm that the rule compares TELL with."""
        return self.experiment.kind, self.experiment.rule.get("against")

    @property
    def known(self) -> list[Judgement]:
        """What the overview shows of the testbeds: nothing before one of them has a number."""
        found = [*self.testbeds.values()]
        return found if any(each.number for each in found) else []


@dataclass(frozen=True)
class Compared:
    """A claim in several suites: one row of the overview."""

    title: str
    claims: Sequence[Sequence[Claim]]
    """For each suite the claims of this row; none where the suite does not test it."""


def claims(contents: Contents, suite: str = "") -> list[Claim]:
    """Return the claims in the order of the page; tuning claims nothing."""
    return [_claim(contents, study, suite) for study in contents.studies if study.verdicts]


def compared(suites: Sequence[Sequence[Claim]]) -> list[Compared]:
    """Put the claims of several suites side by side.

    A claim stands beside the one of the first suite whose folder has the same name; if there is
    none, beside the first one with a rule of the same kind; else alone, at the end.
    """
    rows: dict[str, list[list[Claim]]] = {}
    alike = {claim.asks: claim.experiment.name for claim in reversed(suites[0])}
    for place, found in enumerate(suites):
        for claim in found:
            name = claim.experiment.name
            if place and name not in rows:
                name = alike.get(claim.asks, name)
            rows.setdefault(name, [[] for _ in suites])[place].append(claim)
    return [Compared(next(filter(None, row))[0].experiment.title, row) for row in rows.values()]


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


def _claim(contents: Contents, study: Study, suite: str) -> Claim:
    experiment = study.experiment
    *found, whole = (_judgement(contents, verdict) for verdict in study.verdicts)
    rule = {key: value for key, value in experiment.rule.items() if key != "kind"}
    told, results = "no runs of its own", [*study.results.values()]
    if study.cells:
        told = progress(len(study.cells), results, "runs completed")
    state = whole.word
    if study.cells and not results and not study.otherwise:
        state = "no runs yet"
    elif len(study.with_status(COMPLETED)) < len(study.cells):
        state += f", {progress(len(study.cells), results, 'runs')}"
    if experiment.uses:
        told += f"; uses those of {', '.join(path.name for path in experiment.uses)}"
    return Claim(
        experiment,
        f"{experiment.kind}: " + ", ".join(f"{key} {_value(v)}" for key, v in rule.items()),
        _measure(study),
        {each.testbed: each for each in found},
        whole,
        told,
        state,
        suite,
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
        told = " or ".join(
            label if label[:2].isupper() else label[:1].lower() + label[1:] for label in labels
        )
        return f"TELL less {told} at n = {rule.get('n', DECLARED_N)}, points"
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
