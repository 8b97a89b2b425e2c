"""Prepared tokens on disk: memory-mapped Arrow files in a folder named by a digest of its inputs.

The key covers the file's bytes, the anchor, the template, the tokenizer and the length rule, so a
changed input gives a new folder. One process writes a draft beside the folder, chunk by chunk, and
others wait. If the process dies, the next one continues after the last complete chunk.

    tokens-<key>/rows-000000.arrow, rows-000001.arrow, ...    input_ids, supervised, id, where
                 lengths.npy, report.json
    .tokens-<key>/000000.json, 000001.json, ...               the draft: facts about each chunk
                  000000.npy, ...                             and its ids, if a field names them
                  ready/                                      becomes the folder
    .tokens-<key>.lock
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tell_lightning.data.ids import IdTable
from tell_lightning.data.tokens import Lengths
from tell_lightning.errors import TellError
from tell_lightning.files import as_json, in_turn

SCHEMA = "tokens-v5"
LENGTHS = "lengths.npy"
REPORT = "report.json"


class Prepared(NamedTuple):
    """A prepared source; `rows` and `lengths` are memory-mapped.

    Attributes:
        rows: A `datasets.Dataset` with input_ids, supervised, id and where.
        lengths: Tokens of every row.
        report: Counts of the rows read and left out.
    """

    rows: Any
    lengths: Lengths
    report: dict[str, Any]


def content_key(parts: Mapping[str, object]) -> str:
    """Digest plain values to 32 hex digits; the order of the parts does not matter."""
    text = json.dumps({"schema": SCHEMA, **parts}, sort_keys=True, ensure_ascii=False)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest the files that a tokenizer is saved as; the chat template is one of them."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        digest = blake2b(digest_size=16)
        for path in sorted(Path(folder).iterdir()):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


class Draft:
    """The rows of a source while they are written; complete chunks outlive the process."""

    def __init__(self, folder: Path) -> None:
        """Continue after the complete chunks in a folder."""
        self.folder = folder
        self.ready = folder / "ready"
        self.ready.mkdir(parents=True, exist_ok=True)
        self.chunks = 0
        while self._path(".json").is_file() and self._rows_path().is_file():
            self.chunks += 1
        for path in _arrow_files(self.ready)[self.chunks :]:
            path.unlink()  # an incomplete chunk: its facts are missing

    def facts(self) -> Iterator[dict[str, Any]]:
        """Read the facts of each complete chunk."""
        for chunk in range(self.chunks):
            yield json.loads(self._path(".json", chunk).read_text(encoding="utf-8"))

    def ids(self) -> Iterator[IdTable]:
        """Read the ids of each complete chunk that has some."""
        paths = (self._path(".npy", chunk) for chunk in range(self.chunks))
        yield from (np.load(path) for path in paths if path.is_file())

    def add(
        self, batches: Sequence[Any], facts: Mapping[str, Any], ids: IdTable | None = None
    ) -> None:
        """Write a chunk. Its facts are written last, so they mark the chunk as complete.

        Args:
            batches: The rows, from `record_batch`; may be empty.
            facts: Plain values, for a process that continues from here.
            ids: The ids in the rows, for the same purpose.
        """
        import pyarrow

        table = pyarrow.Table.from_batches(batches, schema=_schema()).combine_chunks()
        with (
            self._written(self._rows_path()) as path,
            pyarrow.OSFile(str(path), "wb") as sink,
            pyarrow.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)
        if ids is not None:
            with self._written(self._path(".npy")) as path, path.open("wb") as file:
                np.save(file, ids)
        with self._written(self._path(".json")) as path:
            path.write_text(as_json(facts), encoding="utf-8")
        self.chunks += 1

    def id_digest(self) -> str:
        """Digest the ids of all rows. They say which rows of the file are left."""
        digest = blake2b(digest_size=16)
        for path in _arrow_files(self.ready):
            ids = _table(path)["id"].to_pylist()
            digest.update("".join(f"{id}\n" for id in ids).encode())
        return digest.hexdigest()

    def finish(self, report: Mapping[str, Any]) -> None:
        """Write the lengths of all rows, and the report."""
        tables = [_table(path) for path in _arrow_files(self.ready)]
        shape = (2, sum(len(table) for table in tables))
        lengths = np.lib.format.open_memmap(
            self.ready / LENGTHS, mode="w+", dtype=np.int32, shape=shape
        )
        start = 0
        for table in tables:
            lengths[:, start : start + len(table)] = _lengths(table)
            start += len(table)
        lengths.flush()
        text = as_json(report, indent=2) + "\n"
        (self.ready / REPORT).write_text(text, encoding="utf-8")

    def _path(self, suffix: str, chunk: int | None = None) -> Path:
        """Return the path of a file about a chunk; None: the next chunk."""
        return self.folder / f"{self.chunks if chunk is None else chunk:06}{suffix}"

    def _rows_path(self) -> Path:
        return self.ready / f"rows-{self.chunks:06}.arrow"

    @contextmanager
    def _written(self, path: Path) -> Iterator[Path]:
        """Yield a path to write to; afterwards the complete file is moved to `path`."""
        unfinished = self.folder / "unfinished"
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)


def record_batch(columns: Mapping[str, Sequence[Any]]) -> Any:
    """Make an Arrow batch of the columns input_ids, supervised, id and where."""
    import pyarrow

    ends = np.cumsum([0, *map(len, columns["input_ids"])], dtype=np.int32)
    lists = [
        np.fromiter(chain.from_iterable(columns[name]), kind, ends[-1])
        for name, kind in (("input_ids", np.int32), ("supervised", np.bool_))
    ]
    arrays = [pyarrow.ListArray.from_arrays(ends, pyarrow.array(values)) for values in lists]
    arrays += [pyarrow.array(columns[name], pyarrow.string()) for name in ("id", "where")]
    return pyarrow.RecordBatch.from_arrays(arrays, schema=_schema())


def prepare(folder: Path, build: Callable[[Draft], Mapping[str, Any]]) -> None:
    """Write rows and report into a folder, unless it exists. One process writes, others wait.

    Args:
        folder: The folder; its name holds the content key.
        build: Adds the chunks that a draft lacks and returns the report; only called if the folder
            is missing.

    Raises:
        TellError: `build` raised it. The draft is deleted then: a corrected input has another key.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}")
    lock = folder.with_name(f".{folder.name}.lock")
    with in_turn(lock, "waiting for another process that prepares the same source"):
        try:
            if not folder.is_dir():
                made = Draft(draft)
                made.finish(build(made))
                os.replace(made.ready, folder)
        except TellError:
            shutil.rmtree(draft)
            raise
        shutil.rmtree(draft, ignore_errors=True)


