"""Hugging Face data sets to raw rows: folders of ``save_to_disk`` and sets of the hub.

Enters: a folder, or a hub id with its revision. Leaves: raw rows, one by one from a memory-mapped
file, and a digest made of revision and fingerprint. Costs a second for the import of ``datasets``,
which is why it happens inside.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tell_lightning.data.formats import Meter, RawRow, RecordError, RowFile


def read_folder(folder: Path, split: str | None) -> RowFile:
    """Read a folder that ``save_to_disk`` wrote.

    Raises:
        RecordError: The folder is none, is damaged, or needs a split.
    """
    import datasets
    import pyarrow

    try:
        found = datasets.load_from_disk(str(folder))
    except (
        OSError,
        ValueError,
        pyarrow.ArrowException,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise RecordError(
            f"{folder}: a folder must be a data set that save_to_disk wrote, got: {_words(error)}. "
            "Name a file in it, or save the data set again."
        ) from error
    chosen = _choose(found, split, str(folder))
    return _source(chosen, name=folder.name, where=str(folder), split=split, revision="")


def read_hub(hub: str, config: str | None, split: str | None, revision: str) -> RowFile:
    """Read a data set of the hub, or of the local cache where there is no network.

    Raises:
        RecordError: It cannot be loaded, or needs a split.
    """
    import datasets

    where = f"{hub}@{revision[:12]}"
    try:
        found = datasets.load_dataset(hub, config, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RecordError(
            f"{where}: the data set must be on the hub or in the cache, got: {error}. Check hub, "
            "config, split, revision and the network, or save it with save_to_disk and set path."
        ) from error
    chosen = _choose(found, split, where)
    return _source(chosen, name=hub.split("/")[-1], where=where, split=split, revision=revision)


def _words(error: Exception) -> str:
    return str(error).rstrip(". ")


def _choose(found: Any, split: str | None, where: str) -> Any:
    if isinstance(found, dict):  # a DatasetDict
        if split not in found:
            got = "none" if split is None else repr(split)
            raise RecordError(
                f"{where}: split must be one of {', '.join(found)}, got {got}. Set split."
            )
        return found[split]
    if split is not None and found.split is not None and not split.startswith(str(found.split)):
        raise RecordError(
            f"{where}: split must be {found.split}, the only one, got {split!r}. Leave it out."
        )
    return found


def _source(found: Any, *, name: str, where: str, split: str | None, revision: str) -> RowFile:
    key = "\n".join((revision, split or "", found._fingerprint))
    where = where if split is None else f"{where}/{split}"
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    return RowFile(name, where, sha256, partial(_rows, found, where))


def _rows(found: Any, where: str, meter: Meter) -> Iterator[RawRow]:
    for number, row in enumerate(found.with_format(None), start=1):
        meter.share = number / len(found)
        yield RawRow(f"{where}:row {number}", number, row)
