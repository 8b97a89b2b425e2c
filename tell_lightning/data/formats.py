"""Read the rows of a data file: JSON Lines, JSON, CSV, TSV (each also .gz or .zst) and Parquet.

Rows come one after the other, each with its place in the file. A row that cannot be read comes with
its fault, and the caller decides whether to stop; a damaged file is an error here. The digest of a
file takes a second per gigabyte. Memory holds a few rows, one row group of a Parquet file, or a
whole .json file if it is a list.
"""

import csv
import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

from tell_lightning.errors import TellError

ADVICE = "Correct or remove the row, or set data.on_bad_rows: skip."
_BOM = b"\xef\xbb\xbf"
_LONGEST_CSV_FIELD = 2**31 - 1  # characters; the csv module stops at 131,072 by default


class RecordError(TellError):
    """A file or row that cannot be read as a record."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row before its fields are checked: ``row``, or the ``fault`` that makes it unreadable."""

    where: str
    number: int
    row: object = None
    fault: str = ""


@dataclass(slots=True)
class Meter:
    """The share of a source that has been read, 0 to 1."""

    share: float = 0.0


@dataclass(frozen=True, slots=True)
class RowFile:
    """One file or data set.

    Record ids begin with ``name``. Each call of ``read`` starts at the first row and updates the
    meter.
    """

    name: str
    where: str
    sha256: str
    read: Callable[[Meter], Iterator[RawRow]]


def cut(value: object) -> str:
    """Show a value in an error: at most 80 characters of its repr."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_file(path: Path) -> RowFile:
    """Digest a file and choose the parser by its extension.

    Raises:
        RecordError: The file is missing or of an unknown format. While the rows are read: the file
            is empty, is damaged, or has changed since it was digested.
    """
    bare = path.with_suffix("") if path.suffix.lower() in {".gz", ".zst"} else path
    parse = _PARSERS.get(bare.suffix.lower())
    if parse is None or (parse is _parquet and bare is not path):
        raise RecordError(
            f"{path}: the name of a data file must end in .jsonl, .ndjson, .json, .csv or .tsv "
            f"(each also with .gz or .zst) or .parquet, got {path.name!r}. Rename or convert it."
        )
    try:
        with path.open("rb") as file:
            stamp = _stamp(file)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecordError(
            f"{path}: the file must be readable, got {error.strerror}. Check its path and rights."
        ) from error

    def read(meter: Meter) -> Iterator[RawRow]:
        with path.open("rb") as file:
            yield from parse(file, path, meter)
        with path.open("rb") as file:
            if _stamp(file) != stamp:
                raise RecordError(
                    f"{path}: a file must not change while it is read, got a change. "
                    "Run the command again."
                )

    return RowFile(path.name, str(path), sha256, read)


def _stamp(file: IO[bytes]) -> tuple[int, int, int]:
    """Return numbers that change when a file is written or replaced."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def _lines(file: IO[bytes], path: Path, meter: Meter) -> Iterator[bytes]:
    """Yield the lines of a text file, unpacked, without a byte order mark.

    Only line feeds end a line: other separators, such as U+2028, may be in a JSON string.

    Raises:
        RecordError: The file is damaged, or holds white space alone.
    """
    size = os.fstat(file.fileno()).st_size
    packing = path.suffix.lower()
    start, empty = _BOM, True
    try:
        for line in _unpacked(file, packing):
            meter.share = file.tell() / size
            empty = empty and not line.removeprefix(start).strip()
            yield line.removeprefix(start)
            start = b""
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(
            f"{path}: a {packing} file must be complete and undamaged, got: {error}. "
            "Copy or compress it again."
        ) from error
    if empty:
        raise _no_rows(path)


def _unpacked(file: IO[bytes], packing: str) -> Iterable[bytes]:
    if packing == ".gz":
        return gzip.GzipFile(fileobj=file)
    if packing == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"))
    return file


def _no_rows(path: Path) -> RecordError:
    return RecordError(
        f"{path}: a data file must hold at least one row, got an empty file. Give another."
    )


def _json_lines(file: IO[bytes], path: Path, meter: Meter) -> Iterator[RawRow]:
    return _parse_lines(_lines(file, path, meter), path)


