"""`datasets.interleave_datasets` over two streams, then its shuffle buffer of default size.

Set up as its documentation advises: streams come from Arrow files through `to_iterable_dataset`
(faster than JSONL, which it advises against), general rows in 64 shards, which its buffer mixes;
`all_exhausted`, the one stopping strategy that passes over all general rows and repeats the task
rows; the state is `IterableDataset.state_dict`.
"""

from collections.abc import Iterator
from typing import Any

from datasets import interleave_datasets, load_from_disk
from rows import BATCH, Job, collate
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
    """Interleave by probabilities."""
    return interleave_datasets(
        sources,
        probabilities=list(job.weights),
        seed=job.seed,
        stopping_strategy="all_exhausted",
    )


class Feed:
    """Batches until both sources are exhausted."""

    def __init__(self, job: Job) -> None:
        """Interleave, then shuffle."""
        self.data = self.arrange(job)
        self.loader: Any = DataLoader(
            self.data, batch_size=BATCH, collate_fn=collate, num_workers=job.workers
        )

    def arrange(self, job: Job) -> Any:
        """Return the mixed stream."""
        return mix(job, streams(job)).shuffle(seed=job.seed)

    def __iter__(self) -> Iterator[Any]:
        """Deliver them."""
        yield from self.loader

    def state(self) -> Any:
        """Return the state of the stream."""
        return self.data.state_dict()

    def load(self, state: Any) -> None:
        """Restore it."""
        self.data.load_state_dict(state)
