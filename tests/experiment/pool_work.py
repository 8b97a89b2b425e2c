"""Work for the processes of the pool; they import no more than this."""

import os
import signal
import sys
from pathlib import Path


class Piece:
    """A piece of work for the pool."""

    def __init__(self, log: Path, value: str) -> None:
        self.log, self.value = log, value


def work(piece: Piece) -> tuple[str, int, str | None]:
    print(f"working on {piece.value}")
    if piece.value == "raise":
        raise LookupError("no such thing")
    if piece.value == "exit":
        sys.exit(3)
    if piece.value == "die":
        os._exit(9)
    if piece.value == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return piece.value.upper(), os.getpid(), os.environ.get("OF_THE_PROCESS")
