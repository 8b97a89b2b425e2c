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

from tell_lightning.data.batches import Batch, indexed
from tell_lightning.model.attention import borders_of, without_masks
from tell_lightning.model.base import unwrapped


def token_losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute the loss of every supervised token.

    Args:
        model: A causal LM, bare or wrapped by PEFT.
        batch: B rows of T tokens.

    Returns:
        For the S supervised tokens: losses in nats [S], and the index of the example [S].
    """
    batch = indexed(batch)
    assert batch.targets is not None
    places, targets, examples = batch.targets

    def select(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden: Tensor = inputs[0]
        return (hidden.flatten(0, 1).index_select(0, places), *inputs[1:])

    with model.get_output_embeddings().register_forward_pre_hook(select):
        output = run(model, batch)
    losses = functional.cross_entropy(output.logits.float(), targets, reduction="none")
    return losses, examples


def run(model: Any, batch: Batch) -> Any:
    """Return the output of a causal LM for a batch, in which every example attends to itself."""
    inputs = causal_inputs(model, batch)
    with without_masks("cu_seq_lens_q" in inputs):
        return model(**inputs)


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
    return {**inputs, **borders_of(model, batch), "use_cache": False}


def takes_positions(model: Any) -> bool:
    """Say whether a causal LM, bare or wrapped by PEFT, has an argument for positions."""
    return "position_ids" in inspect.signature(unwrapped(model).forward).parameters


def sums_by_source(losses: Tensor, batch: Batch) -> Tensor:
    """Add up losses, tokens and examples for each source.

    Args:
        losses: Nats of each supervised token [S].
        batch: The batch that they are of.

    Returns:
        [K, 3] float32: nats, tokens, examples. Examples without supervised tokens do not count.
    """
    batch = indexed(batch)
    assert batch.targets is not None
    assert batch.counts is not None
    nats = torch.zeros(len(batch.names), 1, device=losses.device)
    nats[:, 0].index_add_(0, batch.sources[batch.targets[2]], losses.detach())
    return torch.cat([nats, batch.counts], dim=1)
