"""Concatenated data sets and a `DataLoader` that shuffles them, as in many scripts.

The task set is listed once for each pass. `concatenate_datasets` reads a batch in one access, which
`torch.utils.data.ConcatDataset` does not. A DataLoader has no state, so a resume skips the batches
seen with `accelerate.skip_first_batches` and the same seed, as the Hugging Face Trainer does.
(`plain_lightning` resumes as Lightning does.)
"""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import skip_first_batches
from datasets import concatenate_datasets, load_from_disk
from rows import BATCH, Job, collate
from torch.utils.data import DataLoader

DISTRIBUTION = "torch"


class Feed:
    """Batches of an epoch, from the first batch not seen."""

    def __init__(self, job: Job) -> None:
        """Open the rows."""
        general, task = (load_from_disk(str(job.folder / "hf" / n)) for n in ("general", "task"))
        self.loader: Any = DataLoader(
            concatenate_datasets([general] + [task] * job.passes),
            batch_size=BATCH,
            shuffle=True,
            generator=torch.Generator().manual_seed(job.seed),
            collate_fn=collate,
            num_workers=job.workers,
        )
        self.batches = 0

    def __iter__(self) -> Iterator[Any]:
        """Deliver the rest of the epoch."""
        loader = skip_first_batches(self.loader, self.batches) if self.batches else self.loader
        for batch in loader:
            self.batches += 1
            yield batch

    def state(self) -> Any:
        """Return the number of batches seen; the script knows the seed."""
        return {"batches": self.batches}

    def load(self, state: Any) -> None:
        """Skip the batches seen."""
        self.batches = state["batches"]
