"""The error that every mistake of a user raises, and the advice on a misspelt word.

`main` prints its text without a traceback and exits with code 2. Each layer has a subclass beside
the code that raises it. The text has the form `where: rule, got value. What to do.`
"""

import difflib
from collections.abc import Sequence


class TellError(ValueError):
    """A mistake that the user can correct."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Name the known word that is most like a wrong one; nothing if none is.

    >>> did_you_mean("repotr", ["report", "predict"])
    "Did you mean 'report'?"
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean '{close[0]}'?" if close else ""
