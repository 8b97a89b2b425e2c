"""The headline table: one row a claim, one column a testbed, for the README's first screen.

Claims enter, a few lines of Markdown leave, and are put between two marks of a file.
"""

from pathlib import Path

from tell_lightning.experiment.results import COMPLETED, FAILED
from tell_lightning.files import write_whole
from tell_lightning.report.contents import ReportError
from tell_lightning.report.experiments.accounts import commit, hours
from tell_lightning.report.experiments.claims import Judgement, claims
from tell_lightning.report.experiments.contents import Contents
from tell_lightning.report.experiments.figures import number
from tell_lightning.report.experiments.markdown import escaped, row

BEGIN, END = "<!-- headline -->", "<!-- /headline -->"
FEW = 3
"""More commits than these are counted here, and named in the report."""


def headline(contents: Contents) -> str:
    """Write the table and the line below it."""
    testbeds = contents.testbeds
    lines = [
        row(["Claim", *(testbed.label for testbed in testbeds.values()), "Verdict"]),
        row(["---"] * (len(testbeds) + 2)),
    ]
    for claim in claims(contents):
        by_name = {each.testbed: each for each in claim.testbeds}
        cells = [_cell(by_name.get(name)) for name in testbeds]
        what = f"{escaped(claim.title)}: {escaped(claim.measure)}" if claim.measure else ""
        whole = f"**{claim.whole.word}**"
        lines.append(row([what or escaped(claim.title), *cells, whole]))
    return "\n".join([*lines, "", provenance(contents)])


def provenance(contents: Contents) -> str:
    """Say in one line where the numbers are from."""
    results = [result for study in contents.studies for result in study.results.values()]
    cells = sum(len(study.cells) for study in contents.studies)
    done = sum(result["status"] == COMPLETED for result in results)
    lost = sum(result["status"] == FAILED for result in results)
    seeds = {len(found) for key, found in contents.groups.items() if key.arm == "tell"}
    commits = sorted({name for result in results if (name := commit(result))})
    shown = f"commits {', '.join(commits)}" if len(commits) <= FEW else f"{len(commits)} commits"
    place = f" --results {contents.root}" if contents.root else ""
    parts = [
        f"`python -m tell_lightning report {contents.folder}{place}`",
        f"{number(done)} of {number(cells)} cells" + (f", {number(lost)} failed" if lost else ""),
        f"up to {number(max(seeds))} seeds" if seeds else "",
        f"{hours(results):.1f} machine-hours",
        shown if commits else "",
        "[low, high]: 95% interval over seeds and test rows",
    ]
    return "; ".join(part for part in parts if part) + "."


def write_headline(path: Path, text: str) -> None:
    """Replace what stands between the marks.

    Raises:
        ReportError: The file cannot be read or written, or the marks are not there.
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
            f"{END if begin else BEGIN}. Add both on lines of their own where the table shall be."
        )
    content = f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
    try:
        write_whole(path, content.encode())
    except OSError as error:
        raise ReportError(
            f"--readme: must be a file that can be written, got '{path}': {error.strerror}. "
            "Name another one with --readme FILE."
        ) from error


def _cell(found: Judgement | None) -> str:
    if found is None:
        return ""
    return ", ".join(part for part in (found.number, found.word) if part)
