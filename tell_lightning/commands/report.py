"""`report`: one run, or all experiments, as one HTML page that needs nothing else.

    report RUN [--output FILE]
    report experiments/ [--results DIR] [--output FILE] [--readme README.md]

The page holds the plan as a picture, the curves, every score of run.json with intervals, answers
side by side, and the configuration. It goes to RUN/report.html or to --output, opens without a
network, light or dark as the reader's system is, and is made of the run's folder alone: of a run
that failed or still runs, too. About a second; no torch.

Of a folder of experiments, or of one experiment: verdicts, curves, contrasts and cost, in its
report.html and, with the tables alone, its report.md. Cells that are missing or failed are told;
results of another configuration than that of their cell are left out, and told. --results reads
what `experiment --results DIR` wrote, and writes there; a -c of it is not known, so none is left
out. --readme puts the headline table between <!-- headline --> and <!-- /headline --> of a file.
"""

from pathlib import Path

from tell_lightning.callbacks.folder import existing_folder
from tell_lightning.commands.check import ConfigError, check
from tell_lightning.commands.startup import take_option, wants_usage
from tell_lightning.files import write_whole
from tell_lightning.report.contents import ReportError, read_run
from tell_lightning.report.experiments.contents import holds_experiments, read_experiments
from tell_lightning.report.experiments.headline import headline, write_headline
from tell_lightning.report.experiments.page import written
from tell_lightning.report.page import page


def report(arguments: list[str]) -> None:
    """Run the verb.

    Args:
        arguments: What follows the verb on the command line.
    """
    if wants_usage(arguments, __doc__):
        return
    output, rest = take_option(arguments, "--output")
    readme, rest = take_option(rest, "--readme")
    results, rest = take_option(rest, "--results")
    if len(rest) == 1 and holds_experiments(Path(rest[0])):
        _report_experiments(Path(rest[0]), Path(results) if results else None, output, readme)
        return
    for option, value in (("--readme README.md", readme), ("--results DIR", results)):
        flag = option.split()[0]
        if value:
            raise ConfigError(
                f"{flag}: needs a folder of experiments, got '{' '.join(rest)}'. Write `report "
                f"experiments/ {option}`, or leave {flag} out."
            )
    if len(rest) != 1 or rest[0].startswith("-"):
        raise ConfigError(
            f"report: needs the folder of one run, got '{' '.join(rest)}'. Write `report "
            "runs/NAME`; `fit` prints the folder that it writes to."
        )
    folder = existing_folder(rest[0])
    path = Path(output) if output else folder.path / "report.html"
    text = page(read_run(folder), check([]).values)
    # A reference may hold half a surrogate pair, which is no text.
    content = text.encode("utf-8", "replace")
    _write(path, content)
    print(f"Report: {path}, {len(content) / 1024:,.0f} KiB. Open it in a browser.")


def _report_experiments(
    folder: Path, root: Path | None, output: str | None, readme: str | None
) -> None:
    """Write the report of experiments: page, Markdown and, where asked for, the headline."""
    contents = read_experiments(folder, root)
    path = Path(output) if output else (root or folder) / "report.html"
    text = written(contents)
    _write(path, text.html.encode("utf-8", "replace"))
    beside = path.with_suffix(".md")
    if beside == path:
        raise ConfigError(
            f"--output: must name the page, got '{path}', which is where its Markdown goes. Write "
            "--output FILE.html; the Markdown lies beside it."
        )
    _write(beside, text.markdown.encode("utf-8", "replace"))
    print(f"Report: {path}, {len(text.html) / 1024:,.0f} KiB, and {beside}.")
    if readme:
        write_headline(Path(readme), headline(contents))
        print(f"Headline: {readme}")


def _write(path: Path, content: bytes) -> None:
    """Write the page whole or not at all.

    Raises:
        ReportError: It cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise ReportError(
            f"--output: must be a file that can be written, got '{path}': {error.strerror}. "
            "Name another one with --output FILE."
        ) from error
