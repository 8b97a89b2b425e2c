"""The same as `plain`, resumed as Lightning 2.6 resumes a plain `DataLoader`.

It holds no state of such a loader: it warns, starts it anew and stops it where the epoch's number
of batches is reached, so that rows trained come again and as many at the end never come. Here
without a Trainer; a test holds it against one.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import plain

DISTRIBUTION = plain.DISTRIBUTION


class Feed(plain.Feed):
    """Batches of an epoch; after a resume the first ones again, as many as were left."""

    def __iter__(self) -> Iterator[Any]:
        """Deliver them."""
        for batch in islice(self.loader, len(self.loader) - self.batches):
            self.batches += 1
            yield batch
