"""The report of experiments as files: one HTML page with figures, and Markdown with its tables.

The same results give the same bytes. Twenty seconds for 1,000 results; no script, nothing is
loaded, no torch.
"""

from dataclasses import dataclass

from tell_lightning.experiment.results import FAILED
from tell_lightning.report.canvas import number
from tell_lightning.report.experiments.ablations import ablations, factors
from tell_lightning.report.experiments.accounts import (
    commits,
    cost,
    failures,
    forgetting,
    hours,
    progress,
    settings,
)
from tell_lightning.report.experiments.claims import claims
from tell_lightning.report.experiments.contents import Contents
from tell_lightning.report.experiments.curves import curves
from tell_lightning.report.experiments.dials import dials
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.ratios import ratios
from tell_lightning.report.experiments.sections import FEW_SIGN, Section
from tell_lightning.report.rendering import render

TITLE = "Does TELL work? The claims, measured"


@dataclass(frozen=True)
class Written:
    """The report as texts."""

    html: str
    markdown: str


def written(contents: Contents) -> Written:
    """Write the report."""
    single = len(contents.studies) == 1
    values = {
        "title": contents.studies[0].experiment.title if single else TITLE,
        "facts": _facts(contents),
        "lacks": _lacks(contents),
        "claims": claims(contents),
        "testbeds": contents.testbeds,
        "sections": _sections(contents),
    }
    html, text = (render(f"experiments.{kind}", **values) for kind in ("html", "md"))
    return Written(html, text.rstrip() + "\n")


def _sections(contents: Contents) -> list[Section]:
    estimates = Estimates(contents)
    found = [
        curves(estimates),
        ratios(estimates),
        ablations(estimates),
        factors(estimates),
        *dials(estimates),
        forgetting(estimates),
    ]
    shown = [section for section in found if section.figures or section.tables]
    return [*shown, settings(contents), cost(contents), failures(contents)]


def _lacks(contents: Contents) -> list[str]:
    """List which runs are missing from the report, or failed."""
    lines = []
    for study in contents.studies:
        counts = {
            "not run yet": len(study.missing),
            "failed": len(study.with_status(FAILED)),
            "made with another configuration: left out": len(study.otherwise),
        }
        told = ", ".join(f"{number(count)} {what}" for what, count in counts.items() if count)
        if told:
            lines.append(f"{study.experiment.title}: of {number(len(study.cells))} runs {told}")
    return lines


def _facts(contents: Contents) -> list[tuple[str, str]]:
    results, least = contents.own_results, contents.least_seeds
    facts = [
        ("Runs", progress(contents.planned, results, "completed")),
        ("Machine time", f"{hours(results):.2f} hours"),
        ("Commits", ", ".join(commits(results))),
        ("Intervals", "95%, over seeds and test rows, in brackets and as bands and bars"),
        (FEW_SIGN, f"exploratory, fewer than {least} seeds; hollow marks in the figures"),
    ]
    return [(name, text) for name, text in facts if text]
