"""The loss: a sum of nats over supervised tokens, divided once, by whoever knows the count.

The one place where labels are shifted: the logits at token t are judged by the label of token t+1.
The output layer is applied to the judged positions alone, so that the [B, T, vocabulary] logits
never exist. Loss and reductions are float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tell_lightning.data.batches import IGNORE, Batch


def token_losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute the loss of every supervised token.

    Args:
        model: A causal LM, bare or wrapped by PEFT.
        batch: B examples of up to T tokens.

    Returns:
        Losses in nats [N], and the example that each belongs to [N], for the N supervised tokens.
    """
    targets = functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
    judged = targets != IGNORE

    def select(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0][judged], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        output = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        )
    finally:
        hook.remove()
    losses = functional.cross_entropy(output.logits.float(), targets[judged], reduction="none")
    examples = torch.arange(len(judged), device=judged.device)[:, None].expand_as(judged)[judged]
    return losses, examples


def sums_by_source(losses: Tensor, examples: Tensor, sources: Tensor, size: int) -> Tensor:
    """Add up losses, tokens and examples for each source.

    Args:
        losses: Nats of each supervised token [N].
        examples: Example of each supervised token [N].
        sources: Source of each example [B].
        size: Number of sources S.

    Returns:
        [S, 3] float32: nats, tokens, examples. An example without supervised tokens is not one.
    """
    sums = torch.zeros(size, 3, device=losses.device)
    source = sources[examples]
    sums[:, 0].index_add_(0, source, losses.detach())
    sums[:, 1].index_add_(0, source, torch.ones_like(losses))
    seen = torch.unique(examples)
    sums[:, 2].index_add_(0, sources[seen], torch.ones(len(seen), device=losses.device))
    return sums
