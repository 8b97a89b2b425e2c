"""The same as `interleave`, but each stream is shuffled first and nothing after: users do both."""

from typing import Any

import interleave
from rows import Job

DISTRIBUTION = interleave.DISTRIBUTION


class Feed(interleave.Feed):
    """Batches until both sources are exhausted."""

    def arrange(self, job: Job) -> Any:
        """Shuffle each stream with the default buffer, then interleave."""
        sources = [source.shuffle(seed=job.seed) for source in interleave.streams(job)]
        return interleave.mix(job, sources)
