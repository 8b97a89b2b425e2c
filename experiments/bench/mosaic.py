"""`mosaicml-streaming`: two `Stream`s in its own shards, task rows by `repeat`, shuffled.

Everything else as by default (`py1e` shuffle). The state is that of `StreamingDataLoader`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import BATCH, SOURCES, Job, collate, read_rows

try:
    import torchvision  # noqa: F401 (`streaming` imports it; nothing here calls it)
except RuntimeError:
    # Its usual wheel is built for CUDA and does not load its library beside a PyTorch for CPUs.
    # Declaring the two operators that it looks for at import is enough.
    OPERATORS = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        OPERATORS.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")

from streaming import MDSWriter, Stream, StreamingDataLoader, StreamingDataset

DISTRIBUTION = "mosaicml-streaming"
COLUMNS = {"input_ids": "ndarray:int32", "supervised": "ndarray:uint8", "id": "str", "where": "str"}


def write(folder: Path) -> None:
    """Write both sources as shards, uncompressed."""
    for source in SOURCES:
        with MDSWriter(out=str(folder / "mds" / source), columns=COLUMNS) as writer:
            for row in read_rows(folder, source):
                arrays = {
                    "input_ids": np.array(row["input_ids"], np.int32),
                    "supervised": np.array(row["supervised"], np.uint8),
                }
                writer.write(row | arrays)


class Feed:
    """Batches of an epoch."""

    def __init__(self, job: Job) -> None:
        """Open both streams."""
        data = StreamingDataset(
            streams=[
                Stream(local=str(job.folder / "mds" / name), repeat=passes)
                for name, passes in zip(SOURCES, (1, job.passes), strict=True)
            ],
            shuffle=True,
            shuffle_seed=job.seed,
            batch_size=BATCH,
        )
        self.loader: Any = StreamingDataLoader(
            data, batch_size=BATCH, collate_fn=collate, num_workers=job.workers
        )

    def __iter__(self) -> Iterator[Any]:
        """Deliver them."""
        yield from self.loader

    def state(self) -> Any:
        """Return the state of the loader."""
        return self.loader.state_dict()

    def load(self, state: Any) -> None:
        """Restore it."""
        self.loader.load_state_dict(state)
