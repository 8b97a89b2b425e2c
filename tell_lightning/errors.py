"""The error that every mistake of a user raises, and the advice on a misspelt word.

`main` prints its text without a traceback and exits with code 2. Each layer has a subclass beside
the code that raises it. The text has the form `where: rule, got value. What to do.`
"""

import difflib
import re
from collections.abc import Sequence

_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


class TellError(ValueError):
    """A mistake that the user can correct, told in one line.

    Args:
        message: The line. Line breaks in it become spaces: errors of other packages have some.
        rows: Messages about single rows, listed below the line.
    """

    def __init__(self, message: str, rows: Sequence[str] = ()) -> None:
        """Put the text together."""
        super().__init__("\n  ".join([_BREAKS.sub(" ", message), *rows]))


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Name the known word that is most like a wrong one; nothing if none is.

    >>> did_you_mean("repotr", ["report", "predict"])
    "Did you mean 'report'?"
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean '{close[0]}'?" if close else ""
