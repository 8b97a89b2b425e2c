"""What a contender trains, read by its process and written by `train.py`."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IGNORE = -100
MARK = "@bench "
"""Begins each line of standard output that is a report."""


@dataclass(frozen=True)
class Job:
    """What a contender trains.

    Attributes:
        base: Folder of the base model and its tokenizer.
        rows: Location and fields of the rows, for contenders that read text.
        folder: Folder of `bins.jsonl`, and for the contender's own files.
        capacity: Most tokens of a bin.
        batch: Bins of an optimizer step.
        micro: Bins of a forward pass.
        steps: Optimizer steps.
        warm: Steps that are not timed.
        lr: Learning rate of AdamW, constant.
        rank: Rank of the adapters on all linear layers; alpha is twice as large, dropout zero.
        device: 'cpu' or 'cuda'.
        bfloat16: Whether frozen weights and computations are bfloat16 (autocast).
        checkpointing: Whether activations are computed again in the backward pass.
        log_every: Steps between two losses, which are means over these steps.
        gate: Whether to wait for a line on standard input after each step.
        options: The contender's own options.
    """

    base: str
    rows: dict[str, Any]
    folder: str
    capacity: int
    batch: int
    micro: int
    steps: int
    warm: int
    lr: float
    rank: int
    device: str
    bfloat16: bool
    checkpointing: bool
    log_every: int
    gate: bool
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def accumulation(self) -> int:
        """Forward passes of an optimizer step."""
        return self.batch // self.micro

    @property
    def own_folder(self) -> str:
        """A folder for what the contender writes."""
        return str(Path(self.folder) / f"own-{os.getpid()}")

    def bins(self) -> Iterator[list[Any]]:
        """Read the bins: lists of rows, each with its token ids and its labels."""
        with (Path(self.folder) / "bins.jsonl").open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def packed(self) -> list[dict[str, Any]]:
        """Return each bin as one row: input_ids, labels, and seq_lengths of its examples."""
        return [
            {
                "input_ids": [token for ids, _ in members for token in ids],
                "labels": [label for _, labels in members for label in labels],
                "seq_lengths": [len(ids) for ids, _ in members],
            }
            for members in self.bins()
        ]

    def unpacked(self) -> list[dict[str, Any]]:
        """Return the rows of all bins one by one: input_ids and labels."""
        return [
            {"input_ids": ids, "labels": labels}
            for members in self.bins()
            for ids, labels in members
        ]

    def rows_of_a_bin(self) -> int:
        """Return the mean number of rows in a bin, rounded, for contenders that do not pack."""
        sizes = [len(members) for members in self.bins()]
        return max(1, round(sum(sizes) / len(sizes)))


def step_tokens(contents: list[dict[str, Any]], each: int) -> list[int]:
    """Count the tokens of each optimizer step, which takes `each` rows of the contents."""
    sizes = [len(row["input_ids"]) for row in contents]
    return [sum(sizes[start : start + each]) for start in range(0, len(sizes), each)]
