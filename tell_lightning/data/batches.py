"""Put examples together into a padded batch of tensors.

A batch has B rows of T tokens and N examples. Each row is a bin of examples, one after the other.
An unpacked batch has the same form, with one example in each bin.

    bins            [a a a, b b]   [c c c c]   []
    input_ids        7 9 4 7 8      7 5 3 2 .   . . . . .
    labels           . 9 4 . 8      . . 3 2 .   . . . . .    a label is at the place of its token
    position_ids     0 1 2 0 1      0 1 2 3 4   0 1 2 3 4    only the restart separates examples
    examples         0 0 0 1 1      2 2 2 2 -   - - - - -    sources, rows, positions: [N]

There is no attention mask. Padding is on the right and attention is causal, so no token attends to
padding. A mask would hide the restarts from transformers, and examples would see each other.

`indexed` adds what a training step would otherwise have to ask the device for: the places of the
targets, the borders of the examples, and the counts of each source.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tell_lightning.errors import TellError

IGNORE = -100
PADDING = -1
SHORTEST = 2  # a token and the next one, which it predicts


class BatchError(TellError):
    """Examples that do not fit into a batch."""


def log_stage(split: str) -> str:
    """Return the first part of the log keys of a split.

    >>> log_stage("dev"), log_stage("test_without_anchor")
    ('val', 'test_without_anchor')
    """
    return "val" if split == "dev" else split


class Item(NamedTuple):
    """One example of a batch, with its source, its row there, and its position in the stream."""

    input_ids: Sequence[int]
    supervised: Sequence[bool]
    source: int
    row: int
    position: int


class Batch(NamedTuple):
    """A micro-batch. `TellModule` needs nothing else, whatever loader it comes from.

    Attributes:
        input_ids: [B, T].
        labels: [B, T], the token itself if it is supervised, else -100. The first token of an
            example has no label, for no token predicts it.
        position_ids: [B, T], from 0 in every example; padding continues the count.
        examples: [B, T], index of the example 0..N-1, in the order of the bins, -1 on padding.
        sources: [N], index of the source in the plan.
        rows: [N], row of that source.
        positions: [N], position in the stream.
        names: The names that `sources` are indices of; the same in every batch of a run.
        split: What the batch is for: train, dev, test ...
        packed: Whether bins may hold several examples.
        targets: [3, S], for each of the S supervised tokens the place in the flat batch (0 to B*T)
            whose output predicts it, the token, and its example; None: not indexed yet.
        counts: [K, 2] float32, supervised tokens and examples that have any, of each source.
        borders: [M+1] int32, where examples begin in the flat batch, and B*T at the end. Padding
            belongs to the example before it.
        longest: Most tokens between two borders.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    examples: Tensor
    sources: Tensor
    rows: Tensor
    positions: Tensor
    names: tuple[str, ...] = ("data",)
    split: str = "train"
    packed: bool = False
    targets: Tensor | None = None
    counts: Tensor | None = None
    borders: Tensor | None = None
    longest: int = 0


def indexed(batch: Batch) -> Batch:
    """Add the last four fields to a batch, if it has none; cheap while it is on the CPU.

    Whoever changes the labels afterwards must set `targets` to None.
    """
    if batch.targets is not None:
        return batch
    size, width = batch.labels.shape
    labels = batch.labels[:, 1:]
    row, column = (labels != IGNORE).nonzero(as_tuple=True)
    # The first token of an example has no label, so a token and its target are in one example.
    example = batch.examples[row, column]
    targets = torch.stack([row * width + column, labels[row, column], example])
    source = batch.sources[example]
    judged = batch.sources[torch.unique(example)]
    sources = len(batch.names)
    counts = torch.stack([x.bincount(minlength=sources) for x in (source, judged)], dim=1)
    begins = torch.ones_like(batch.position_ids, dtype=torch.bool)
    begins[:, 1:] = batch.position_ids.diff() != 1
    starts = begins.flatten().nonzero().flatten()
    borders = torch.cat([starts, starts.new_tensor([size * width])]).int()
    return batch._replace(
        targets=targets,
        counts=counts.float(),
        borders=borders,
        longest=int(borders.diff().max()),
    )


def collate(
    bins: Sequence[Sequence[Item]], names: Sequence[str] = ("data",), split: str = "train"
) -> Batch:
    """Join the examples of each bin, and pad on the right to the longest bin.

    Args:
        bins: B bins; an empty bin becomes a row of padding.
        names: The names of all sources; the same for every batch of a run.
        split: What the batch is for.

    Raises:
        BatchError: An item's source is not an index of `names`.
    """
    sources = {item.source for members in bins for item in members}
    if wrong := sources - set(range(len(names))):
        raise BatchError(
            f"collate: an item's source must be an index of names {tuple(names)}, got "
            f"{min(wrong)}. Pass the names of all sources."
        )
    packed = any(len(members) > 1 for members in bins)
    return unpack(*lay_out(bins), names=tuple(names), split=split, packed=packed)


def unpack(tokens: Tensor, origins: Tensor, **about: Any) -> Batch:
    """Make a batch of the tensors of `lay_out` and of the other fields: names, split, packed."""
    parts: Sequence[Any] = (*tokens.unbind(), *origins.unbind())
    return Batch(*parts, **about)


def lay_out(bins: Sequence[Sequence[Item]]) -> tuple[Tensor, Tensor]:
    """Lay out a batch in two tensors: they pass between processes faster than the seven of `Batch`.

    Returns:
        The tensors of a batch that are per token [4, B, T], and per example [3, N].
    """
    items = [item for members in bins for item in members]
    sizes = np.array([len(item.input_ids) for item in items], dtype=np.int64)
    owners = np.repeat(np.arange(len(bins)), [len(members) for members in bins])
    filled = np.bincount(owners, weights=sizes, minlength=len(bins)).astype(np.int64)
    before = np.cumsum(sizes) - sizes  # tokens of the batch before each example
    starts = before - (np.cumsum(filled) - filled)[owners]  # tokens of its bin before each example
    shape = len(bins), max(SHORTEST, int(filled.max()))

    def at_tokens(values: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.repeat(values, sizes)

    within = np.arange(int(sizes.sum())) - at_tokens(before)
    place = at_tokens(owners), at_tokens(starts) + within
    ids = np.fromiter(chain.from_iterable(item.input_ids for item in items), np.int64)
    flags = np.fromiter(chain.from_iterable(item.supervised for item in items), np.bool_)
    tokens = np.zeros((4, *shape), dtype=np.int64)
    input_ids, labels, position_ids, examples = tokens
    labels[:], examples[:] = IGNORE, PADDING
    begins = np.zeros(shape, dtype=np.int64)
    input_ids[place] = ids
    labels[place] = np.where(flags & (within > 0), ids, IGNORE)
    examples[place] = at_tokens(np.arange(len(items)))
    begins[owners, starts] = starts
    position_ids[:] = np.arange(shape[1]) - np.maximum.accumulate(begins, axis=1)
    origins = np.array([(item.source, item.row, item.position) for item in items], dtype=np.int64)
    return torch.from_numpy(tokens), torch.from_numpy(origins.reshape(-1, 3).T.copy())


def collate_unpacked(
    items: Sequence[Item], names: Sequence[str] = ("data",), split: str = "train"
) -> Batch:
    """Give every example a row of its own."""
    return collate([[item] for item in items], names, split)
