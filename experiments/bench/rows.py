"""The rows that every contender delivers, and how they become tensors.

The first two tokens of a row are its source and its number, so the delivered tensors show which
rows came, and in which order.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SOURCES = ("general", "task")
BATCH = 16
IGNORE = -100


@dataclass(frozen=True)
class Job:
    """The rows that a contender delivers.

    Attributes:
        folder: Folder of the rows.
        general: Number of general rows; an epoch has each once.
        task: Number of task rows.
        passes: Passes over the task rows in an epoch.
        seed: Seed of the order.
        workers: Number of worker processes.
    """

    folder: Path
    general: int
    task: int
    passes: int
    seed: int
    workers: int

    @property
    def rows(self) -> int:
        """Number of rows of an epoch."""
        return self.general + self.task * self.passes

    @property
    def weights(self) -> tuple[float, float]:
        """Shares of general and task rows, for contenders that draw rows at random."""
        return self.general / self.rows, self.task * self.passes / self.rows


def write_rows(folder: Path, general: int, task: int, seed: int) -> None:
    """Write both sources as JSONL, 40 to 80 tokens a row, the second half of them supervised."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for source, count in enumerate((general, task)):
        with (folder / f"{SOURCES[source]}.jsonl").open("w", encoding="utf-8") as file:
            for row in range(count):
                tokens = [source, row, *rng.integers(3, 32_000, rng.integers(38, 79)).tolist()]
                half = len(tokens) // 2
                line = {
                    "input_ids": tokens,
                    "supervised": [False] * half + [True] * (len(tokens) - half),
                    "id": str(row),
                    "where": f"{SOURCES[source]}.jsonl:{row + 1}",
                }
                file.write(json.dumps(line) + "\n")


def read_rows(folder: Path, source: str) -> Iterator[dict[str, Any]]:
    """Read the rows of a source."""
    with (folder / f"{source}.jsonl").open(encoding="utf-8") as file:
        yield from map(json.loads, file)


class LoaderFeed:
    """Batches of a loader, resumed by the state of one of its parts.

    Attributes:
        loader: Delivers the batches.
        stateful: Has `state_dict` and `load_state_dict`: the loader itself, or its data.
    """

    loader: Any
    stateful: Any

    def __iter__(self) -> Iterator[Any]:
        """Deliver the batches."""
        yield from self.loader

    def state(self) -> Any:
        """Return the state to resume from."""
        return self.stateful.state_dict()

    def load(self, state: Any) -> None:
        """Resume from a state."""
        self.stateful.load_state_dict(state)


def collate(rows: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pad rows on the right, as the package does.

    Returns:
        input_ids, attention_mask and labels, each [B, T].
    """
    sizes = np.array([len(row["input_ids"]) for row in rows])
    shape = len(rows), int(sizes.max())
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.repeat(np.arange(len(rows)), sizes), within
    ids = np.fromiter(chain.from_iterable(row["input_ids"] for row in rows), np.int64)
    flags = np.fromiter(chain.from_iterable(row["supervised"] for row in rows), np.bool_)
    input_ids, attention_mask = np.zeros((2, *shape), dtype=np.int64)
    labels = np.full(shape, IGNORE)
    input_ids[place], attention_mask[place] = ids, 1
    labels[place] = np.where(flags, ids, IGNORE)
    return torch.from_numpy(input_ids), torch.from_numpy(attention_mask), torch.from_numpy(labels)
