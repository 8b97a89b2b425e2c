"""Read the common beginning of all prompts, such as the anchor, only once.

Of a prompt of 500 tokens, 400 may be the template's beginning and the anchor. The model reads them
once into a key-value cache of one row, which is copied for each batch:

    prefix   A A A A        read once
    batch    A A A A . Q    '.' is masked; the A are copied, only Q is read
             A A A A Q Q
"""

import copy
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from tell_lightning.model.base import unwrapped

SHORTEST = 16
"""A prefix of fewer tokens is not worth a call of the model."""


class Prefix:
    """The common beginning of all prompts so far, for one model with fixed weights.

    Attributes:
        ids: The beginning that the prompts of the last call share with all earlier prompts; empty
            if it is too short.
    """

    def __init__(self) -> None:
        """Start without prompts."""
        self.ids: tuple[int, ...] = ()
        self._shared: tuple[int, ...] | None = None
        self._cache: DynamicCache | None = None

    def add(self, prompts: Sequence[Sequence[int]]) -> None:
        """Compare the prompts of a call; every rank must pass the prompts of all ranks.

        The prefix leaves out at least the last id of every prompt, for its logits are needed.

        >>> prefix = Prefix()
        >>> prefix.add([[7] * 20 + [1, 2]])
        >>> prefix.ids
        ()
        >>> prefix.add([[7] * 20 + [3]])
        >>> prefix.ids == (7,) * 20
        True
        """
        before = [] if self._shared is None else [self._shared]
        sequences = [*before, *map(tuple, prompts)]
        self.ids = ()
        if not prompts:
            return
        # All sequences share what the smallest and the largest share.
        pairs = zip(min(sequences), max(sequences), strict=False)
        same = takewhile(lambda pair: pair[0] == pair[1], pairs)
        self._shared = tuple(token for token, _ in same)
        size = min(len(self._shared), *(len(prompt) - 1 for prompt in prompts))
        if len(sequences) > 1 and size >= SHORTEST:
            self.ids = self._shared[:size]

    def read(self, model: Any) -> DynamicCache | None:
        """Read the ids, unless the model has read them already.

        Args:
            model: A causal LM in eval mode, bare or wrapped by PEFT.

        Returns:
            Keys and values of every layer for one row, to be copied by `for_batch`. None if there
            are no ids, or if the model keeps nothing, or something other than keys and values of
            all positions (a sliding window, a recurrent state), which cannot be copied.
        """
        base = unwrapped(model)
        if not self.ids or not keeps_everything(model):
            return None
        if self._cache is None or self._cache.get_seq_length() < len(self.ids):
            cache = DynamicCache(config=base.config)
            ids = torch.tensor([list(self.ids)], device=model.device)
            options = {"logits_to_keep": 1} if base._supports_logits_to_keep() else {}
            model(input_ids=ids, past_key_values=cache, use_cache=True, **options)
            if cache.get_seq_length() < len(self.ids):
                return None
            self._cache = cache
        self._cache.crop(len(self.ids) - self._cache.get_seq_length())  # negative: removes so many
        return self._cache


def keeps_everything(model: Any) -> bool:
    """Say whether the cache of a model holds keys and values of all positions, and nothing else."""
    base = unwrapped(model)
    if not base._supports_default_dynamic_cache():
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=base.config).layers)


def for_batch(cache: DynamicCache, rows: int) -> DynamicCache:
    """Copy the cache of a prefix for a batch, which writes into its copy."""
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(rows)
    return copied
