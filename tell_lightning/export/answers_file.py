"""Write answers to a file row by row, and continue the file after an interruption. Needs no torch.

Line k is the answer to row k of the input. It begins with the key of the row:

    {"id": "letters.jsonl:1", "task": "tickets", "model": "0b7e...", "prompt_sha256": "55aa...", ...

Lines are only added, and only if the lines before them have the right keys. Nothing else in the
file changes, except that an incomplete last line, left by a killed process, is removed.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from tell_lightning.data.formats import cut
from tell_lightning.errors import TellError
from tell_lightning.files import as_json, locked

WAY_OUT = "Give another --output, or delete the file."


class AnswersError(TellError):
    """A file to which no answers can be added."""


@dataclass(frozen=True)
class RowKey:
    """The key of a row, with which its line begins."""

    id: str
    """Id of the row."""
    task: str
    """The task whose anchor is in the prompt."""
    model: str
    """Digest of everything except the prompt that may change the answer."""
    prompt_sha256: str
    """Digest of the token ids of the prompt."""

    def line(self, answer: Mapping[str, object]) -> bytes:
        """Return the line of an answer, with any half of a surrogate pair escaped."""
        text = as_json({**asdict(self), **answer})
        return text.encode("utf-8", "backslashreplace") + b"\n"

    @property
    def start(self) -> bytes:
        """The beginning of the line."""
        return self.line({}).removesuffix(b"}\n") + b", "


class AnswersStream:
    """Writes answers at once, to a pipe or device that cannot be read again."""

    lines = 0
    """Number of answers written."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Write to a binary stream."""
        self._stream = stream

    def holds(self, key: RowKey) -> bool:
        """Return False: a stream holds no answers."""
        return False

    def append(self, lines: Sequence[bytes]) -> None:
        """Write the answers at once."""
        self._stream.write(b"".join(lines))
        self._stream.flush()
        self.lines += len(lines)

    def recount(self) -> None:
        """Do nothing: the count is right."""

    def finish(self) -> None:
        """Do nothing: a stream has no end to check."""


class AnswersFile:
    """A regular file of answers, which may exist already.

    Call `look` once. Then call `holds` for every row of the input in order, and `append` with the
    answers of the rows that it does not hold. At the end call `finish`.

    Attributes:
        lines: Number of answers in the file.
    """

    def __init__(self, path: Path) -> None:
        """Take the path; a new file is made with the first answers."""
        self.path = path
        self.lines = 0
        self._known = 0  # complete lines that the file had at first
        self._row = 0  # rows of the input asked for so far
        self._end = 0  # bytes of the lines that were checked
        self._tail = b""  # start of an incomplete last line
        self._old: IO[bytes] | None = None
        self._new: IO[bytes] | None = None

    def look(self) -> None:
        """Count the answers in the file.

        Raises:
            AnswersError: The file cannot be read, or holds something else.
        """
        with _explained(self.path):
            if self.path.exists():
                self._old = self.path.open("rb")
                self._count(self._old)

    def holds(self, key: RowKey) -> bool:
        """Return whether the file already has the answer to the next row of the input.

        Raises:
            AnswersError: Its line has the key of another row, model or prompt.
        """
        self._row += 1
        if self._row > self._known:
            if self._tail and self._row == self._known + 1:
                self._check_tail(key)
            return False
        assert self._old is not None
        line = self._old.readline()
        self._end += len(line)
        where = f"{self.path}:{self._row}"
        answer = _read(line, where)
        for name, wanted in asdict(key).items():
            if answer[name] != wanted:
                raise AnswersError(
                    f"{where}: {_RULES[name].format(row=self._row, **asdict(key))}, got "
                    f"{cut(answer[name])}. {WAY_OUT}"
                )
        return True

    def append(self, lines: Sequence[bytes]) -> None:
        """Add the answers to the next rows, and wait until they are on the disk.

        Raises:
            AnswersError: They cannot be written.
        """
        with _explained(self.path):
            if self._new is None:
                # Unbuffered, so that no buffer is written again after a "disk full" error.
                self._new = self.path.open("r+b" if self._old else "xb", buffering=0)
                self._new.truncate(self._end)
                self._new.seek(self._end)
                self._tail = b""
            rest = b"".join(lines)
            while rest:
                rest = rest[self._new.write(rest) :]
            os.fsync(self._new.fileno())
        self.lines += len(lines)

    def recount(self) -> None:
        """Count the answers again, after a signal that may have interrupted `append`."""
        if self.path.exists():
            with self.path.open("rb") as file:
                self.lines = sum(line.endswith(b"\n") for line in file)

    def finish(self) -> None:
        """Check that the file ends with the last row of the input.

        Raises:
            AnswersError: More lines follow.
        """
        if self._row < self._known or self._tail:
            raise AnswersError(
                f"{self.path}:{self._row + 1}: the file must end with the answer to row "
                f"{self._row}, the last one of the input, got more. {WAY_OUT}"
            )

    def close(self) -> None:
        """Close the file."""
        for file in (self._old, self._new):
            if file is not None:
                file.close()

    def _count(self, old: IO[bytes]) -> None:
        """Count the complete lines, keep the incomplete last one, and check the first."""
        for line in old:
            if line.endswith(b"\n"):
                self.lines += 1
            else:
                self._tail = line
        self._known = self.lines
        old.seek(0)
        if self.lines:
            _read(old.readline(), f"{self.path}:1")
            old.seek(0)
        elif self._tail:
            self._check_tail(None)

    def _check_tail(self, key: RowKey | None) -> None:
        """Check that the incomplete last line is the beginning of the next row's answer."""
        start = key.start if key else b'{"id": '
        if not (start.startswith(self._tail) or self._tail.startswith(start)):
            raise AnswersError(
                f"{self.path}:{self._known + 1}: a last line without its end must be the beginning "
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
    """Open a file of answers, and lock it for this process.

    Args:
        path: Path of the file. A device or a pipe is written as a stream.

    Raises:
        AnswersError: The file cannot be used, or another process holds the lock.
    """
    if not path.parent.is_dir():
        raise AnswersError(
            f"--output: must be in an existing folder, got '{path}'. Make the folder."
        )
    if path.exists() and not path.is_file():
        with _explained(path):
            stream = path.open("wb")
        with stream:
            yield AnswersStream(stream)
        return
    with _held(path), closing(AnswersFile(path)) as file:
        file.look()
        yield file


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Lock the file for this process."""
    refusal = AnswersError(
        f"--output: must be a file that no other process writes, got '{path}', which one does. "
        "Wait until it ends, or give another file."
    )
    with ExitStack() as stack:
        with _explained(path):
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), refusal))
        yield


def _read(line: bytes, where: str) -> dict[str, Any]:
    """Read a complete line."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    names = RowKey.__dataclass_fields__
    if not isinstance(answer, dict) or any(not isinstance(answer.get(n), str) for n in names):
        raise AnswersError(
            f"{where}: a file to continue must hold answers that `predict` wrote, each with "
            f"{', '.join(names)}, got {cut(line)}. {WAY_OUT}"
        )
    return answer


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one line for the user."""
    try:
        yield
    except OSError as error:
        raise AnswersError(
            f"--output: must be a file to write to, got '{path}': {error.strerror}. "
            "Free disk space or give another file; the same command then continues."
        ) from error
