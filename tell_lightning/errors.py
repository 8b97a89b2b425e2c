"""The error that every mistake of a user raises.

`main` prints its text without a traceback and exits with code 2. Each layer has a subclass beside
the code that raises it. The text has the form `where: rule, got value. What to do.`
"""


class TellError(ValueError):
    """A mistake that the user can correct."""
