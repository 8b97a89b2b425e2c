"""`datasets.interleave_datasets` over two streams, then its shuffle buffer of default size.

The set-up follows its documentation. Arrow files become streams by `to_iterable_dataset`, with 64
shards of general rows, which the buffer mixes. `all_exhausted` is the only stopping strategy that
delivers all general rows and repeats the task rows. The state is `IterableDataset.state_dict`.
"""

from typing import Any

from datasets import interleave_datasets, load_from_disk
from rows import BATCH, Job, LoaderFeed, collate
from torch.utils.data import DataLoader

DISTRIBUTION = "datasets"
SHARDS = {"general": 64, "task": 1}


def streams(job: Job) -> list[Any]:
    """Open both sources as streams."""
    return [
        load_from_disk(str(job.folder / "hf" / name)).to_iterable_dataset(num_shards=shards)
        for name, shards in SHARDS.items()
    ]


def mix(job: Job, sources: list[Any]) -> Any:
    """Interleave the sources by their probabilities."""
    return interleave_datasets(
        sources,
        probabilities=list(job.weights),
        seed=job.seed,
        stopping_strategy="all_exhausted",
    )


class Feed(LoaderFeed):
    """Batches until both sources are exhausted."""

    def __init__(self, job: Job) -> None:
        """Interleave, then shuffle."""
        self.stateful = self.arrange(job)
        self.loader = DataLoader(
            self.stateful, batch_size=BATCH, collate_fn=collate, num_workers=job.workers
        )

    def arrange(self, job: Job) -> Any:
        """Return the mixed stream."""
        return mix(job, streams(job)).shuffle(seed=job.seed)
