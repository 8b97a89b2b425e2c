"""`report`: one run as one HTML page that needs nothing else.

    report RUN [--output FILE]

The page holds the plan as a picture, the curves, every score of run.json with intervals, answers
side by side, and the configuration. It goes to RUN/report.html or to --output, opens without a
network, light or dark as the reader's system is, and is made of the run's folder alone: of a run
that failed or still runs, too. About a second; no torch.
"""

import os
from pathlib import Path

from tell_lightning.callbacks.folder import existing_folder
from tell_lightning.commands.check import ConfigError, check
from tell_lightning.commands.startup import take_option
from tell_lightning.report.contents import ReportError, read_run
from tell_lightning.report.page import page


def report(arguments: list[str]) -> None:
    """Run the verb.

    Args:
        arguments: What follows the verb on the command line.
    """
    assert __doc__ is not None
    if {"-h", "--help"} & set(arguments):
        print(f"usage: python -m tell_lightning {__doc__.split('    ', 1)[1].strip()}")
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
    size = _write(path, text.encode("utf-8", "replace"))
    print(f"Report: {path}, {size / 1024:,.0f} KiB. Open it in a browser.")


def _write(path: Path, content: bytes) -> int:
    """Write a file whole or not at all; return its size.

    Raises:
        ReportError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ReportError(
            f"--output: must be a file that can be written, got '{path}': {error.strerror}. "
            "Name another one with --output FILE."
        ) from error
    return len(content)
