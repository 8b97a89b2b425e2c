"""Reads what W&B wrote offline; its own reader of these files, in Python, went with version 0.27.

A file is a log of LevelDB's form: seven bytes of header, then blocks of 32 KiB of pieces, each with
its checksum, length and kind; a record is one whole piece, or a first, middle ones and a last.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK, PIECE = 7, 32 * 1024, 7
WHOLE, LAST = 1, 4


class OfflineRun:
    """What one offline folder of W&B holds."""

    def __init__(self, folder: Path) -> None:
        """Read the folder's one log."""
        (log,) = folder.glob("*.wandb")
        self.folder = folder
        self.records = list(read_records(log.read_bytes()))

    def of(self, kind: str) -> list[Any]:
        """Return the records of a kind."""
        return [getattr(r, kind) for r in self.records if r.WhichOneof("record_type") == kind]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows logged."""
        return [items(record.item) for record in self.of("history")]

    @property
    def summary(self) -> dict[str, Any]:
        """What stands beside the run in the end."""
        found: dict[str, Any] = {}
        for record in self.of("summary"):
            found |= items(record.update)
        return found

    @property
    def config(self) -> dict[str, Any]:
        """The configuration with what was added."""
        found = items(self.of("run")[0].config.update)
        for record in self.of("config"):
            found |= items(record.update)
        return found


def items(updates: Any) -> dict[str, Any]:
    """Return key and value of protobuf items; parts of a value come apart and are put together."""
    found: dict[str, Any] = {}
    for update in updates:
        *above, last = list(update.nested_key) or [update.key]
        place = found
        for key in above:
            place = place.setdefault(key, {})
        place[last] = json.loads(update.value_json)
    return found


def read_records(log: bytes) -> Iterator[Record]:
    """Walk through the records of a log."""
    assert log.startswith(b":W&B")
    place, found = HEADER, b""
    while place < len(log):
        left = BLOCK - place % BLOCK
        if left < PIECE:  # no room for a piece: padding
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", log, place)
        found += log[place + PIECE : place + PIECE + length]
        place += PIECE + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(found)
            found = b""
