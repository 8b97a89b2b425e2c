"""Greedy answers to many prompts, the same as if each were answered alone.

Token ids of prompts enter; text and token ids of the answers leave, in the order of the prompts.
Prompts of similar length share a batch, padded on the left here (the tokenizer is only asked to
decode), and a batch holds at most `batch_tokens` tokens once its answers are written:

    . . . . Q Q | A A A .        longest prompt + max_new_tokens wide
    . . Q Q Q Q | A . . .        '.' is masked or cut off, A ends before the stop token

Memory is bounded by `batch_tokens`; time is one forward pass per new token of a batch. Runs on the
calling process alone: no collectives, so ranks may have different numbers of prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from transformers import GenerationConfig

from tell_lightning.errors import TellError
from tell_lightning.generation.evaluating import evaluating

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class GenerationError(TellError):
    """Prompts or limits that nothing can be generated from."""


@dataclass(frozen=True)
class Generated:
    """One answer."""

    text: str
    """The decoded answer, special tokens skipped, white space as generated."""
    token_ids: tuple[int, ...]
    """The new tokens before the first stop token."""
    stopped: bool
    """Whether a stop token ended the answer; else it reached `max_new_tokens`."""


def generate(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    batch_tokens: int,
) -> list[Generated]:
    """Answer prompts greedily.

    The model runs in eval mode, without gradients and without the sampling and penalty defaults
    that hub models carry; afterwards each of its modules is in the mode it was in before.

    Args:
        model: A causal language model; it stays on its device and in its precision.
        tokenizer: Decodes the answers; it is not changed.
        prompts: Token ids of each prompt, not padded; at least one id each.
        stop_ids: Ids that end an answer, at least one.
        max_new_tokens: Longest answer in tokens, stop token included; at least 1.
        batch_tokens: Most tokens of a batch, prompts, padding and answers together; a prompt that
            needs more on its own is answered alone.

    Returns:
        One answer per prompt, in the same order.

    Raises:
        GenerationError: A prompt without tokens, no stop token, or max_new_tokens below 1.
    """
    _check(prompts, stop_ids, max_new_tokens)
    answers: dict[int, Generated] = {}
    with evaluating(model), torch.inference_mode():
        for rows in _batches([len(prompt) for prompt in prompts], max_new_tokens, batch_tokens):
            batch = [prompts[row] for row in rows]
            new_ids = _generate_batch(model, batch, stop_ids, max_new_tokens)
            for row, ids in zip(rows, new_ids, strict=True):
                answers[row] = _answer(tokenizer, ids, frozenset(stop_ids))
    return [answers[row] for row in range(len(prompts))]


def _batches(lengths: Sequence[int], max_new_tokens: int, batch_tokens: int) -> list[list[int]]:
    """Group rows of similar length, longest first: what does not fit in memory fails at once."""
    batches: list[list[int]] = []
    width = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and (len(batches[-1]) + 1) * width <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
            width = lengths[row] + max_new_tokens
    return batches


def _generate_batch(
    model: "PreTrainedModel | PeftModel",
    prompts: Sequence[Sequence[int]],
    stop_ids: Sequence[int],
    max_new_tokens: int,
) -> list[list[int]]:
    pad_id = stop_ids[0]  # any id will do: it is masked in prompts and cut off in answers
    input_ids, mask = _pad_left(prompts, pad_id)
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_ids),
        pad_token_id=pad_id,
    )
    run = cast("Callable[..., Tensor]", model.generate)  # a mix-in that the base class lacks
    output = run(
        input_ids=input_ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=config,
    )
    new_ids: list[list[int]] = output[:, input_ids.shape[1] :].tolist()
    return new_ids


def _pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask; transformers counts positions from the mask."""
    width = max(map(len, prompts))
    ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _answer(
    tokenizer: "PreTrainedTokenizerBase", new_ids: Sequence[int], stop_ids: frozenset[int]
) -> Generated:
    end = next((i for i, token in enumerate(new_ids) if token in stop_ids), None)
    kept = list(new_ids[:end])
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return Generated(text, tuple(kept), end is not None)


def _check(prompts: Sequence[Sequence[int]], stop_ids: Sequence[int], max_new_tokens: int) -> None:
    empty = [row for row, prompt in enumerate(prompts) if not prompt]
    if empty:
        raise GenerationError(
            f"prompts: each needs one token or more, got none in prompt {empty[0]} (from 0). "
            "Check the template and the row."
        )
    if not stop_ids:
        raise GenerationError(
            "stop_ids: generation needs one stop token or more, got none. "
            "Use a tokenizer that has an end-of-text or end-of-turn token."
        )
    if max_new_tokens < 1:
        raise GenerationError(
            f"max_new_tokens: must be 1 or more, got {max_new_tokens}. Set a larger cap."
        )
