"""Read the rows of a data file: JSON Lines, JSON, CSV, TSV (each also .gz or .zst) and Parquet.

Rows come one after the other, each with its place in the file. A row that cannot be read comes with
its fault, and the caller decides whether to stop; a damaged file is an error here. The digest of a
file takes a second per gigabyte. Memory holds a few rows, one row group of a Parquet file, or a
whole .json file if it is a list.
"""

import codecs
import csv
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any

from tell_lightning.errors import TellError

ADVICE = "Correct or remove the row, or set data.on_bad_rows: skip."
_BOM = b"\xef\xbb\xbf"
_QUOTED_HEADER = re.compile(r'"[^"\t]*"(\t"[^"\t]*")*')
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
    meter. ``quoting`` says how quotation marks are read, where the rows depend on it.
    """

    name: str
    where: str
    sha256: str
    read: Callable[[Meter], Iterator[RawRow]]
    quoting: str = ""


def cut(value: object) -> str:
    """Show a value in an error: at most 80 characters of its repr."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_file(path: Path, quoted: bool | None = None) -> RowFile:
    """Digest a file and choose the parser by its extension.

    Args:
        path: The file.
        quoted: Whether fields of a table may be enclosed in quotation marks; None: those of a .csv
            file may, those of a .tsv file if all names in its header are.

    Raises:
        RecordError: The file is missing or of an unknown format. While the rows are read: the file
            is empty, is damaged, or has changed since it was digested.
    """
    bare = path.with_suffix("") if path.suffix.lower() in {".gz", ".zst"} else path
    suffix = bare.suffix.lower()
    parse = _PARSERS.get(suffix)
    if delimiter := _DELIMITERS.get(suffix):
        in_quotes = True if quoted is None and suffix == ".csv" else quoted
        parse = partial(_table, delimiter=delimiter, quoted=in_quotes)
    elif quoted is not None:
        raise RecordError(
            f"{path}: quoted has no meaning for this file, got {quoted}. Leave it out."
        )
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

    by_header = "by header" if suffix == ".tsv" and quoted is None else ""
    quoting = "none" if quoted is False else by_header
    return RowFile(path.name, str(path), sha256, read, quoting)


def _stamp(file: IO[bytes]) -> tuple[int, int, int]:
    """Return numbers that change when a file is written or replaced."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


class KeyTwiceError(ValueError):
    """A JSON object with the same key twice; Python would keep the last value."""


def parse_json(text: str) -> Any:
    """Parse the JSON of a user.

    Raises:
        KeyTwiceError: An object has a key twice.
        ValueError: The text is no JSON.
        RecursionError: It is nested too deeply.

    >>> parse_json('{"prompt": 1}')
    {'prompt': 1}
    """
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise KeyTwiceError(
            f"a key must be given once in an object, got {cut(twice)} twice in {cut(pairs)}"
        )
    return values


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
            if start and _is_utf16(line):
                raise RecordError(
                    f"{path}: text must be UTF-8, got UTF-16 or UTF-32. Save the file as UTF-8."
                )
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


def _is_utf16(start: bytes) -> bool:
    """Say whether a text has a byte order mark of UTF-16 or UTF-32, or begins as their ASCII."""
    return start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in start[:4]


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
        return RawRow(where, number, parse_json(line.decode("utf-8")))
    except UnicodeDecodeError as error:
        return RawRow(where, number, fault=_not_utf8(line[error.start]))
    except KeyTwiceError as error:
        return RawRow(where, number, fault=f"{error}. {ADVICE}")
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
        rows = parse_json(b"".join([*start, *lines]).decode("utf-8"))
    except KeyTwiceError as error:
        raise RecordError(f"{path}: {error}. Correct the object.") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{path}: a .json file must be a list of objects, or one object per line, "
            f"got: {error}. Write it again, or rename it to .jsonl to skip single lines."
        ) from error
    for number, row in enumerate(rows, start=1):
        meter.share = number / len(rows)
        yield RawRow(f"{path}:row {number}", number, row)


def _table(
    file: IO[bytes], path: Path, meter: Meter, *, delimiter: str, quoted: bool | None
) -> Iterator[RawRow]:
    lines = (line.decode("utf-8", errors="surrogateescape") for line in _lines(file, path, meter))
    first = next(lines, "")
    in_quotes = bool(_QUOTED_HEADER.fullmatch(first.rstrip())) if quoted is None else quoted
    reader = partial(
        csv.reader,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if in_quotes else csv.QUOTE_NONE,
        strict=True,
    )
    header: list[str] = []
    for number, values in _fields(chain([first], lines), reader):
        where = f"{path}:{number}"
        if not header:
            header = _header(values, where, delimiter)
        elif isinstance(values, csv.Error):
            fault = f"quotes must be closed and doubled inside a field, got: {values}. {ADVICE}"
            yield RawRow(where, number, fault=fault)
        elif values:
            unsure = quoted is None and not in_quotes
            yield _table_row(where, number, header, values, unsure=unsure)


def _fields(
    lines: Iterator[str], reader: Callable[[Iterable[str]], Iterator[list[str]]]
) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield for each row the number of its first line, and its fields or its fault.

    Of a row that cannot be read only the first line is left out: a quotation mark that is never
    closed would otherwise take all lines that follow.
    """
    number = 1
    again: deque[str] = deque()
    taken: list[str] = []

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(lines, None)) is not None:
            taken.append(line)
            yield line

    rows = reader(feed())
    while True:
        taken.clear()
        try:
            values = _next_values(rows)
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            rows = reader(feed())
            yield number, error
            number += 1
            continue
        if values is None:
            return
        yield number, values
        number += len(taken)


