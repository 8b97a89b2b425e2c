"""File bytes to raw rows: JSON Lines, JSON, CSV, TSV (each also .gz, .zst) and Parquet.

Enters: a path. Leaves: one raw row after the other, each with its place in the file, and the
SHA-256 of the bytes on the disk. A row that cannot be read leaves with its fault instead of its
fields, so that the caller decides whether to stop; a file that cannot be read as a whole is an
error here. The file is held in memory once; 7 MB of JSON Lines take a tenth of a second.
"""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tell_lightning.errors import TellError

MEND = "Correct or remove the row, or set data.on_bad_rows: skip."
_BOM = b"\xef\xbb\xbf"
_LONGEST_CSV_FIELD = 2**31 - 1  # characters; the csv module stops at 131,072 by default


class RecordError(TellError):
    """A file or row that cannot be read as a record."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row before its fields are looked at: ``row``, or the ``fault`` that there is none."""

    where: str
    number: int
    row: object = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """The raw rows of one file or data set; ``name`` is the first half of the record ids."""

    name: str
    where: str
    sha256: str
    rows: Iterable[RawRow]


def cut(value: object) -> str:
    """Show a value in an error: its repr, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_file(path: Path) -> Source:
    """Read the rows of a file; its extension names the format.

    Raises:
        RecordError: The file is missing, empty, damaged, or of an unknown format.
    """
    bare = path.with_suffix("") if path.suffix.lower() in {".gz", ".zst"} else path
    parse = _PARSERS.get(bare.suffix.lower())
    if parse is None or (parse is _parquet and bare is not path):
        raise RecordError(
            f"{path}: the name of a data file must end in .jsonl, .ndjson, .json, .csv or .tsv "
            f"(each also with .gz or .zst) or .parquet, got {path.name!r}. Rename or convert it."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(
            f"{path}: the file must be readable, got {error.strerror}. Check it."
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    content = _unpack(data, path).removeprefix(_BOM)
    if not content.strip():
        raise RecordError(
            f"{path}: a data file must hold at least one row, got an empty file. Write it again."
        )
    return Source(path.name, str(path), sha256, parse(content, path))


def _unpack(data: bytes, path: Path) -> bytes:
    packing = path.suffix.lower()
    if not data or packing not in {".gz", ".zst"}:
        return data
    try:
        return gzip.decompress(data) if packing == ".gz" else _unpack_zst(data)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(
            f"{path}: a {packing} file must be complete and undamaged, got: {error}. "
            "Copy or compress it again."
        ) from error


def _unpack_zst(data: bytes) -> bytes:
    import zstandard

    pieces = []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            pieces.append(frame.decompress(data))
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error
        if not frame.eof:
            raise EOFError("the compressed data end too early")
        data = frame.unused_data
    return b"".join(pieces)


def _json_lines(data: bytes, path: Path) -> Iterator[RawRow]:
    # Split on "\n" alone: U+2028 and its like are legal inside a JSON string.
    for number, line in enumerate(data.rstrip().split(b"\n"), start=1):
        where = f"{path}:{number}"
        try:
            yield RawRow(where, number, json.loads(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            yield RawRow(where, number, fault=_not_utf8(line[error.start]))
        except (ValueError, RecursionError) as error:
            text = line.decode("utf-8").rstrip("\r")
            yield RawRow(
                where,
                number,
                fault=f"a line must be valid JSON, got {cut(text)}: {error}. {MEND}",
            )


def _json(data: bytes, path: Path) -> Iterator[RawRow]:
    if not data.lstrip().startswith(b"["):
        yield from _json_lines(data, path)
        return
    try:
        rows = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{path}: a .json file must be a list of objects, or one object per line, "
            f"got: {error}. Write it again, or rename it to .jsonl to skip single lines."
        ) from error
    for number, row in enumerate(rows, start=1):
        yield RawRow(f"{path}:row {number}", number, row)


def _table(data: bytes, path: Path, delimiter: str) -> Iterator[RawRow]:
    text = data.decode("utf-8", errors="surrogateescape")
    lines = (line + "\n" for line in text.split("\n"))
    old_limit = csv.field_size_limit(_LONGEST_CSV_FIELD)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    numbered, start = [], 1
    try:
        for values in reader:
            numbered.append((start, values))
            start = reader.line_num + 1
    except csv.Error as error:
        raise RecordError(
            f"{path}:{start}: quotes must be closed and doubled inside a field, got: {error}. "
            "Correct the row or write the file again."
        ) from error
    finally:
        csv.field_size_limit(old_limit)
    rows = [(number, values) for number, values in numbered if values]
    header = rows[0][1]
    if len(set(header)) != len(header):
        raise RecordError(
            f"{path}:{rows[0][0]}: each column needs a name of its own, got {cut(header)}. "
            "Rename the columns."
        )
    for number, values in rows[1:]:
        yield _table_row(f"{path}:{number}", number, header, values)


def _table_row(where: str, number: int, header: list[str], values: list[str]) -> RawRow:
    if len(values) != len(header):
        fault = f"a row must have {len(header)} fields as the header, got {len(values)}. {MEND}"
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


def _csv(data: bytes, path: Path) -> Iterator[RawRow]:
    return _table(data, path, ",")


def _tsv(data: bytes, path: Path) -> Iterator[RawRow]:
    return _table(data, path, "\t")


def _parquet(data: bytes, path: Path) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise RecordError(
            f"{path}: a .parquet file must be complete and undamaged, got: {error}. "
            "Copy or write it again."
        ) from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield RawRow(f"{path}:row {number}", number, row)


_PARSERS: dict[str, Callable[[bytes, Path], Iterator[RawRow]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
