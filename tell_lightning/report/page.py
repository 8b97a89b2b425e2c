"""The report as one HTML page: everything of it in one file, nothing loaded, no script.

Enters: the run's files and the default configuration. Leaves: the text of the page. Every text of
the run is escaped by the template engine; a content policy in the head forbids scripts and loads,
should one slip through. Under a second for a run of the default's size.
"""

import platform
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tell_lightning import __version__
from tell_lightning.callbacks.folder import current_neural_scores
from tell_lightning.data.report import table
from tell_lightning.report.answers import SHOWN, task_answers
from tell_lightning.report.configuration import changed_settings
from tell_lightning.report.contents import RunContents
from tell_lightning.report.curves import charts
from tell_lightning.report.drawing import bars_svg, cells_svg, chart_svg
from tell_lightning.report.plan_figures import plan_figures, source_styles
from tell_lightning.report.summary import (
    cost_facts,
    digests,
    guard_verdict,
    missing,
    results,
    training_facts,
)
from tell_lightning.report.tables import history_tables, neural_table, score_table


def page(run: RunContents, defaults: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        run: The run's files.
        defaults: The default configuration as plain values, which the run's is held against.
    """
    environment = Environment(
        loader=PackageLoader("tell_lightning.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(_context(run, defaults))


def _context(run: RunContents, defaults: Mapping[str, Any]) -> dict[str, Any]:
    split, glance = results(run)
    figures = plan_figures(run)
    realised = run.plan.get("realised") or {}
    own = [task for task in run.tasks if run.scoring(task).function]
    general = (run.config.get("data") or {}).get("general") or {}
    tables = [score_table(run.metrics, each, general, own) for each in ("test", "dev")]
    return {
        "run": run,
        "version": __version__,
        "python": platform.python_version(),
        "split": split,
        "results": glance,
        "facts": training_facts(run),
        "missing": missing(run),
        "styles": source_styles(run),
        "plan": {
            "notes": figures.notes,
            "cells": figures.cells,
            "cells_svg": cells_svg(figures.cells) if figures.cells else "",
            "bars": figures.bars,
            "bars_svg": bars_svg(figures.bars) if figures.bars else "",
            "table": table(realised) if realised else [],
            "realised": realised,
            "saved": run.plan,
        },
        "charts": [(chart, chart_svg(chart)) for chart in charts(run)],
        "tables": [found for found in tables if found is not None],
        "guard": guard_verdict(run),
        "history": history_tables(run.metrics),
        "neural": neural_table(run.metrics, current_neural_scores(run.folder, run.metrics)),
        "answers": task_answers(run),
        "shown": SHOWN,
        "changed": changed_settings(run.config, defaults),
        "cost": cost_facts(run),
        "digests": digests(run),
    }
