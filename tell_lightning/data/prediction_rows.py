"""Rows to answer: those of a file, all checked before the first is answered, or lines as they come.

Enters: a path or a stream, which field is what, and the anchor of the task. Leaves: records, one by
one. A file is read twice, to check it and to answer it, and its rows are not kept: it may be of any
size. Pure text; a pass over 9,000 rows takes a fifth of a second.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tell_lightning.data.anchors import Anchor, AnchorError, anchor_record, carries_anchor
from tell_lightning.data.formats import Meter, RecordError, RowFile, cut
from tell_lightning.data.ids import Ids
from tell_lightning.data.reading import Location, check_bad_share, iterate_records, open_rows
from tell_lightning.data.records import Fields, Record, record_from_line
from tell_lightning.data.variants import Variant

STDIN = "standard input"


@dataclass(frozen=True)
class CheckedRows:
    """The good rows of a source; each walk over them reads them again.

    Attributes:
        source: Where they are.
        fields: Which field is what.
        count: How many there are.
        bad: Why each of the others was left out.
        examine: Raises where a row that can be read is bad all the same.
    """

    source: RowFile
    fields: Fields
    count: int
    bad: tuple[str, ...]
    examine: Callable[[Record], object]

    def __iter__(self) -> Iterator[Record]:
        """Read them."""
        for row in _read(self.source, self.fields, self.examine):
            if isinstance(row, Record):
                yield row


def check_rows(
    rows: Location,
    *,
    fields: Fields,
    root: Path,
    examine: Callable[[Record], object],
    on_bad_rows: Literal["error", "skip"],
    max_bad_share: float,
) -> CheckedRows:
    """Open a file, folder or hub data set, and check every row of it.

    Args:
        rows: A path, or path or hub with what belongs to it.
        fields: Which field of a row is what; the response may be missing.
        root: Folder that a relative path starts from.
        examine: Called with each row that can be read; an AnchorError makes it a bad one.
        on_bad_rows: Stop at the first bad row, or leave bad rows out and list them.
        max_bad_share: With skip, the share of bad rows, 0 to 1, above which to stop all the same.

    Raises:
        RecordError: The rows cannot be read, or too many of them are bad.
        AnchorError: The first bad row is one of those.
    """
    source = open_rows(rows, fields=fields, root=root, need_response=False)
    count, bad = 0, []
    for row in _read(source, fields, examine):
        if isinstance(row, Record):
            count += 1
        elif on_bad_rows == "error":
            raise row
        else:
            bad.append(str(row))
    check_bad_share(source.where, count, len(bad), bad, max_bad_share)
    return CheckedRows(source, fields, count, tuple(bad), examine)


def read_lines(
    stream: Iterable[bytes], fields: Fields, examine: Callable[[Record], object]
) -> Iterator[Record | RecordError | AnchorError]:
    """Yield a record, or what is wrong, for each line, as soon as it is there.

    Args:
        stream: The lines: a JSON row where one starts with ``{``, else a prompt; UTF-8. Empty ones
            are passed over.
        fields: Which field of a JSON row is what.
        examine: Called with each row that can be read, to raise where more is wrong.
    """
    ids = Ids()
    for number, line in enumerate(stream, start=1):
        where = f"{STDIN}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if not text.strip():
                continue
            record = record_from_line(text, fields=fields, where=where, id=str(number))
            examine(record)
            first = ids.first(record.id, number)
            if first is not None:
                raise RecordError(
                    f"{where}: an id must be given once, got {cut(record.id)} as in "
                    f"{STDIN}:{first}. Give the row another id."
                )
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            yield RecordError(
                f"{where}: text must be UTF-8, got the byte 0x{byte:02x}. Convert it."
            )
        except (RecordError, AnchorError) as error:
            yield error
        else:
            yield record


def settle_anchor(
    record: Record, anchor: Anchor, variant: Variant, *, free: bool
) -> tuple[Record, Anchor]:
    """Bring a row into the form in which the anchor's own data are.

    Args:
        record: The row as read.
        anchor: The anchor of its task.
        variant: Which form of it the prompt will carry.
        free: Whether the row may carry the anchor or not, whatever ``anchor.present`` says. What a
            user gives to answer may be new text for a task whose files carry the anchor, or a row
            of such a file; what a task's own files hold is checked as in training.

    Returns:
        The row, and the anchor to be put on it, kept or taken off.
    """
    if not free:
        return record, anchor
    here = replace(anchor, present=carries_anchor(record, anchor))
    plain = anchor_record(record, here, anchored=variant == "given", check_reference=False)
    settled = Record(record.id, record.where, plain.turns, record.row)
    return settled, replace(anchor, present=variant == "given")


def _read(
    source: RowFile, fields: Fields, examine: Callable[[Record], object]
) -> Iterator[Record | RecordError | AnchorError]:
    for row in iterate_records(source, fields, Ids(), Meter(), need_response=False):
        try:
            if isinstance(row, Record):
                examine(row)
        except AnchorError as error:
            yield error
        else:
            yield row
