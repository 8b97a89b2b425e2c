"""The loss: a sum of nats over supervised tokens, divided once, by whoever knows the count.

The one place where labels are shifted: the logits at token t are judged by the label of token t+1.
The output layer is applied to the judged positions alone, so that the [B, T, vocabulary] logits
never exist. Loss and reductions are float32.

Examples that share a row see each other unless the model is called as `causal_inputs` says:
positions that restart, and neither an attention mask nor a cache. transformers then derives the
borders from the positions; with either of the two it silently does not.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tell_lightning.data.batches import IGNORE, Batch


def token_losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute the loss of every supervised token.

    Args:
        model: A causal LM, bare or wrapped by PEFT.
        batch: B rows of T tokens.

    Returns:
        Losses in nats [S], and the example that each belongs to [S], for the S supervised tokens.
    """
    targets = functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
    judged = targets != IGNORE
    inputs = causal_inputs(model, batch)
    selected = judged.view_as(inputs["input_ids"])

    def select(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0][selected], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        output = model(**inputs)
    finally:
        hook.remove()
    losses = functional.cross_entropy(output.logits.float(), targets[judged], reduction="none")
    # A first token has no label, so that a judged token and its target are of one example.
    return losses, batch.examples[judged]


def causal_inputs(model: Any, batch: Batch) -> dict[str, Any]:
    """Return the arguments under which every example attends to itself alone.

    FlashAttention in transformers 5 heeds positions that restart in a batch of one row only, so it
    is given one. A model that takes no positions is given none: it can read unpacked batches alone,
    and `isolation` refuses it others.

    Args:
        model: A causal LM, bare or wrapped by PEFT.
        batch: B rows of T tokens.
    """
    input_ids, position_ids = batch.input_ids, batch.position_ids
    if "flash" in (model.config._attn_implementation or ""):
        input_ids, position_ids = one_row(input_ids), one_row(position_ids)
    inputs = {"input_ids": input_ids, "use_cache": False}
    return {**inputs, "position_ids": position_ids} if takes_positions(model) else inputs


def one_row(values: Tensor) -> Tensor:
    """Lay the rows [B, T] one after the other: [1, B*T]."""
    return values.reshape(1, -1)


def takes_positions(model: Any) -> bool:
    """Say whether a causal LM, bare or wrapped by PEFT, has an argument for positions."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(base.forward).parameters


def sums_by_source(losses: Tensor, examples: Tensor, sources: Tensor, size: int) -> Tensor:
    """Add up losses, tokens and examples for each source.

    Args:
        losses: Nats of each supervised token [S].
        examples: Example of each supervised token [S].
        sources: Source of each example [M].
        size: Number of sources K.

    Returns:
        [K, 3] float32: nats, tokens, examples. An example without supervised tokens is not one.
    """
    sums = torch.zeros(size, 3, device=losses.device)
    source = sources[examples]
    sums[:, 0].index_add_(0, source, losses.detach())
    sums[:, 1].index_add_(0, source, torch.ones_like(losses))
    seen = torch.unique(examples)
    sums[:, 2].index_add_(0, sources[seen], torch.ones(len(seen), device=losses.device))
    return sums
