"""The headline table: one row a claim, one column a testbed, for the README's first screen."""

from pathlib import Path

from tell_lightning.files import write_whole
from tell_lightning.report.canvas import number
from tell_lightning.report.contents import ReportError
from tell_lightning.report.experiments.accounts import commits, hours, progress
from tell_lightning.report.experiments.claims import claims
from tell_lightning.report.experiments.contents import Contents
from tell_lightning.report.rendering import render

BEGIN, END = "<!-- headline -->", "<!-- /headline -->"
FEW = 3
"""The most commits that are named here; of more the number is given."""


def headline(contents: Contents) -> str:
    """Write the table and the line below it."""
    values = {"testbeds": contents.testbeds, "claims": claims(contents)}
    return render("headline.md", **values, provenance=provenance(contents))


def provenance(contents: Contents) -> str:
    """Write one line on the origin of the numbers."""
    results = contents.own_results
    seeds = {len(found) for key, found in contents.groups.items() if key.arm == "tell"}
    names = commits(results)
    shown = f"commits {', '.join(names)}" if len(names) <= FEW else f"{len(names)} commits"
    place = f" --results {contents.root}" if contents.root else ""
    parts = [
        f"`python -m tell_lightning report {contents.folder}{place}`",
        progress(contents.planned, results, "runs"),
        f"up to {number(max(seeds))} seeds" if seeds else "",
        f"{hours(results):.1f} machine-hours",
        shown if names else "",
        "[low, high]: 95% interval over seeds and test rows",
    ]
    return "; ".join(part for part in parts if part) + "."


def write_headline(path: Path, text: str) -> None:
    """Replace the text between the marks.

    Raises:
        ReportError: The file cannot be read or written, or lacks the marks.
    """
    try:
        known = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "bytes that are no UTF-8 text"
        raise ReportError(
            f"--readme: must be a text file with the marks {BEGIN} and {END}, got '{path}': "
            f"{reason}. Name another one with --readme FILE."
        ) from error
    before, begin, rest = known.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ReportError(
            f"--readme: must hold the mark {BEGIN} and, below it, {END}, got '{path}' without "
            f"{END if begin else BEGIN}. Add both on lines of their own, where the table belongs."
        )
    content = f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
    try:
        write_whole(path, content.encode())
    except OSError as error:
        raise ReportError(
            f"--readme: must be a file that can be written, got '{path}': {error.strerror}. "
            "Name another one with --readme FILE."
        ) from error
