"""`report`: one run, or all experiments, as one HTML page that needs nothing else. No torch."""

from pathlib import Path

from tell_lightning.callbacks.folder import existing_folder
from tell_lightning.commands.arguments import CommandParser, as_path, write_file
from tell_lightning.commands.check import neutral
from tell_lightning.commands.config_files import read_config
from tell_lightning.commands.trust import TRUST, TRUST_HELP, check_trust, scoring_code
from tell_lightning.report.contents import read_run
from tell_lightning.report.experiments.contents import holds_experiments, read_suites
from tell_lightning.report.experiments.headline import headline, write_headline
from tell_lightning.report.experiments.page import written
from tell_lightning.report.page import page
from tell_lightning.settings import ConfigError

DESCRIPTION = """
Write one run as an HTML page: the plan as a picture, the curves, every score of run.json with its
interval, answers side by side, and the configuration. The page goes to RUN/report.html. It opens
without a network, in the light or dark colours that the reader's system has. Nothing but the run's
folder is read, so that a run that failed or still trains has a report, too. About a second.

Of a folder of experiments, or of one experiment: verdicts, curves, contrasts and cost, in its
report.html and, with the tables alone, its report.md. The report says which runs are missing or
failed; results that were made with another configuration are left out, and it says so. Folders
inside it that have a testbeds.yaml of their own, such as experiments/real, are shown beside it.
"""


def report(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
    """
    asked = _parser().parse(arguments)
    if holds_experiments(asked.folder):
        _report_experiments(asked.folder, asked.results, asked.output, asked.readme)
        return
    for flag, value in (("--readme", asked.readme), ("--results", asked.results)):
        if value:
            raise ConfigError(
                f"{flag}: needs a folder of experiments, got '{asked.folder}'. Name one, such as "
                f"experiments/, or leave {flag} out."
            )
    folder = existing_folder(str(asked.folder))
    if not asked.trust:
        check_trust(folder.path, scoring_code(read_config(str(folder.latest_config)), "kind"))
    output = asked.output or folder.path / "report.html"
    text = page(read_run(folder), neutral())
    # A reference may hold half a surrogate pair, which is no text.
    content = text.encode("utf-8", "replace")
    write_file("--output", output, content)
    print(f"Report: {output}, {len(content) / 1024:,.0f} KiB. Open it in a browser.")


def _parser() -> CommandParser:
    parser = CommandParser("report", DESCRIPTION)
    parser.add_argument(TRUST, action="store_true", help=TRUST_HELP)
    add = parser.add_argument
    add(
        "folder",
        type=as_path,
        metavar="RUN",
        help="the folder of a run, which `fit` printed; or one of experiments, or of one of them",
    )
    add("--output", type=as_path, metavar="FILE", help="where the page goes")
    add(
        "--results",
        type=as_path,
        metavar="DIR",
        help="read what `experiment --results DIR` wrote, and write the report there; the -c of "
        "those runs is not known here, so that none of them counts as of another configuration",
    )
    add(
        "--readme",
        type=as_path,
        metavar="README.md",
        help="put the headline table between <!-- headline --> and <!-- /headline --> in this file",
    )
    return parser


def _report_experiments(
    folder: Path, root: Path | None, output: Path | None, readme: Path | None
) -> None:
    """Write the report of experiments: page, Markdown and, if asked for, the headline."""
    suites = read_suites(folder, root)
    output = output or (root or folder) / "report.html"
    beside = output.with_suffix(".md")
    if beside == output:
        raise ConfigError(
            f"--output: must name the page, got '{output}', which is where its Markdown goes. "
            "Write --output FILE.html; the Markdown lies beside it."
        )
    text = written(*suites)
    write_file("--output", output, text.html.encode("utf-8", "replace"))
    write_file("--output", beside, text.markdown.encode("utf-8", "replace"))
    print(f"Report: {output}, {len(text.html) / 1024:,.0f} KiB, and {beside}.")
    if readme:
        write_headline(readme, headline(suites[0]))
        print(f"Headline: {readme}")
