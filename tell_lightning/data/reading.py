"""Read the rows of a file, a data set of the hub, or a list as records.

Every record has a stable id and the place it came from. Every row is checked: a bad row is an error
that names place, rule and value. 9,000 JSON rows take a fifth of a second.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, cast

from tell_lightning.data.formats import ADVICE, Meter, RawRow, RecordError, RowFile, cut, read_file
from tell_lightning.data.hub import read_folder, read_hub
from tell_lightning.data.ids import Ids
from tell_lightning.data.records import Fields, Record, record_from_row
from tell_lightning.errors import TellError
from tell_lightning.files import expanded


@dataclass(frozen=True, kw_only=True)
class DataLocation:
    """Where rows come from: give path or hub."""

    path: str | None = None
    """File, or folder written by datasets' save_to_disk; absolute, or below data.root."""
    hub: str | None = None
    """Hugging Face data set, as owner/name."""
    config: str | None = None
    """Configuration of the hub data set, if it has several."""
    split: str | None = None
    """Split to read, if the data set or folder has several."""
    revision: str | None = None
    """Commit of the hub data set; without it the rows may change between two runs."""
    quoted: bool | None = None
    """Whether fields of a .csv or .tsv file may be enclosed in quotation marks; null: those of .csv
    may, those of .tsv if all names in the header are."""


Location = str | DataLocation | list[dict]  # type: ignore[type-arg]
"""A path, another place, or the rows themselves (of dict[str, Any] jsonargparse parses texts)."""


