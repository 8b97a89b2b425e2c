"""`mosaicml-streaming`: two shuffled `Stream`s of its own shards, task rows with `repeat`.

All other settings are the defaults (`py1e` shuffle). The state is that of `StreamingDataLoader`.
"""

from pathlib import Path

import numpy as np
import torch
from rows import BATCH, SOURCES, Job, LoaderFeed, collate, read_rows

try:
    import torchvision  # noqa: F401 (`streaming` imports it)
except RuntimeError:
    # The usual wheel is built for CUDA and cannot load its library with a PyTorch for CPUs. At
    # import it only looks for two operators, so it is enough to declare them.
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


class Feed(LoaderFeed):
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
        self.loader = self.stateful = StreamingDataLoader(
            data, batch_size=BATCH, collate_fn=collate, num_workers=job.workers
        )
