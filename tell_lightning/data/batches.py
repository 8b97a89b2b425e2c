"""Token rows become a padded batch of tensors.

Dimensions: B examples, T tokens of the longest of them. Padding is on the right and carries no
label; labels stand under their own token (`model.loss` shifts them).

    input_ids  7 9 4 8 2      labels  . . 4 8 2      positions  18, 19   place in the stream
               7 5 3 2 0              . . 3 2 .      sources     0,  2   index in plan.sources
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

IGNORE = -100


class Item(NamedTuple):
    """One example on its way into a batch."""

    input_ids: Sequence[int]
    supervised: Sequence[bool]
    source: int
    position: int


class Batch(NamedTuple):
    """A micro-batch; integer tensors.

    Attributes:
        input_ids: [B, T].
        attention_mask: [B, T], 1 on tokens, 0 on padding.
        labels: [B, T], the token itself where it is supervised, else -100.
        sources: [B], index of the source in the plan.
        positions: [B], position in the stream.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    sources: Tensor
    positions: Tensor


def collate(items: Sequence[Item]) -> Batch:
    """Pad items on the right to the longest of them."""
    size, longest = len(items), max(len(item.input_ids) for item in items)
    input_ids = torch.zeros(size, longest, dtype=torch.long)
    attention_mask = torch.zeros(size, longest, dtype=torch.long)
    labels = torch.full((size, longest), IGNORE, dtype=torch.long)
    for index, item in enumerate(items):
        length = len(item.input_ids)
        ids = torch.as_tensor(item.input_ids, dtype=torch.long)
        supervised = torch.as_tensor(item.supervised, dtype=torch.bool)
        input_ids[index, :length] = ids
        attention_mask[index, :length] = 1
        labels[index, :length] = torch.where(supervised, ids, IGNORE)
    return Batch(
        input_ids,
        attention_mask,
        labels,
        torch.tensor([item.source for item in items]),
        torch.tensor([item.position for item in items]),
    )
