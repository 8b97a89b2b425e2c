"""Like `interleave`, but each stream is shuffled before the mixing. Users do either."""

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
