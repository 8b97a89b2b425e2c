"""Like `plain`, but resumed as Lightning 2.6 resumes a plain `DataLoader`.

Lightning keeps no state of such a loader. It warns, starts the epoch again and stops after the
number of batches that were left. So trained rows come again, and as many others never come. This
module does it without a Trainer; a test compares it with one.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import plain

DISTRIBUTION = plain.DISTRIBUTION


class Feed(plain.Feed):
    """Batches of an epoch; after a resume the first ones again, as many as were left."""

    def __iter__(self) -> Iterator[Any]:
        """Deliver the batches."""
        for batch in islice(self.loader, len(self.loader) - self.batches):
            self.batches += 1
            yield batch
