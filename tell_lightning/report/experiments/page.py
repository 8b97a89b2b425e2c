"""The report of experiments as files: one HTML page with figures, and Markdown with its tables.

A folder's contents enter, two texts leave. The same results give the same bytes. Twenty seconds
for 1,000 results; no script, nothing loaded, no torch.
"""

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from tell_lightning import __version__
from tell_lightning.experiment.results import COMPLETED, FAILED
from tell_lightning.report.experiments.ablations import ablations, factors
from tell_lightning.report.experiments.accounts import (
    commit,
    cost,
    failures,
    forgetting,
    hours,
    settings,
)
from tell_lightning.report.experiments.claims import claims
from tell_lightning.report.experiments.contents import Contents
from tell_lightning.report.experiments.curves import curves
from tell_lightning.report.experiments.dials import dials
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.figures import number
from tell_lightning.report.experiments.markdown import markdown
from tell_lightning.report.experiments.ratios import ratios
from tell_lightning.report.experiments.sections import FEW_SIGN, Section

TITLE = "Does TELL work? The claims, measured"


@dataclass(frozen=True)
class Written:
    """The report as texts."""

    html: str
    markdown: str


def written(contents: Contents) -> Written:
    """Write the report."""
    found, sections = claims(contents), _sections(contents)
    single = len(contents.studies) == 1
    title = contents.studies[0].experiment.title if single else TITLE
    environment = Environment(
        loader=PackageLoader("tell_lightning.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    facts = _facts(contents)
    html = environment.get_template("experiments.html").render(
        title=title,
        facts=facts,
        lacks=_lacks(contents),
        claims=found,
        testbeds=contents.testbeds,
        by_testbed={claim.name: {each.testbed: each for each in claim.testbeds} for claim in found},
        sections=sections,
        version=__version__,
    )
    lines = [f"{name}: {text}" for name, text in facts]
    lines += [f"Lacking: {line}" for line in _lacks(contents)]
    lines.append("The figures of these tables are in report.html beside this file.")
    return Written(html, markdown(title, lines, found, sections))


def _sections(contents: Contents) -> list[Section]:
    estimates = Estimates(contents)
    found = [
        curves(contents, estimates),
        ratios(contents, estimates),
        ablations(contents, estimates),
        factors(contents, estimates),
        *dials(contents, estimates),
        forgetting(contents, estimates),
    ]
    shown = [section for section in found if section.figures or section.tables]
    return [*shown, settings(contents), cost(contents), failures(contents)]


def _lacks(contents: Contents) -> list[str]:
    """Say what the report does not rest on, where cells are missing or failed."""
    lines = []
    for study in contents.studies:
        lost = len(study.with_status(FAILED))
        left = len(study.missing)
        other = len(study.otherwise)
        parts = [
            f"{number(left)} not run yet" if left else "",
            f"{number(lost)} failed" if lost else "",
            f"{number(other)} made with another configuration: left out" if other else "",
        ]
        told = ", ".join(part for part in parts if part)
        if told:
            lines.append(f"{study.experiment.title}: of {number(len(study.cells))} cells {told}")
    return lines


def _facts(contents: Contents) -> list[tuple[str, str]]:
    results = [result for study in contents.studies for result in study.results.values()]
    cells = sum(len(study.cells) for study in contents.studies)
    done = sum(result["status"] == COMPLETED for result in results)
    lost = sum(result["status"] == FAILED for result in results)
    progress = f"{number(done)} of {number(cells)} completed"
    progress += f", {number(lost)} failed" if lost else ""
    facts = [
        ("Cells", progress),
        ("Machine time", f"{hours(results):.2f} hours"),
        ("Commits", ", ".join(sorted({name for each in results if (name := commit(each))}))),
        ("Intervals", "95%, over seeds and test rows, in brackets and as bands and bars"),
        (
            FEW_SIGN,
            f"exploratory, fewer than {contents.least_seeds} seeds; hollow marks in the figures",
        ),
    ]
    return [(name, text) for name, text in facts if text]
