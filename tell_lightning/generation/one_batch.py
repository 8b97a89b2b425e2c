"""Answer one batch: prompts padded on the left, and `generate` of transformers.

`generate` computes all rows until the last answer has ended. On a CPU that is most of the work
where answers differ in length, so there it is called in rounds (`in_rounds`): when half of the rows
have ended, it goes on with the others and their part of the cache.

    Q | R R .               round 1 ends after two steps, for half of the rows have ended
    Q | R R | R R .         the others go on in round 2
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from tell_lightning.generation.decoding import Choices
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


def in_rounds(
    model: Any,
    prompts: Sequence[Sequence[int]],
    choices: Choices,
    config: GenerationConfig,
    *,
    cache: DynamicCache | None = None,
) -> list[list[int]]:
    """Continue every prompt as `new_tokens` does; rows whose answer has ended are left out.

    Only for a model whose cache holds keys and values of all positions, and whose positions are
    right behind a prefix.
    """
    known = 0 if cache is None else cache.get_seq_length()
    ids, mask = (part.to(model.device) for part in pad_left(prompts, config.pad_token_id, known))
    past = None if cache is None else for_batch(cache, len(prompts))
    config = copy.copy(config)
    config.return_dict_in_generate = True
    stop_ids = torch.tensor(config.eos_token_id, device=model.device)
    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    while rows and config.max_new_tokens > 0:
        width = ids.shape[1]
        options = {} if past is None else {"past_key_values": past}
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([choices]),
            stopping_criteria=StoppingCriteriaList([_HalfEnded(width, stop_ids)]),
            **options,
        )
        new = output.sequences[:, width:]
        for row, tokens in zip(rows, new.tolist(), strict=True):
            answers[row] += tokens
        going = [place for place, ended in enumerate(_ended(new, stop_ids).tolist()) if not ended]
        rows = [rows[place] for place in going]
        config.max_new_tokens -= new.shape[1]
        config.min_new_tokens = max(0, (config.min_new_tokens or 0) - new.shape[1]) or None
        if rows and config.max_new_tokens > 0:
            chosen = torch.tensor(going, device=model.device)
            past = output.past_key_values
            past.batch_select_indices(chosen)
            ids = output.sequences[chosen]
            mask = torch.cat([mask[chosen], mask.new_ones(len(going), new.shape[1])], dim=1)
            choices.keep(going)
    return answers


class _HalfEnded(StoppingCriteria):
    """Stops all rows when half of them have ended."""

    def __init__(self, width: int, stop_ids: Tensor) -> None:
        """Look at the ids from the place `width` on."""
        self._width, self._stop_ids = width, stop_ids

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Say for each row whether to stop; the same for all."""
        ended = _ended(input_ids[:, self._width :], self._stop_ids)
        return (2 * ended.sum() >= len(ended)).expand(len(ended))


def _ended(new_ids: Tensor, stop_ids: Tensor) -> Tensor:
    return torch.isin(new_ids, stop_ids).any(dim=1)