def _next_values(rows: Iterator[list[str]]) -> list[str] | None:
    """Return the fields of the next row: [] for an empty line, None at the end of the file."""
    old_limit = csv.field_size_limit(_LONGEST_CSV_FIELD)
    try:
        return next(rows, None)
    finally:
        csv.field_size_limit(old_limit)


def _header(names: list[str] | csv.Error, where: str, delimiter: str) -> list[str]:
    """Check the names of the columns; an empty line has none.

    Raises:
        RecordError: They cannot be read, are separated by something else, or two are equal.
    """
    if isinstance(names, csv.Error):
        raise RecordError(
            f"{where}: the header must close its quotes, got: {names}. Correct the first line."
        )
    for mark in ("\t", ";", ","):
        if len(names) == 1 and mark in names[0]:
            raise RecordError(
                f"{where}: columns must be separated by {delimiter!r}, as the name of the file "
                f"says, got {mark!r} in {cut(names[0])}. Save the file with {delimiter!r}, or "
                "rename it: .csv has commas, .tsv has tabs."
            )
    _check_columns(names, where)
    return names


def _check_columns(names: Sequence[str], where: str) -> None:
    """Check that no two columns have the same name.

    Raises:
        RecordError: Two of them have.
    """
    if len(set(names)) != len(names):
        raise RecordError(
            f"{where}: each column needs a name of its own, got {cut(list(names))}. "
            "Rename the columns."
        )


def _table_row(
    where: str, number: int, header: list[str], values: list[str], *, unsure: bool
) -> RawRow:
    """Check the fields of a row.

    Args:
        where: File and line.
        number: Number of the row.
        header: The names of the columns.
        values: The fields.
        unsure: Whether quotation marks are read as text although nobody has said so.
    """
    if len(values) != len(header):
        fault = f"a row must have {len(header)} fields as the header, got {len(values)}. {ADVICE}"
        return RawRow(where, number, fault=fault)
    try:
        "".join(values).encode("utf-8")
    except UnicodeEncodeError as error:
        return RawRow(where, number, fault=_not_utf8(ord(error.object[error.start]) - 0xDC00))
    if in_quotes := [value for value in values if unsure and _looks_quoted(value)]:
        fault = (
            "it must be clear whether quotation marks belong to the text of a .tsv file, got "
            f"{cut(in_quotes[0])}. Write {{path: FILE, quoted: true}} in place of FILE if they "
            "only enclose fields, quoted: false if they are text."
        )
        return RawRow(where, number, fault=fault)
    return RawRow(where, number, dict(zip(header, values, strict=True)))


def _looks_quoted(field: str) -> bool:
    """Say whether a field is enclosed in quotation marks and has doubled ones inside."""
    inside = field[1:-1]
    return (
        len(field) > 2
        and field[0] == field[-1] == '"'
        and '""' in inside
        and '"' not in inside.replace('""', "")
    )


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
        _check_columns(table.schema_arrow.names, str(path))
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
    ".parquet": _parquet,
}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
