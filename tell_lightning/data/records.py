"""Rows of a file or data set as records: one shape for prompt/response rows and conversations."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tell_lightning.errors import TellError

Role = Literal["system", "user", "assistant"]


class RecordError(TellError):
    """A file or row that cannot be read as a record."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Record:
    """A row as read: an optional system turn, then user and assistant turns in alternation."""

    id: str
    where: str
    turns: tuple[Turn, ...]
    row: Mapping[str, object]

    @property
    def response(self) -> str | None:
        """The last assistant text, where the conversation ends in one."""
        return self.turns[-1].content if self.turns[-1].role == "assistant" else None

    @property
    def prompt_turns(self) -> tuple[Turn, ...]:
        """All turns before the response."""
        return self.turns[:-1] if self.turns[-1].role == "assistant" else self.turns


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Which field of a row is what."""

    prompt: str = "prompt"
    """Field with the prompt, such as query or instruction."""
    input: str | None = None
    """Field that follows the prompt after an empty line; an empty value adds nothing."""
    response: str | None = "response"
    """Field with the response, such as output; null: rows have none (prediction only)."""
    system: str | None = None
    """Field with the system text; an empty value adds nothing."""
    messages: str | None = None
    """Field with a list of {role, content}; it replaces prompt, input and response."""
    id: str | None = None
    """Field with a name that no other row has; null: file name and line."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Where rows come from: give path or hub."""

    path: str | None = None
    """File, or folder written by datasets' save_to_disk, below data.root or absolute."""
    hub: str | None = None
    """Hugging Face data set, as owner/name."""
    config: str | None = None
    """Configuration of the hub data set, where it has several."""
    split: str | None = None
    """Split to read, where the data set or folder has several."""
    revision: str | None = None
    """Commit of the hub data set; without it the rows may change between two runs."""


@dataclass(frozen=True, slots=True)
class RecordSet:
    """All records of one source, what was wrong with the skipped rows, and the digest of its bytes."""

    records: tuple[Record, ...]
    bad: tuple[str, ...]
    sha256: str
    where: str


def read_records(
    rows: str | Rows,
    *,
    fields: Fields,
    root: Path,
    on_bad_rows: Literal["error", "skip"] = "error",
    max_bad_share: float = 0.001,
    need_response: bool = True,
) -> RecordSet:
    """Read every row of a file, folder or hub data set."""
    raise NotImplementedError


def record_from_row(
    row: object, *, fields: Fields, where: str, id: str, need_response: bool = True
) -> Record:
    """Check one row and give it the shape of a record; ``fields.id``, where set, replaces ``id``."""
    raise NotImplementedError


def record_from_line(line: str, *, fields: Fields, where: str, id: str) -> Record:
    """Read one line to predict: a JSON object where it starts with ``{``, else the prompt itself."""
    raise NotImplementedError
