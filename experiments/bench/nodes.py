"""`torchdata.nodes`: two samplers, mixed by `MultiNodeWeightedSampler`, read batch by batch.

As in its guide for map-style data: the nodes sample indices, `Batcher` groups them, and one mapper
reads and collates a batch. `DistributedSampler` of one rank is the sampler whose shuffle follows
`set_epoch`, which `SamplerWrapper` calls: with `RandomSampler` the repeated passes over the task
rows come back in another order after a resume.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from datasets import load_from_disk
from rows import BATCH, SOURCES, Job, collate
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
    """Names the source of an index."""

    def __init__(self, source: str) -> None:
        """Keep the name."""
        self.source = source

    def __call__(self, index: int) -> tuple[str, int]:
        """Return both."""
        return self.source, index


class Reader:
    """Reads and collates a batch with one access to each source."""

    def __init__(self, sources: dict[str, Any]) -> None:
        """Keep the opened sources."""
        self.sources = sources

    def __call__(self, batch: Sequence[tuple[str, int]]) -> Any:
        """Return the batch in the order of its indices."""
        rows: dict[int, Any] = {}
        for source in {name for name, _ in batch}:
            places = [place for place, (name, _) in enumerate(batch) if name == source]
            read = self.sources[source].__getitems__([batch[place][1] for place in places])
            rows |= dict(zip(places, read, strict=True))
        return collate([rows[place] for place in range(len(batch))])


class Feed:
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
        self.loader: Any = Loader(read)

    def __iter__(self) -> Iterator[Any]:
        """Deliver them."""
        yield from self.loader

    def state(self) -> Any:
        """Return the state of the nodes."""
        return self.loader.state_dict()

    def load(self, state: Any) -> None:
        """Restore it."""
        self.loader.load_state_dict(state)