def load(folder: Path) -> Prepared:
    """Open a folder that `prepare` wrote."""
    from datasets import Dataset, concatenate_datasets

    report: dict[str, Any] = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    tokens, label_tokens = np.load(folder / LENGTHS, mmap_mode="r")
    parts = [Dataset.from_file(str(path)) for path in _arrow_files(folder)]
    return Prepared(concatenate_datasets(parts), Lengths(tokens, label_tokens), report)


def _arrow_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*.arrow"))


def _table(path: Path) -> Any:
    import pyarrow

    with pyarrow.memory_map(str(path)) as file:
        return pyarrow.ipc.open_stream(file).read_all()


@cache
def _schema() -> Any:
    from datasets import Features, List, Value

    features = Features(
        {
            "input_ids": List(Value("int32")),
            "supervised": List(Value("bool")),
            "id": Value("string"),
            "where": Value("string"),
        }
    )
    return features.arrow_schema


def _lengths(table: Any) -> NDArray[np.int32]:
    """Count the tokens and the supervised tokens of each row: [2, rows]."""
    if not len(table):
        return np.empty((2, 0), dtype=np.int32)
    supervised = table["supervised"].combine_chunks()
    ends = supervised.offsets.to_numpy()
    counts = np.concatenate([[0], np.cumsum(supervised.values.to_numpy(zero_copy_only=False))])
    return np.stack([np.diff(ends), np.diff(counts[ends])]).astype(np.int32)
