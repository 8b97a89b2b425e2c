"""Files: written whole or not at all, locked against other processes, and read as YAML."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
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


def read_yaml(path: Path, refusal: type[Exception]) -> dict[str, Any]:
    """Read a YAML file that holds keys.

    Args:
        path: The file.
        refusal: What is raised if it is missing, no UTF-8, no YAML, or holds no keys.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise refusal(
            f"{path}: must be a file that can be read, got: {error.strerror}. Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise refusal(
            f"{path}: must be UTF-8 text, got the byte 0x{error.object[error.start]:02x} at "
            f"{error.start}. Save it as UTF-8."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "a character that YAML does not allow"
        raise refusal(
            f"{path}{line}: must be valid YAML, got: {problem}. Check brackets, quotes and "
            "indentation here and above."
        ) from error
    if not isinstance(values, dict):
        got = "an empty file" if values is None else f"'{str(values)[:60]}'"
        raise refusal(f"{path}: must hold keys, got {got}. Write KEY: VALUE lines.")
    return values
