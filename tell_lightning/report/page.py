"""The report of a run as one HTML page: all of it in one file, nothing loaded, no script.

Every text of the run is escaped by the template engine; a content policy in the head forbids
scripts and loads, should one slip through. Under a second for a run of the default's size.
"""

import platform
from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError

from tell_lightning.callbacks.folder import current_neural_scores
from tell_lightning.data.report import table
from tell_lightning.errors import TellError
from tell_lightning.report.answers import SHOWN, task_answers
from tell_lightning.report.configuration import changed_settings
from tell_lightning.report.contents import ReportError, RunContents
from tell_lightning.report.curves import charts
from tell_lightning.report.plan_figures import plan_figures, source_styles
from tell_lightning.report.rendering import render
from tell_lightning.report.summary import (
    cost_facts,
    digests,
    guard_verdict,
    missing,
    results,
    training_facts,
)
from tell_lightning.report.tables import history_tables, neural_table, score_table
from tell_lightning.report.tune import tune_view

DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, TemplateError)
"""What is raised by values that `fit` does not write, and by a bug of the report."""


def page(run: RunContents, defaults: Mapping[str, Any]) -> str:
    """Write the page.

    Args:
        run: The run's files.
        defaults: The default configuration as plain values, which the run's is held against.

    Raises:
        ReportError: A file of the run has another form than `fit` gives it.
    """
    try:
        return render("page.html", **_context(run, defaults))
    except TellError:
        raise
    except DAMAGED as error:
        raise ReportError(
            f"{run.folder.path}: run.json, plan.json, metrics.csv, predictions/ and the "
            f"configuration must be as `fit` writes them, got {error!r}. Copy the run's folder "
            "again."
        ) from error


def _context(run: RunContents, defaults: Mapping[str, Any]) -> dict[str, Any]:
    split, glance = results(run)
    realised = run.plan.get("realised") or {}
    own = [task for task in run.tasks if run.scoring(task).function]
    general = (run.config.get("data") or {}).get("general") or {}
    tables = [score_table(run.metrics, each, general, own) for each in ("test", "dev")]
    return {
        "run": run,
        "python": platform.python_version(),
        "tune": tune_view(run),
        "split": split,
        "results": glance,
        "facts": training_facts(run),
        "missing": missing(run),
        "styles": source_styles(run),
        "plan": plan_figures(run),
        "planned": table(realised) if realised else [],
        "realised": realised,
        "charts": charts(run),
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
