"""The product of an adapter without PEFT's extra passes over the activations.

PEFT computes `result + lora_B(lora_A(dropout(x))) * scaling` with two tensors of the size of the
result and two of the size of x, and keeps the latter two for the backward pass. Here one product is
added in place, and only x, which neighbouring layers share, and one byte of mask an element are
kept. Dropout draws the same random numbers. In float32 the values are PEFT's to the bit if
alpha / rank is a power of two, as it is by default.

Only the class of PEFT's layers changes: their parameters, files and methods stay. A layer that is
merged, switched off, quantised or a variant of LoRA computes as PEFT does.
"""

from functools import cache
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

_backward_of_dropout = torch.ops.aten.native_dropout_backward


class FusedLinear(Linear):
    """PEFT's LoRA layer with another forward pass."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the layer's result with that of its adapter added."""
        if args or kwargs or (name := self._plain_adapter()) is None:
            return super().forward(x, *args, **kwargs)
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        mixed = torch.is_autocast_enabled(x.device.type)
        if not mixed and (x.dtype != a.dtype or self.base_layer.weight.dtype != a.dtype):
            return super().forward(x)
        result = self.base_layer(x).contiguous()
        dropout = self.lora_dropout[name]
        share = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        function: Any = _AddProduct
        added: Tensor = function.apply(result, x, a, b, self.scaling[name], share)
        return added

    def _plain_adapter(self) -> str | None:
        """Return the name of the adapter if it is a single one of ordinary LoRA."""
        if self.disable_adapters or self.merged or torch.compiler.is_compiling():
            return None
        active = [name for name in self.active_adapters if name in self.lora_A]
        if len(active) != 1 or active[0] in self.lora_variant or self.lora_bias[active[0]]:
            return None
        usual = isinstance(self.lora_dropout[active[0]], nn.Dropout | nn.Identity)
        sharded = isinstance(self.lora_A[active[0]].weight, DTensor)
        return active[0] if usual and not sharded else None


class _AddProduct(torch.autograd.Function):
    """result += scale * dropout(x) @ a.T @ b.T, in place."""

    @staticmethod
    def forward(
        ctx: Any, result: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, share: float
    ) -> Tensor:
        """Add the product; a [rank, in] and b [out, rank] may have another type than the result."""
        low_a, low_b = a.to(result.dtype), b.to(result.dtype)
        rows = x.reshape(-1, x.shape[-1]).to(result.dtype)
        rows, mask = _dropped(rows, share)
        inner = rows @ low_a.t()
        result.view(-1, result.shape[-1]).addmm_(inner, low_b.t(), alpha=scale)
        ctx.mark_dirty(result)
        ctx.save_for_backward(x, mask, inner, low_a, low_b)
        ctx.scale, ctx.kept, ctx.dtype = scale, _weight_of_kept(rows, share), a.dtype
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the result, of x, a and b."""
        x, mask, inner, a, b = ctx.saved_tensors
        above = gradient.reshape(-1, gradient.shape[-1])
        of_inner = (above @ b).mul_(ctx.scale)
        of_x = of_a = of_b = None
        if ctx.needs_input_grad[1]:
            of_x = of_inner @ a
            if mask is not None:
                of_x = _backward_of_dropout(of_x, mask, ctx.kept)
            of_x = of_x.view_as(x).to(x.dtype)
        if ctx.needs_input_grad[2]:
            rows = x.reshape(-1, x.shape[-1]).to(of_inner.dtype)
            if mask is not None:
                rows = _backward_of_dropout(rows, mask, ctx.kept)
            of_a = (rows.t() @ of_inner).t().to(ctx.dtype)
        if ctx.needs_input_grad[3]:
            of_b = (inner.t() @ above).t().mul(ctx.scale).to(ctx.dtype)
        return gradient, of_x, of_a, of_b, None, None


def _dropped(rows: Tensor, share: float) -> tuple[Tensor, Tensor | None]:
    """Return the rows after dropout, and the mask; with the random numbers of `nn.Dropout`."""
    if not share:
        return rows, None
    if rows.device.type != "cpu":
        dropped: tuple[Tensor, Tensor] = torch.native_dropout(rows, share, True)
        return dropped
    mask = torch.empty(rows.shape, dtype=torch.bool).bernoulli_(1 - share)
    kept: Tensor = _backward_of_dropout(rows, mask, _weight_of_kept(rows, share))
    return kept, mask


def _weight_of_kept(rows: Tensor, share: float) -> float:
    """Return the factor of what dropout keeps."""
    return _rounded(share) if rows.device.type == "cpu" else 1 / (1 - share)


@cache
def _rounded(share: float) -> float:
    """Return the factor as `nn.Dropout` rounds it on a CPU."""
    return float(torch.ones(()).div(1 - share))


def fuse(model: Any) -> Any:
    """Give every ordinary LoRA layer of a PEFT model the fast forward pass; return the model."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.__class__ = FusedLinear
    return model
