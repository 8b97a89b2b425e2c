"""The report of experiments as files: one HTML page with figures, and Markdown with its tables.

The same results give the same bytes. Twenty seconds for 1,000 results; no script, nothing is
loaded, no torch.
"""

from collections.abc import Callable, Iterable, Sequence
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
from tell_lightning.report.experiments.claims import claims, compared
from tell_lightning.report.experiments.contents import Contents
from tell_lightning.report.experiments.curves import curves
from tell_lightning.report.experiments.dials import dials
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.leverage import leverage
from tell_lightning.report.experiments.ratios import ratios
from tell_lightning.report.experiments.sections import FEW_SIGN, Section, behind
from tell_lightning.report.rendering import render

TITLE = "Does TELL work? The claims, measured"


@dataclass(frozen=True)
class Written:
    """The report as texts."""

    html: str
    markdown: str


def written(contents: Contents, *others: Contents) -> Written:
    """Write the report.

    Args:
        contents: What the folder of the report holds.
        others: Other suites. They are shown beside it, under their names.
    """
    single = len(contents.studies) == 1 and not others
    suites = [("", contents), *((each.name, each) for each in others)]
    values = {
        "title": contents.studies[0].experiment.title if single else TITLE,
        "facts": [fact for name, each in suites for fact in _facts(each, name)],
        "lacks": [line for name, each in suites for line in _lacks(each, name)],
        "suites": [each.heading for _, each in suites],
        "names": [each.name for each in others],
        "claims": compared([claims(each, name) for name, each in suites]),
        "sections": [
            *_together(suites, _estimated),
            *_together(suites, lambda each: [settings(each), cost(each), failures(each)]),
        ],
    }
    html, text = (render(f"experiments.{kind}", **values) for kind in ("html", "md"))
    return Written(html, text.rstrip() + "\n")


def _estimated(contents: Contents) -> list[Section]:
    estimates = Estimates(contents)
    found = [
        leverage(estimates),
        curves(estimates),
        ratios(estimates),
        ablations(estimates),
        factors(estimates),
        *dials(estimates),
        forgetting(estimates),
    ]
    return [section for section in found if section.figures or section.tables]


def _together(
    suites: Sequence[tuple[str, Contents]], sections: Callable[[Contents], Iterable[Section]]
) -> list[Section]:
    """Put what the suites say under one heading, the later ones behind their names."""
    found: dict[str, Section] = {}
    for name, contents in suites:
        for section in sections(contents):
            if name:
                found.setdefault(section.id, Section(section.id, section.title)).add(section, name)
            else:
                found[section.id] = section
    return [*found.values()]


def _lacks(contents: Contents, name: str) -> list[str]:
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
            title = behind(name, study.experiment.title)
            lines.append(f"{title}: of {number(len(study.cells))} runs {told}")
    return lines


def _facts(contents: Contents, name: str) -> list[tuple[str, str]]:
    results, least = contents.own_results, contents.least_seeds
    facts = [
        ("Runs", progress(contents.planned, results, "completed")),
        ("Machine time", f"{hours(results):.2f} hours"),
        ("Commits", ", ".join(commits(results))),
    ]
    if not name:
        facts += [
            ("Intervals", "95%, over seeds and test rows, in brackets and as bands and bars"),
            (FEW_SIGN, f"exploratory, fewer than {least} seeds; hollow marks in the figures"),
        ]
    return [(behind(name, fact), text) for fact, text in facts if text]
