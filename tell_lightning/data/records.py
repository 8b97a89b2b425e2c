"""Rows of a file or data set as records: one shape for prompt/response rows and conversations.

Enters: a path or a hub id, and which field is what. Leaves: records, each with a stable id and the
place it came from, and the digest of the bytes. Every row is checked; a bad one is an error that
names place, rule and value. Imports nothing heavy: 9,000 JSON rows take a fifth of a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from tell_lightning.data.formats import MEND, RawRow, Source, cut, read_file
from tell_lightning.data.formats import RecordError as RecordError
from tell_lightning.data.hub import read_folder, read_hub
from tell_lightning.data.rows import Fields as Fields
from tell_lightning.data.rows import Record as Record
from tell_lightning.data.rows import Turn as Turn
from tell_lightning.data.rows import record_from_line as record_from_line
from tell_lightning.data.rows import record_from_row as record_from_row


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
    """All records of one source, why rows were skipped, and the digest of its bytes."""

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
    """Read every row of a file, folder or hub data set.

    Args:
        rows: A path, or path or hub with what belongs to it.
        fields: Which field of a row is what.
        root: Folder that a relative path starts from.
        on_bad_rows: Stop at the first bad row, or leave bad rows out and list them.
        max_bad_share: With skip, the share of bad rows, 0 to 1, above which to stop all the same.
        need_response: Whether a row without a response is bad.

    Raises:
        RecordError: The rows cannot be read, or too many of them are bad.
    """
    if need_response and fields.messages is None and fields.response is None:
        raise RecordError("fields.response: rows to train on need a response, got null. Name it.")
    source = _open(Rows(path=rows) if isinstance(rows, str) else rows, root)
    records: dict[str, Record] = {}
    bad: list[str] = []
    for raw in source.rows:
        try:
            record = _record(raw, source.name, fields, need_response)
            _check_id(record, records)
        except RecordError as error:
            if on_bad_rows == "error":
                raise
            bad.append(str(error))
        else:
            records[record.id] = record
    _check_share(source.where, len(records), bad, max_bad_share)
    return RecordSet(tuple(records.values()), tuple(bad), source.sha256, source.where)


def _open(rows: Rows, root: Path) -> Source:
    if (rows.path is None) == (rows.hub is None):
        got = "neither" if rows.path is None else f"path {rows.path!r} and hub {rows.hub!r}"
        raise RecordError(f"rows: exactly one of path and hub must be set, got {got}. Set one.")
    if rows.hub is not None:
        if rows.revision is None:
            raise RecordError(
                f"{rows.hub}: a hub data set needs its revision, got none: its rows could change "
                "between two runs. Set revision to a commit of its 'Files and versions' page."
            )
        return read_hub(rows.hub, rows.config, rows.split, rows.revision)
    path = root / Path(cast(str, rows.path)).expanduser()
    if not path.exists():
        raise RecordError(
            f"{path}: the file or folder must exist, got {rows.path!r} below data.root "
            f"{str(root)!r}. Correct the path or data.root."
        )
    for name in ("config", "revision") if path.is_dir() else ("config", "revision", "split"):
        if (value := getattr(rows, name)) is not None:
            raise RecordError(
                f"{path}: {name} has no meaning for this path, got {value!r}. Leave it out."
            )
    return read_folder(path, rows.split) if path.is_dir() else read_file(path)


def _record(raw: RawRow, name: str, fields: Fields, need_response: bool) -> Record:
    if raw.fault:
        raise RecordError(f"{raw.where}: {raw.fault}")
    id = f"{name}:{raw.number}"
    return record_from_row(
        raw.row, fields=fields, where=raw.where, id=id, need_response=need_response
    )


def _check_id(record: Record, known: Mapping[str, Record]) -> None:
    if record.id in known:
        raise RecordError(
            f"{record.where}: an id must be given once, got {cut(record.id)} as in "
            f"{known[record.id].where}. {MEND}"
        )


def _check_share(where: str, good: int, bad: list[str], max_bad_share: float) -> None:
    if good + len(bad) == 0:
        raise RecordError(f"{where}: there must be at least one row, got none. Write it again.")
    if len(bad) > max_bad_share * (good + len(bad)) or not good:
        raise RecordError(
            f"{where}: at most a share of {max_bad_share:g} of the rows may be bad, got "
            f"{len(bad)} of {good + len(bad)}. Correct them or raise data.max_bad_share. "
            "The first: " + "".join(f"\n  {message}" for message in bad[:5])
        )
