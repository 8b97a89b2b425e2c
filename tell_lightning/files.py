"""Write JSON and files, lock a file for one process, digest a file, and read YAML."""

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ENOSPC, EROFS
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

PATIENCE = 2.0
"""Seconds of waiting for another process before a line says so."""


def expanded(path: str | Path) -> Path:
    """Replace a leading ~ as a shell does: `~name` of a user who does not exist stays.

    >>> expanded("~no-such-user/rows.jsonl").as_posix()
    '~no-such-user/rows.jsonl'
    """
    return Path(os.path.expanduser(path))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely, or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def full_disk(error: BaseException | None) -> str | None:
    """Return the reason if an error comes from a disk that takes no more; None if it does not.

    Libraries turn the error of the system into others, so the whole chain is searched.
    """
    known = {number: os.strerror(number) for number in (ENOSPC, EDQUOT, EFBIG, EROFS)}
    while error is not None:
        for number, reason in known.items():
            if getattr(error, "errno", None) == number or reason in str(error):
                return reason
        error = error.__cause__ or error.__context__
    return None


def as_json(value: Any, **options: Any) -> str:
    """Return strict JSON; a number that JSON does not have (NaN, infinity) becomes null.

    Args:
        value: Plain values.
        options: Arguments of `json.dumps`.

    >>> as_json({"loss": [0.5, float("nan")], "é": float("-inf")})
    '{"loss": [0.5, null], "é": null}'
    """
    options = {"ensure_ascii": False, "allow_nan": False, **options}
    try:
        return json.dumps(value, **options)
    except ValueError:
        return json.dumps(_without_nan(value), **options)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def follow_umask(folder: Path) -> None:
    """Give a folder and all in it the permissions that new files get here.

    `mkdtemp` and safetensors allow nobody but the user to read what they write.
    """
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


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


@contextmanager
def in_turn(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock while the body runs; wait for it if another process holds it.

    Args:
        path: The lock file; it is removed at the end.
        waiting: What local rank 0 says if that takes a while.

    Raises:
        OSError: The lock file cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            sys.stderr.write(f"{waiting}\n")
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # a waiting process notices this and makes a new lock
        lock.release()


class GivenTwiceError(yaml.MarkedYAMLError):
    """A YAML mapping in which a key stands twice."""

    def __init__(self, key: yaml.ScalarNode, first: yaml.ScalarNode) -> None:
        """Take the key where it stands again, and where it stands first."""
        super().__init__(problem_mark=key.start_mark)
        self.key = key.value
        self.line = key.start_mark.line + 1
        self.first_line = first.start_mark.line + 1

    def __str__(self) -> str:
        """Say rule, value and advice, as the end of a message."""
        return (
            f"a key must be given once, got '{self.key}' again, first in line {self.first_line}. "
            "Merge the two blocks, or remove one."
        )


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice; PyYAML alone would keep the last value."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.ScalarNode] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                known = first.setdefault((key.tag, key.value), key)
                if known is not key:
                    raise GivenTwiceError(key, known)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Name the place of a value that Python cannot make, such as the date 2026-13-01."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error


def parse_yaml(text: str) -> Any:
    """Parse YAML.

    Raises:
        GivenTwiceError: A mapping holds a key twice.
        yaml.YAMLError: The text is no YAML.

    >>> parse_yaml("model: {base: x}")
    {'model': {'base': 'x'}}
    """
    try:
        values = yaml.load(text, _Loader)
        json.dumps(values, default=str, skipkeys=True)  # a value may hold itself, by an alias
    except (RecursionError, ValueError) as error:
        problem = "a value that is nested too deeply, or holds itself"
        raise yaml.MarkedYAMLError(problem=problem) from error
    return values


def read_yaml(path: Path, refusal: type[Exception]) -> dict[str, Any]:
    """Read a YAML file that holds keys.

    Args:
        path: The file.
        refusal: What is raised if it is missing, no UTF-8, no YAML, holds no keys, or one twice.
    """
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise refusal(
            f"{path}: must be a file that can be read, got: {error.strerror}. Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise refusal(
            f"{path}: must be UTF-8 text, got the byte 0x{error.object[error.start]:02x} at "
            f"{error.start}. Save it as UTF-8."
        ) from error
    except GivenTwiceError as error:
        raise refusal(f"{path}:{error.line}: {error}") from error
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
