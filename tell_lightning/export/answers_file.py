"""A file of answers that grows row by row, and that an interrupted prediction goes on with.

Line k holds the answer to row k of the input. It begins with what the row is known by:

    {"id": "letters.jsonl:1", "task": "tickets", "model": "0b7e...", "prompt_sha256": "55aa...", ...

Enters: the keys of the rows in their order, and the lines that are not there yet. Lines are only
ever added, behind lines that fit the keys; nothing else is changed but one thing: what a kill has
left of a line behind the last whole one is cut off. Needs no torch; looking through a file costs
microseconds a line.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from tell_lightning.data.formats import BLOCK, cut
from tell_lightning.errors import TellError
from tell_lightning.files import locked

WAY_OUT = "Give another --output, or delete the file."


class AnswersError(TellError):
    """A file that answers cannot be added to."""


@dataclass(frozen=True)
class RowKey:
    """What a line begins with, and is known by."""

    id: str
    """Id of the row."""
    task: str
    """Task whose anchor it was asked with."""
    model: str
    """Digest of everything but the prompt that decides the answer."""
    prompt_sha256: str
    """Digest of the prompt's token ids."""

    def line(self, answer: Mapping[str, object]) -> bytes:
        """Return the line of an answer; half a surrogate pair, which a model may write, escaped."""
        text = json.dumps({**asdict(self), **answer}, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace") + b"\n"

    @property
    def start(self) -> bytes:
        """How the line begins."""
        return self.line({}).removesuffix(b"}\n") + b", "


class AnswersStream:
    """Answers that are written as they come, to what cannot be read again."""

    lines = 0
    """Answers that are there."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Write to a binary stream."""
        self._stream = stream

    def holds(self, key: RowKey) -> bool:
        """Say that the next row is not there."""
        return False

    def append(self, lines: Sequence[bytes]) -> None:
        """Write answers, at once."""
        self._stream.write(b"".join(lines))
        self._stream.flush()
        self.lines += len(lines)

    def recount(self) -> None:
        """Leave the count as it is."""

    def finish(self) -> None:
        """End."""


class AnswersFile:
    """A regular file of answers, there already or not.

    Ask for every row of the input, in order, whether the file holds it; add those that it does not
    hold; and finish.

    Attributes:
        lines: Answers that are there.
    """

    def __init__(self, path: Path) -> None:
        """Say where it is; a file that is not there is made with the first answers."""
        self.path = path
        self.lines = 0
        self._there = self._asked = self._end = 0
        self._tail = b""
        self._old: IO[bytes] | None = None
        self._new: IO[bytes] | None = None

    def look(self) -> None:
        """Count the answers that are there.

        Raises:
            AnswersError: It cannot be read, or holds something else.
        """
        try:
            if self.path.exists():
                self._old = self.path.open("rb")
                self._count(self._old)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def holds(self, key: RowKey) -> bool:
        """Say whether the next row of the input is answered already.

        Raises:
            AnswersError: The line there is another row's, or another model's or prompt's.
        """
        self._asked += 1
        if self._asked > self._there:
            if self._tail and self._asked == self._there + 1:
                self._check_tail(key)
            return False
        assert self._old is not None
        line = self._old.readline()
        self._end += len(line)
        where = f"{self.path}:{self._asked}"
        found = _read(line, where)
        for name, wanted in asdict(key).items():
            if found[name] != wanted:
                raise AnswersError(
                    f"{where}: {_RULES[name].format(row=self._asked, **asdict(key))}, got "
                    f"{cut(found[name])}. {WAY_OUT}"
                )
        return True

    def append(self, lines: Sequence[bytes]) -> None:
        """Add the answers to the next rows, and bring them to the disk.

        Raises:
            AnswersError: They cannot be written.
        """
        try:
            if self._new is None:
                # Unbuffered: nothing is left to be written again after a full disk.
                self._new = self.path.open("r+b" if self._old else "xb", buffering=0)
                self._new.truncate(self._end)
                self._new.seek(self._end)
                self._tail = b""
            rest = b"".join(lines)
            while rest:
                rest = rest[self._new.write(rest) :]
            os.fsync(self._new.fileno())
        except OSError as error:
            raise _unusable(self.path, error) from error
        self.lines += len(lines)

    def recount(self) -> None:
        """Count the answers again, after a signal that may have come in the midst of adding one."""
        if self.path.exists():
            with self.path.open("rb") as file:
                self.lines, _ = _whole_lines(file)

    def finish(self) -> None:
        """Check that nothing stands behind the last row of the input.

        Raises:
            AnswersError: Something does.
        """
        if self._asked < self._there or self._tail:
            raise AnswersError(
                f"{self.path}:{self._asked + 1}: the file must end with the answer to row "
                f"{self._asked}, the last one of the input, got more. {WAY_OUT}"
            )

    def close(self) -> None:
        """Close it."""
        for file in (self._old, self._new):
            if file is not None:
                file.close()

    def _count(self, old: IO[bytes]) -> None:
        """Count the whole lines, keep what stands behind them, and look at the first."""
        self.lines, behind = _whole_lines(old)
        old.seek(-behind, os.SEEK_END)
        self._tail = old.read(BLOCK)
        self._there = self.lines
        old.seek(0)
        if self.lines:
            _read(old.readline(), f"{self.path}:1")
            old.seek(0)
        elif self._tail:
            self._check_tail(None)

    def _check_tail(self, key: RowKey | None) -> None:
        """Check that a line without an end is what a kill has left of the next row's."""
        start = key.start if key else b'{"id": '
        if not (start.startswith(self._tail) or self._tail.startswith(start)):
            raise AnswersError(
                f"{self.path}:{self._there + 1}: a last line without its end must be the beginning "
                f"of the answer to the next row, got {cut(self._tail)}. {WAY_OUT}"
            )


_RULES = {
    "id": "the answer must be that to row {row} of the input, '{id}'",
    "task": "field 'task' must be '{task}', whose anchor is asked for",
    "model": "field 'model' must be '{model}', the digest of this base, adapter and limits",
    "prompt_sha256": "field 'prompt_sha256' must be '{prompt_sha256:.12}...', that of the prompt "
    "of row '{id}', which has changed",
}


@contextmanager
def open_answers(path: Path) -> Iterator[AnswersFile | AnswersStream]:
    """Open a file to add answers to, for this process alone.

    Args:
        path: Where to; a device or a pipe is written to as a stream.

    Raises:
        AnswersError: It cannot be used, or another process adds to it.
    """
    if not path.parent.is_dir():
        raise AnswersError(
            f"--output: must be in an existing folder, got '{path}'. Make the folder."
        )
    if path.exists() and not path.is_file():
        with _opened(path) as stream:
            yield AnswersStream(stream)
        return
    with _held(path), closing(AnswersFile(path)) as file:
        file.look()
        yield file


def _whole_lines(file: IO[bytes]) -> tuple[int, int]:
    """Count the lines of a file that have their end, and the bytes behind them."""
    lines = behind = 0
    while block := file.read(BLOCK):
        lines += block.count(b"\n")
        rest = len(block) - block.rfind(b"\n") - 1
        behind = rest if rest < len(block) else behind + rest
    return lines, behind


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except OSError as error:
        raise _unusable(path, error) from error


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Keep every other process from adding to the file."""
    refusal = AnswersError(
        f"--output: must be a file that no other process writes, got '{path}', which one does. "
        "Wait for its end, or give another one."
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), refusal))
        except OSError as error:
            raise _unusable(path, error) from error
        yield


def _read(line: bytes, where: str) -> dict[str, Any]:
    """Read a whole line."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    names = RowKey.__dataclass_fields__
    if not isinstance(found, dict) or any(not isinstance(found.get(n), str) for n in names):
        raise AnswersError(
            f"{where}: a file to go on with must hold answers that `predict` wrote, each with "
            f"{', '.join(names)}, got {cut(line)}. {WAY_OUT}"
        )
    return found


def _unusable(path: Path, error: OSError) -> AnswersError:
    return AnswersError(
        f"--output: must be a file to write to, got '{path}': {error.strerror}. "
        "Make room or give another one; the same command goes on."
    )
