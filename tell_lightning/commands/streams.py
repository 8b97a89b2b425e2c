"""Standard input, output and error as any command can use them, whatever the process was given."""

import codecs
import os
import sys
from collections.abc import Iterable

from tell_lightning.errors import TellError

ESCAPED = "tell_lightning.escaped"
"""Name of the way to write letters that an encoding does not have."""


def make_usable() -> None:
    r"""Replace closed streams by empty ones; let every text be written in every encoding.

    A letter that the encoding of a stream does not have is written as `\uXXXX`, which JSON reads
    back as that letter.
    """
    codecs.register_error(ESCAPED, _escaped)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: `command >&-`
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ESCAPED)


def check_words(words: Iterable[str]) -> None:
    """Refuse words of the command line that are no text, which no file of ours could hold.

    Raises:
        TellError: A word has bytes that are not UTF-8.
    """
    for word in words:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            shown = word.encode("utf-8", "backslashreplace").decode()
            raise TellError(
                f"command line: every word must be UTF-8 text, got '{shown}'. Rename the file or "
                "folder, or write the word anew."
            )


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    words = (units[place : place + 2].hex() for place in range(0, len(units), 2))
    return "".join(f"\\u{word}" for word in words), error.end
