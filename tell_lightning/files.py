"""Write a file in one step, and lock a file for one process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, refusal: Exception) -> Iterator[None]:
    """Hold a lock while the body runs. The lock is also released when the process is killed.

    Args:
        path: The lock file; it is removed at the end.
        refusal: The error to raise if another process holds the lock.

    Raises:
        OSError: The lock file cannot be made.
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
