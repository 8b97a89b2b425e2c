"""The beginning that all prompts share, read once: an anchor need not be read for every row.

Token ids of prompts enter; a key-value cache of one row leaves, and copies of it for batches. The
prompts of a task begin with its anchor and with what the template puts before it, so that of a
prompt of 500 tokens 400 may be known. A batch then holds the same values, but what they cost is
paid once:

    prefix   A A A A        read once
    batch    A A A A . Q    '.' is masked; the four A are copied, Q alone is read
             A A A A Q Q
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SHORTEST = 16
"""Tokens below which a prefix is not worth a call."""


class Prefix:
    """What the prompts so far begin with, kept from call to call for one model as it is.

    Attributes:
        ids: What the prompts of the last call share with all before; none where it does not pay.
    """

    def __init__(self) -> None:
        """Know of no prompt."""
        self.ids: tuple[int, ...] = ()
        self._shared: tuple[int, ...] | None = None
        self._cache: DynamicCache | None = None

    def add(self, prompts: Sequence[Sequence[int]]) -> None:
        """Look at the prompts of a call: on several ranks, at those of all.

        At least one id of every prompt is left, for its logits are needed.

        >>> prefix = Prefix()
        >>> prefix.add([[7] * 20 + [1, 2]])
        >>> prefix.ids
        ()
        >>> prefix.add([[7] * 20 + [3]])
        >>> prefix.ids == (7,) * 20
        True
        """
        before = [] if self._shared is None else [self._shared]
        ordered = [*before, *map(tuple, prompts)]
        if not prompts or len(ordered) < 2:
            self.ids = ()
            self._shared = ordered[0] if ordered else None
            return
        first, last = min(ordered), max(ordered)  # what these two share, all share
        same = (ours == theirs for ours, theirs in zip(first, last, strict=False))
        size = next(
            (place for place, equal in enumerate(same) if not equal), min(len(first), len(last))
        )
        self._shared = first[:size]
        size = min(size, min(map(len, prompts)) - 1)
        self.ids = first[:size] if size >= SHORTEST else ()

    def read(self, model: Any) -> DynamicCache | None:
        """Read the ids, unless that is done.

        Args:
            model: A causal LM in eval mode, bare or wrapped by PEFT.

        Returns:
            Keys and values of every layer for one row, to be copied by `for_batch`; None where
            there are no ids, or the model keeps anything but keys and values of all positions (a
            sliding window, a recurrent state), which another row cannot go on from.
        """
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not self.ids or not base._supports_default_dynamic_cache():
            return None
        if self._cache is None or self._cache.get_seq_length() < len(self.ids):
            cache = DynamicCache(config=base.config)
            if any(type(layer) is not DynamicLayer for layer in cache.layers):
                return None
            ids = torch.tensor([list(self.ids)], device=model.device)
            options = {"logits_to_keep": 1} if base._supports_logits_to_keep() else {}
            model(input_ids=ids, past_key_values=cache, use_cache=True, **options)
            self._cache = cache
        self._cache.crop(len(self.ids) - self._cache.get_seq_length())  # so many fewer, or none
        return self._cache


def for_batch(cache: DynamicCache, rows: int) -> DynamicCache:
    """Copy the cache of a prefix for a batch, which writes into its own."""
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(rows)
    return copied
