"""The one error that a user's mistake may raise.

`main` prints its text and exits with code 2: no traceback. Each layer has its own subclass beside
the code that raises it. The text has the form `where: rule, got value. What to do.`
"""


class TellError(ValueError):
    """A mistake that the user can mend."""
