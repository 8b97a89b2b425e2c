"""`report`: one run as one HTML page that needs nothing else.

    report RUN [--output FILE]

The page holds the plan as a picture, the curves, every score of run.json with intervals, answers
side by side, and the configuration. It goes to RUN/report.html or to --output, opens without a
network, light or dark as the reader's system is, and is made of the run's folder alone: of a run
that failed or still runs, too. About a second; no torch.
"""

from pathlib import Path

from tell_lightning.callbacks.folder import existing_folder
from tell_lightning.commands.check import ConfigError, check
from tell_lightning.commands.startup import take_option, wants_usage
from tell_lightning.files import write_whole
from tell_lightning.report.contents import ReportError, read_run
from tell_lightning.report.page import page


def report(arguments: list[str]) -> None:
    """Run the verb.

    Args:
        arguments: What follows the verb on the command line.
    """
    if wants_usage(arguments, __doc__):
        return
    output, rest = take_option(arguments, "--output")
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
