"""Read the rows of a Hugging Face data set: a folder of ``save_to_disk``, or a set of the hub.

Without a network nothing waits for the hub: what is in its local cache is used.

Rows come one by one from a memory-mapped file. The digest is made of revision and fingerprint.
``datasets`` takes a second to import, so the functions import it themselves.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tell_lightning.data.formats import Meter, RawRow, RecordError, RowFile

PATIENCE = 5.0
"""Seconds in which the hub must answer."""


def use_cache_without_network() -> None:
    """Let Hugging Face's libraries use their local cache alone if the hub does not answer.

    They would retry for a minute before they do so by themselves.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # of httpx or httpx2: it depends on the version of huggingface_hub
        os.environ["HF_HUB_OFFLINE"] = "1"  # for libraries and processes that start later
        constants.HF_HUB_OFFLINE = True
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True


def read_folder(folder: Path, split: str | None) -> RowFile:
    """Read a folder that ``save_to_disk`` wrote.

    Raises:
        RecordError: The folder is no data set, is damaged, or needs a split.
    """
    import datasets
    import pyarrow

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (
        OSError,
        ValueError,
        pyarrow.ArrowException,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise RecordError(
            f"{folder}: a folder must be a data set that save_to_disk wrote, got: "
            f"{str(error).rstrip('. ')}. Name a file in it, or save the data set again."
        ) from error
    return _source(loaded, name=folder.name, where=str(folder), split=split, revision="")


def read_hub(hub: str, config: str | None, split: str | None, revision: str) -> RowFile:
    """Read a data set of the hub, or of the local cache if there is no network.

    Raises:
        RecordError: The data set cannot be loaded, or needs a split.
    """
    use_cache_without_network()
    import datasets

    where = f"{hub}@{revision[:12]}"
    try:
        loaded = datasets.load_dataset(hub, config, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise RecordError(
            f"{where}: the data set must be on the hub or in the cache, got: {error}. Check hub, "
            "config, split, revision and the network, or save it with save_to_disk and set path."
        ) from error
    return _source(loaded, name=hub.split("/")[-1], where=where, split=split, revision=revision)


def _source(loaded: Any, *, name: str, where: str, split: str | None, revision: str) -> RowFile:
    dataset = _choose(loaded, split, where)
    key = "\n".join((revision, split or "", dataset._fingerprint))
    where = where if split is None else f"{where}/{split}"
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    return RowFile(name, where, sha256, partial(_rows, dataset, where))


def _choose(loaded: Any, split: str | None, where: str) -> Any:
    """Return the dataset of the split; ``loaded`` is a dataset or a dictionary of several."""
    if isinstance(loaded, dict):
        if split not in loaded:
            got = "none" if split is None else repr(split)
            raise RecordError(
                f"{where}: split must be one of {', '.join(loaded)}, got {got}. Set split."
            )
        return loaded[split]
    if split is not None and loaded.split is not None and not split.startswith(str(loaded.split)):
        raise RecordError(
            f"{where}: split must be {loaded.split}, the only one, got {split!r}. Leave it out."
        )
    return loaded


def _rows(dataset: Any, where: str, meter: Meter) -> Iterator[RawRow]:
    for number, row in enumerate(dataset.with_format(None), start=1):
        meter.share = number / len(dataset)
        yield RawRow(f"{where}:row {number}", number, row)
