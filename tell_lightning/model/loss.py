"""The loss of each supervised token, in nats. The caller divides the sum by the number of tokens.

Only here are labels shifted: the logits at token t are compared with the label of token t+1. The
output layer is applied only at positions with a target, so the [B, T, vocabulary] logits never
exist. Loss and reductions are float32.

Examples in one row stay separate only with the arguments of `causal_inputs`: restarting positions,
no attention mask and no cache. With a mask or a cache, transformers silently ignores the restarts.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tell_lightning.data.batches import IGNORE, Batch
from tell_lightning.model.base import unwrapped


def token_losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute the loss of every supervised token.

    Args:
        model: A causal LM, bare or wrapped by PEFT.
        batch: B rows of T tokens.

    Returns:
        For the S supervised tokens: losses in nats [S], and the index of the example [S].
    """
    targets = functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
    has_target = targets != IGNORE
    inputs = causal_inputs(model, batch)
    selected = has_target.view_as(inputs["input_ids"])

    def select(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0][selected], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        output = model(**inputs)
    finally:
        hook.remove()
    losses = functional.cross_entropy(output.logits.float(), targets[has_target], reduction="none")
    # The first token of an example has no label, so a token and its target are in one example.
    return losses, batch.examples[has_target]


def causal_inputs(model: Any, batch: Batch) -> dict[str, Any]:
    """Return the arguments with which every example attends only to itself.

    FlashAttention in transformers 5 only respects restarting positions in a batch of one row, so
    the rows are joined for it. A model that takes no positions gets none; `isolation` refuses to
    train it on packed batches.

    Args:
        model: A causal LM, bare or wrapped by PEFT.
        batch: B rows of T tokens.
    """
    inputs = {"input_ids": batch.input_ids}
    if takes_positions(model):
        inputs["position_ids"] = batch.position_ids
    if "flash" in (model.config._attn_implementation or ""):
        inputs = {name: values.reshape(1, -1) for name, values in inputs.items()}
    return {**inputs, "use_cache": False}


def takes_positions(model: Any) -> bool:
    """Say whether a causal LM, bare or wrapped by PEFT, has an argument for positions."""
    return "position_ids" in inspect.signature(unwrapped(model).forward).parameters


def sums_by_source(losses: Tensor, examples: Tensor, sources: Tensor, size: int) -> Tensor:
    """Add up losses, tokens and examples for each source.

    Args:
        losses: Nats of each supervised token [S].
        examples: Index of the example of each supervised token [S].
        sources: Source of each example [M].
        size: Number of sources K.

    Returns:
        [K, 3] float32: nats, tokens, examples. Examples without supervised tokens do not count.
    """
    sums = torch.zeros(size, 3, device=losses.device)
    source = sources[examples]
    sums[:, 0].index_add_(0, source, losses.detach())
    sums[:, 1].index_add_(0, source, torch.ones_like(losses))
    seen = torch.unique(examples)
    sums[:, 2].index_add_(0, sources[seen], torch.ones(len(seen), device=losses.device))
    return sums
