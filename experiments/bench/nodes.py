"""`torchdata.nodes`: two samplers, mixed by `MultiNodeWeightedSampler`, read batch by batch.

The set-up follows its guide for map-style data: nodes sample indices, `Batcher` groups them, and a
mapper reads and collates each batch. The sampler is a `DistributedSampler` with one rank, because
its shuffle depends on the epoch that `SamplerWrapper` sets. With `RandomSampler`, the repeated
passes over the task rows have another order after a resume.
"""

from collections.abc import Sequence
from typing import Any

from datasets import load_from_disk
from rows import BATCH, SOURCES, Job, LoaderFeed, collate
from torch.utils.data import DistributedSampler
from torchdata.nodes import (
    Batcher,
    Loader,
    Mapper,
    MultiNodeWeightedSampler,
    ParallelMapper,
    SamplerWrapper,
    StopCriteria,
)

DISTRIBUTION = "torchdata"


class Tagged:
    """Adds the name of the source to an index."""

    def __init__(self, source: str) -> None:
        """Keep the name."""
        self.source = source

    def __call__(self, index: int) -> tuple[str, int]:
        """Return the name and the index."""
        return self.source, index


class Reader:
    """Reads and collates a batch with one access to each source."""

    def __init__(self, sources: dict[str, Any]) -> None:
        """Keep the open data sets by name."""
        self.sources = sources

    def __call__(self, batch: Sequence[tuple[str, int]]) -> Any:
        """Return the batch in the order of its indices."""
        rows: dict[int, Any] = {}
        for source in {name for name, _ in batch}:
            places = [place for place, (name, _) in enumerate(batch) if name == source]
            read = self.sources[source].__getitems__([batch[place][1] for place in places])
            rows |= dict(zip(places, read, strict=True))
        return collate([rows[place] for place in range(len(batch))])


class Feed(LoaderFeed):
    """Batches until both sources are exhausted; task rows are cycled."""

    def __init__(self, job: Job) -> None:
        """Build the nodes."""
        sources = {name: load_from_disk(str(job.folder / "hf" / name)) for name in SOURCES}
        samplers = {
            name: DistributedSampler(rows, num_replicas=1, rank=0, seed=job.seed)
            for name, rows in sources.items()
        }
        mixed = MultiNodeWeightedSampler(
            {name: Mapper(SamplerWrapper(s), Tagged(name)) for name, s in samplers.items()},
            dict(zip(SOURCES, job.weights, strict=True)),
            stop_criteria=StopCriteria.CYCLE_UNTIL_ALL_DATASETS_EXHAUSTED,
            seed=job.seed,
        )
        batches = Batcher(mixed, BATCH, drop_last=False)
        read = ParallelMapper(batches, Reader(sources), num_workers=job.workers, method="process")
        self.loader = self.stateful = Loader(read)
