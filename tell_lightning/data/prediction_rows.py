"""Rows to answer: from a file, or from a stream of lines, one by one.

A file is read twice: first all its rows are checked, then they are answered. Rows are not kept in
memory, so a file may be of any size. A pass over 9,000 rows takes a fifth of a second.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tell_lightning.data.anchors import Anchor, anchor_record, carries_anchor
from tell_lightning.data.formats import Meter, RecordError, cut
from tell_lightning.data.ids import Ids
from tell_lightning.data.reading import (
    Location,
    check_bad_share,
    good_records,
    iterate_records,
    open_rows,
)
from tell_lightning.data.records import Fields, Record, record_from_line
from tell_lightning.data.variants import Variant
from tell_lightning.errors import TellError

STDIN = "standard input"


@dataclass(frozen=True)
class CheckedRows:
    """The good rows of a source; each iteration reads the source again.

    Attributes:
        read: Reads the source: a record or an error for each row.
        count: Number of good rows.
        bad: A message for each bad row.
    """

    read: Callable[[], Iterator[Record | TellError]]
    count: int
    bad: tuple[str, ...]

    def __iter__(self) -> Iterator[Record]:
        """Read the good rows."""
        return good_records(self.read(), [], "skip")


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
        rows: A path, or another place.
        fields: The names of the fields of a row; the response may be missing.
        root: Folder that a relative path starts from.
        examine: Called with each record; a TellError makes the row a bad one.
        on_bad_rows: error: the first bad row is raised; skip: bad rows are left out and listed.
        max_bad_share: As in `check_bad_share`.

    Raises:
        RecordError: The rows cannot be read, or too many of them are bad.
        TellError: `examine` refused the first bad row.
    """
    source = open_rows(rows, fields=fields, root=root, need_response=False)

    def read() -> Iterator[Record | TellError]:
        return iterate_records(source, fields, Ids(), Meter(), need_response=False, examine=examine)

    bad: list[str] = []
    count = sum(1 for _ in good_records(read(), bad, on_bad_rows))
    check_bad_share(source.where, count, len(bad), bad, max_bad_share)
    return CheckedRows(read, count, tuple(bad))


def read_lines(
    stream: Iterable[bytes], fields: Fields, examine: Callable[[Record], object]
) -> Iterator[Record | TellError]:
    """Yield a record or an error for each line, as soon as the line arrives.

    Args:
        stream: UTF-8 lines: a JSON row if the line starts with ``{``, else a prompt. Empty lines
            are skipped.
        fields: The names of the fields of a JSON row.
        examine: Called with each record; a TellError makes the row a bad one.
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
        except TellError as error:
            yield error
        else:
            yield record


def settle_anchor(
    record: Record, anchor: Anchor, variant: Variant, *, free: bool
) -> tuple[Record, Anchor]:
    """Put the anchor on a row or take it off, whether or not the row already carries it.

    Args:
        record: The row as read.
        anchor: The anchor of its task.
        variant: The form of the anchor that the prompt will carry.
        free: Whether the row may differ from what ``anchor.present`` says. True for a row that a
            user gives: new text, or a row of a file that carries the anchor. Rows of a task's own
            files are returned as they are, to be checked as in training.

    Returns:
        The row, and the anchor; ``present`` says whether this row carries it now.
    """
    if not free:
        return record, anchor
    here = replace(anchor, present=carries_anchor(record, anchor))
    plain = anchor_record(record, here, anchored=variant == "given", check_reference=False)
    settled = replace(record, turns=plain.turns)
    return settled, replace(anchor, present=variant == "given")