@dataclass(frozen=True, slots=True)
class RecordSet:
    """The good records of a source, in the order of the rows.

    Attributes:
        records: The records.
        bad: A message for each bad row.
        sha256: Digest of the source.
        quoting: As in `RowFile`.
        set_apart: Number of good rows that were moved to another set.
    """

    records: tuple[Record, ...]
    bad: tuple[str, ...]
    sha256: str
    quoting: str = ""
    set_apart: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of rows: read, bad and, if there are any, set_apart."""
        read = len(self.records) + len(self.bad) + self.set_apart
        apart = {"set_apart": self.set_apart} if self.set_apart else {}
        return {"read": read, "bad": len(self.bad), **apart}


def read_records(
    rows: Location,
    *,
    fields: Fields,
    root: Path,
    name: str = "rows",
    on_bad_rows: Literal["error", "skip"] = "error",
    max_bad_share: float = 0.001,
    need_response: bool = True,
    examine: Callable[[Record], object] | None = None,
) -> RecordSet:
    """Read every row of a file, folder or hub data set into memory.

    Args:
        rows: A path, another place, or the rows themselves.
        fields: The names of the fields of a row.
        root: Folder that a relative path starts from.
        name: The name of a list of rows, for ids and messages.
        on_bad_rows: error: the first bad row is raised; skip: bad rows are left out and listed.
        max_bad_share: As in `check_bad_share`.
        need_response: Whether a row without a response is bad.
        examine: Called with each record; a TellError makes the row a bad one.

    Raises:
        RecordError: The rows cannot be read, or too many of them are bad.
        TellError: `examine` refused the first bad row.
    """
    source = open_rows(rows, fields=fields, root=root, name=name, need_response=need_response)
    entries = iterate_records(
        source, fields, Ids(), Meter(), need_response=need_response, examine=examine
    )
    bad: list[str] = []
    records = tuple(good_records(entries, bad, on_bad_rows))
    check_bad_share(source.where, len(records), len(bad), bad, max_bad_share)
    return RecordSet(records, tuple(bad), source.sha256, source.quoting)


def good_records(
    entries: Iterable[Record | TellError], bad: list[str], on_bad_rows: Literal["error", "skip"]
) -> Iterator[Record]:
    """Yield the records; an error among them is raised, or its message goes to ``bad``."""
    for entry in entries:
        if isinstance(entry, Record):
            yield entry
        elif on_bad_rows == "error":
            raise entry
        else:
            bad.append(str(entry))


def open_rows(
    rows: Location,
    *,
    fields: Fields,
    root: Path,
    name: str = "rows",
    need_response: bool = True,
) -> RowFile:
    """Find a file, folder, hub data set or list and digest it. Its rows are not checked yet.

    Args:
        rows: A path, another place, or the rows themselves.
        fields: The names of the fields of a row.
        root: Folder that a relative path starts from.
        name: The name of a list of rows, for ids and messages.
        need_response: Whether rows must have a response.

    Raises:
        RecordError: The source is missing, or `rows` and `fields` do not fit together.
    """
    if need_response and fields.messages is None and fields.response is None:
        raise RecordError("fields.response: rows to train on need a response, got null. Name it.")
    if isinstance(rows, str | DataLocation):
        return _open(DataLocation(path=rows) if isinstance(rows, str) else rows, root)
    return _in_memory(list(rows), name)


def iterate_records(
    source: RowFile,
    fields: Fields,
    ids: Ids,
    meter: Meter,
    *,
    start: int = 0,
    need_response: bool = True,
    examine: Callable[[Record], object] | None = None,
) -> Iterator[Record | TellError]:
    """Yield a record or an error for each row of a source.

    Args:
        source: The opened source.
        fields: The names of the fields of a row.
        ids: The ids of the rows before `start`; the ids of the other rows are added.
        meter: Updated with the share that has been read.
        start: How many rows to skip.
        need_response: Whether a row without a response is bad.
        examine: Called with each record; a TellError makes the row a bad one.
    """
    for raw in islice(source.read(meter), start, None):
        try:
            record = _record(raw, source.name, fields, need_response)
            if fields.id is not None:
                _check_id(record, raw.number, ids)
            if examine is not None:
                examine(record)
        except TellError as error:
            yield error
        else:
            yield record


def _open(rows: DataLocation, root: Path) -> RowFile:
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
    path = root / expanded(cast(str, rows.path))
    if not path.exists():
        raise RecordError(
            f"{path}: the file or folder must exist, got {rows.path!r} below data.root "
            f"{str(root)!r}. Correct the path or data.root."
        )
    for name in ("config", "revision", "quoted" if path.is_dir() else "split"):
        if (value := getattr(rows, name)) is not None:
            raise RecordError(
                f"{path}: {name} has no meaning for this path, got {value!r}. Leave it out."
            )
    return read_folder(path, rows.split) if path.is_dir() else read_file(path, rows.quoted)


def _in_memory(rows: Sequence[Mapping[str, object]], name: str) -> RowFile:
    text = json.dumps(rows, sort_keys=True, default=str)

    def read(meter: Meter) -> Iterator[RawRow]:
        for number, row in enumerate(rows, start=1):
            meter.share = number / len(rows)
            yield RawRow(f"{name}:{number}", number, row)

    return RowFile(name, name, hashlib.sha256(text.encode()).hexdigest(), read)


def _record(raw: RawRow, name: str, fields: Fields, need_response: bool) -> Record:
    if raw.fault:
        raise RecordError(f"{raw.where}: {raw.fault}")
    id = f"{name}:{raw.number}"
    return record_from_row(
        raw.row, fields=fields, where=raw.where, id=id, need_response=need_response
    )


def _check_id(record: Record, number: int, ids: Ids) -> None:
    first = ids.first(record.id, number)
    if first is not None:
        place = record.where.removesuffix(str(number))
        raise RecordError(
            f"{record.where}: an id must be given once, got {cut(record.id)} as in "
            f"{place}{first}. {ADVICE}"
        )


def check_bad_share(
    where: str, good: int, bad: int, messages: Sequence[str], max_bad_share: float
) -> None:
    """Check at the end of a source that not too many of its rows were bad.

    Args:
        where: The source.
        good: Number of good rows.
        bad: Number of bad rows.
        messages: Errors of the first bad rows; five of them are shown.
        max_bad_share: Largest share of bad rows, 0 to 1; rounded up to whole rows, so that one bad
            row of a small file can be skipped.

    Raises:
        RecordError: The share is larger, or there is no good row.
    """
    if good + bad == 0:
        raise RecordError(f"{where}: there must be at least one row, got none. Add rows.")
    if bad > math.ceil(max_bad_share * (good + bad)) or not good:
        raise RecordError(
            f"{where}: at most a share of {max_bad_share:g} of the rows may be bad, got "
            f"{bad} of {good + bad}. Correct them or raise data.max_bad_share. The first:",
            messages[:5],
        )
