"""The beginning that all prompts share, encoded once: an anchor need not be read for every row.

Token ids enter; a key-value cache of one row leaves, and copies of it for batches. The prompts of a
task begin with its anchor and with what the template puts before it, so that of a prompt of 400
tokens 300 may be known. A batch then holds the same values, but what they cost is paid once:

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


def shared_prefix(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the ids that all prompts begin with, where it pays to read them once.

    At least one id of every prompt is left, for its logits are needed.

    >>> shared_prefix([[7] * 20 + [1, 2], [7] * 20 + [3]]) == (7,) * 20
    True
    >>> shared_prefix([[7, 1], [7, 2]])
    ()
    """
    if len(prompts) < 2:
        return ()
    ordered = [tuple(prompt) for prompt in prompts]
    first, last = min(ordered), max(ordered)  # what these two share, all share
    most = min(map(len, prompts)) - 1
    pairs = zip(first[:most], last[:most], strict=True)
    size = next((place for place, (ours, theirs) in enumerate(pairs) if ours != theirs), most)
    return first[:size] if size >= SHORTEST else ()


def encode_prefix(model: Any, prefix: Sequence[int]) -> DynamicCache | None:
    """Read a prefix.

    Args:
        model: A causal LM in eval mode, bare or wrapped by PEFT.
        prefix: Ids that all prompts begin with; none for no cache.

    Returns:
        Keys and values of every layer, for one row; None where the prefix is empty, or the model
        keeps anything but keys and values of all positions (a sliding window, a recurrent state),
        which another row cannot go on from.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not prefix or not base._supports_default_dynamic_cache():
        return None
    cache = DynamicCache(config=base.config)
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    ids = torch.tensor([list(prefix)], device=model.device)
    options = {"logits_to_keep": 1} if base._supports_logits_to_keep() else {}
    model(input_ids=ids, past_key_values=cache, use_cache=True, **options)
    return cache


def for_batch(cache: DynamicCache, rows: int) -> DynamicCache:
    """Copy the cache of a prefix for a batch, which writes into its own."""
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(rows)
    return copied
