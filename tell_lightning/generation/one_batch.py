"""Answer one batch: prompts padded on the left, and `generate` of transformers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList

from tell_lightning.generation.prefix import for_batch

Choose = Callable[[Tensor, Tensor], Tensor]
"""Tokens so far [B, T] and logits of the next token [B, V] to values, whose largest is chosen."""


def new_tokens(
    model: Any,
    prompts: Sequence[Sequence[int]],
    choose: Choose,
    config: GenerationConfig,
    *,
    cache: DynamicCache | None = None,
    **options: Any,
) -> list[list[int]]:
    """Continue every prompt.

    Args:
        model: A causal LM in eval mode.
        prompts: Token ids of each prompt.
        choose: Sees the logits of each step and says what is chosen.
        config: Lengths, and the ids that end an answer.
        cache: Keys and values of a prefix that all prompts begin with; None: no prefix is read.
        options: Other arguments of `generate`.

    Returns:
        The new ids of each prompt. After an answer's end there is padding.
    """
    known = 0 if cache is None else cache.get_seq_length()
    input_ids, mask = pad_left(prompts, config.pad_token_id, known)
    if cache is not None:
        options["past_key_values"] = for_batch(cache, len(prompts))
    output: Tensor = model.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=config,
        logits_processor=LogitsProcessorList([choose]),
        **options,
    )
    ids: list[list[int]] = output[:, input_ids.shape[1] :].tolist()
    return ids


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int, known: int) -> tuple[Tensor, Tensor]:
    """Pad on the left, after the first `known` ids. transformers counts positions by the mask.

    Returns:
        Ids and attention mask, [B, T] each.
    """
    width = max(map(len, prompts))
    gaps = [width - len(prompt) for prompt in prompts]
    pairs = list(zip(prompts, gaps, strict=True))
    ids = [[*prompt[:known], *[pad_id] * gap, *prompt[known:]] for prompt, gap in pairs]
    mask = [[1] * known + [0] * gap + [1] * (len(prompt) - known) for prompt, gap in pairs]
    return torch.tensor(ids), torch.tensor(mask)
