"""The loss of each supervised token, in nats. The caller divides the sum by the number of tokens.

Only here are labels shifted: the logits at token t are compared with the label of token t+1. The
output layer is applied only at positions with a target, so the [B, T, vocabulary] logits never
exist. If their number times the vocabulary is large, the logits of all of them do not exist at once
either (`_Chunks`). Loss and reductions are float32.

Examples in one row stay separate only with the arguments of `causal_inputs`: restarting positions,
no attention mask and no cache. With a mask or a cache, transformers silently ignores the restarts.
"""

import inspect
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor
from torch.nn import functional

from tell_lightning.data.batches import Batch, indexed
from tell_lightning.model.attention import borders_of
from tell_lightning.model.base import unwrapped
from tell_lightning.model.evaluating import evaluating

CHUNK = 2**26
"""Most logits that are computed at once: 256 MiB in float32, several times that with what the loss
and its gradient need. With a vocabulary of 49,152 that is 1,365 tokens, with one of 262,144, 256.
"""
_PLAIN_HEADS: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


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
    head = model.get_output_embeddings()
    rows = max(1, CHUNK // unwrapped(model).config.get_text_config().vocab_size)
    chunked = len(places) > rows and _gives_logits(model, head)
    chosen: list[Tensor] = []

    def select(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        chosen.append(inputs[0].flatten(0, 1).index_select(0, places))
        return (chosen[0][:1] if chunked else chosen[0], *inputs[1:])

    with head.register_forward_pre_hook(select):
        output = model(**causal_inputs(model, batch))
    if not chunked:
        return _cross_entropy(output.logits, targets), examples
    function: Any = _Chunks
    losses: Tensor = function.apply(chosen[0], head, targets, rows)
    return losses, examples


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), targets, reduction="none")


class _Chunks(torch.autograd.Function):
    """The loss of hidden states, a part of them at a time.

    The gradient of a token's loss is computed with the loss and kept, a row as wide as the model
    instead of the vocabulary. The backward pass only multiplies it.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Any, targets: Tensor, rows: int) -> Tensor:
        """Return the losses [S] of hidden states [S, width]; the output layer is frozen."""
        trained = ctx.needs_input_grad[0]
        losses: list[Tensor] = []
        gradients: list[Tensor] = []
        parts = torch.split(hidden, rows), torch.split(targets, rows)
        for part, wanted in zip(*parts, strict=True):
            with torch.set_grad_enabled(trained):
                states = part.detach().requires_grad_(trained)
                loss = _cross_entropy(head(states), wanted)
                if trained:
                    gradients += torch.autograd.grad(loss.sum(), states)
            losses.append(loss.detach())
        if trained:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the hidden states."""
        (gradients,) = ctx.saved_tensors
        return (gradients * above[:, None]).to(gradients.dtype), None, None, None


def _gives_logits(model: Any, head: nn.Module) -> bool:
    """Say whether the logits are what the frozen output layer returns, as it stands.

    Some models bend or scale them afterwards (Gemma 2, Cohere, Granite): two tokens show that. A
    sharded layer has its weights only within the forward pass of the model.
    """
    base = unwrapped(model)
    if base not in _PLAIN_HEADS:
        parameters = list(head.parameters())
        usual = not any(isinstance(p, DTensor) or p.requires_grad for p in parameters)
        _PLAIN_HEADS[base] = usual and _is_last(model, head, parameters[0].device)
    return _PLAIN_HEADS[base]


@torch.no_grad()
def _is_last(model: Any, head: nn.Module, device: torch.device) -> bool:
    outputs: list[Tensor] = []
    with evaluating(model), head.register_forward_hook(lambda _, __, y: outputs.append(y)):
        logits = model(input_ids=torch.tensor([[0, 1]], device=device), use_cache=False).logits
    return torch.equal(outputs[-1].float(), logits.float())


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
