"""`tell_lightning`: the plan, in batches. The state is one integer.

A cycle has each general row once and each task row exactly `passes` times.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from rows import BATCH, SOURCES, Job, read_rows

from tell_lightning.data.permutation import derive_key
from tell_lightning.data.plan import resolve_plan
from tell_lightning.data.settings import Mixture
from tell_lightning.data.store import Draft, load, prepare, record_batch
from tell_lightning.data.stream import MicroBatches, PreparedRows, Stream
from tell_lightning.data.units import Examples, Place

DISTRIBUTION = "tell_lightning"


def write(folder: Path) -> None:
    """Write both sources as the package does, and as Arrow data sets for other contenders."""
    for source in SOURCES:
        rows = list(read_rows(folder, source))
        columns = {key: [row[key] for row in rows] for key in rows[0]}

        def build(draft: Draft, columns: dict[str, Any] = columns) -> dict[str, Any]:
            draft.add([record_batch(columns)], {})
            return {}

        prepare(folder / "arrow" / source, build)
        datasets.Dataset.from_dict(columns).save_to_disk(folder / "hf" / source)


class Feed:
    """Batches of an epoch, from the first row that is not consumed."""

    def __init__(self, job: Job) -> None:
        """Open the rows and resolve the plan."""
        self.job = job
        mixture = Mixture(task_share=None, task_passes=job.passes)
        self.plan = resolve_plan(
            mixture,
            {"task": job.task},
            {"general": (job.general, None)},
            seed=derive_key(job.seed, "order"),
        )
        folders = {name: job.folder / "arrow" / name for name in SOURCES}
        self.rows = PreparedRows([load(folders[source.name]).rows for source in self.plan.sources])
        self.consumed = 0

    def __iter__(self) -> Iterator[Any]:
        """Deliver complete batches to the end of the cycle."""
        stop = self.plan.cycle // BATCH * BATCH
        order = MicroBatches(Examples(self.plan), Place(0, 1, BATCH), self.consumed, stop)
        stream = Stream(lambda: order, self.rows, total=stop // BATCH, num_workers=self.job.workers)
        for batch in stream:
            self.consumed += len(batch.input_ids)
            yield batch

    def state(self) -> Any:
        """Return the number of rows consumed; our checkpoints hold nothing else of the stream."""
        return {"consumed": self.consumed}

    def load(self, state: Any) -> None:
        """Resume from a state."""
        self.consumed = state["consumed"]