def _parse_lines(lines: Iterable[bytes], path: Path) -> Iterator[RawRow]:
    blank: list[tuple[int, bytes]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            blank.append((number, line))  # a fault only if another row follows
            continue
        for place in blank:
            yield _parse_line(path, *place)
        blank.clear()
        yield _parse_line(path, number, line)


def _parse_line(path: Path, number: int, line: bytes) -> RawRow:
    where = f"{path}:{number}"
    try:
        return RawRow(where, number, json.loads(line.decode("utf-8")))
    except UnicodeDecodeError as error:
        return RawRow(where, number, fault=_not_utf8(line[error.start]))
    except (ValueError, RecursionError) as error:
        text = line.decode("utf-8").rstrip("\r\n")
        fault = f"a line must be valid JSON, got {cut(text)}: {error}. {ADVICE}"
        return RawRow(where, number, fault=fault)


def _json(file: IO[bytes], path: Path, meter: Meter) -> Iterator[RawRow]:
    lines = _lines(file, path, meter)
    start = []
    for line in lines:
        start.append(line)
        if line.strip():
            break
    if not line.lstrip().startswith(b"["):
        yield from _parse_lines(chain(start, lines), path)
        return
    try:
        rows = json.loads(b"".join([*start, *lines]).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{path}: a .json file must be a list of objects, or one object per line, "
            f"got: {error}. Write it again, or rename it to .jsonl to skip single lines."
        ) from error
    for number, row in enumerate(rows, start=1):
        meter.share = number / len(rows)
        yield RawRow(f"{path}:row {number}", number, row)


def _table(file: IO[bytes], path: Path, meter: Meter, *, delimiter: str) -> Iterator[RawRow]:
    lines = (line.decode("utf-8", errors="surrogateescape") for line in _lines(file, path, meter))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        where = f"{path}:{number}"
        values = _next_values(reader, where)
        if values is None:
            return
        if values and not header:
            header = values
            if len(set(header)) != len(header):
                raise RecordError(
                    f"{where}: each column needs a name of its own, got {cut(header)}. "
                    "Rename the columns."
                )
        elif values:
            yield _table_row(where, number, header, values)


def _next_values(reader: Iterator[list[str]], where: str) -> list[str] | None:
    """Return the fields of the next row: [] for an empty line, None at the end of the file."""
    old_limit = csv.field_size_limit(_LONGEST_CSV_FIELD)
    try:
        return next(reader, None)
    except csv.Error as error:
        raise RecordError(
            f"{where}: quotes must be closed and doubled inside a field, got: {error}. "
            "Correct the row or write the file again."
        ) from error
    finally:
        csv.field_size_limit(old_limit)


def _table_row(where: str, number: int, header: list[str], values: list[str]) -> RawRow:
    if len(values) != len(header):
        fault = f"a row must have {len(header)} fields as the header, got {len(values)}. {ADVICE}"
        return RawRow(where, number, fault=fault)
    try:
        "".join(values).encode("utf-8")
    except UnicodeEncodeError as error:
        return RawRow(where, number, fault=_not_utf8(ord(error.object[error.start]) - 0xDC00))
    return RawRow(where, number, dict(zip(header, values, strict=True)))


def _not_utf8(byte: int) -> str:
    return (
        f"text must be UTF-8, got the byte 0x{byte:02x}. Save the file as UTF-8, "
        "or set data.on_bad_rows: skip."
    )


def _parquet(file: IO[bytes], path: Path, meter: Meter) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    if not os.fstat(file.fileno()).st_size:
        raise _no_rows(path)
    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(file)
        for batch in table.iter_batches(batch_size=1024):
            meter.share = (number + len(batch)) / table.metadata.num_rows
            for row in batch.to_pylist():
                number += 1
                yield RawRow(f"{path}:row {number}", number, row)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().rstrip(".")
        raise RecordError(
            f"{path}: a .parquet file must be complete and undamaged, got: {reason}. "
            "Copy or write it again."
        ) from error


_PARSERS: dict[str, Callable[[IO[bytes], Path, Meter], Iterator[RawRow]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": partial(_table, delimiter=","),
    ".tsv": partial(_table, delimiter="\t"),
    ".parquet": _parquet,
}
