"""Files that are whole or not there, and that one process has at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    except BaseException:
        if draft.exists():
            draft.unlink()
        raise


@contextmanager
def locked(path: Path, refusal: Exception) -> Iterator[None]:
    """Keep every other process out while the body runs; a kill lets go of the lock, too.

    Args:
        path: The lock, a file of its own; it is gone afterwards.
        refusal: What is raised where another process has it.

    Raises:
        OSError: The lock cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise refusal from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
