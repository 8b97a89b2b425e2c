"""Attention over packed rows, in which each example attends to itself without a mask.

With a mask, a kernel computes the complete row and throws most of it away: in a row of 1,024 tokens
with eight examples, seven eighths. Here each example is a causal attention of its own. On a GPU, a
single kernel of PyTorch computes all of them (`torch.nn.attention.varlen`, FlashAttention for
examples of several lengths); on a CPU, one call of `scaled_dot_product_attention` each.

transformers knows it as the kernel `packed_sdpa`, which is `sdpa` everywhere else: in generation
and, on a CPU, in batches that are not packed.
"""

import inspect
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tell_lightning.data.batches import Batch
from tell_lightning.model.base import unwrapped

PACKED = "packed_sdpa"
WIDEST_HEAD = 256  # of FlashAttention


def use_packed_kernel(model: Any, device_type: str) -> bool:
    """Let a model attend to each example alone, without masks, if it and the device can.

    Call it in the precision of training: FlashAttention computes in 16 bits only.

    Args:
        model: A causal LM with `sdpa` attention, bare or wrapped by PEFT.
        device_type: The device that it computes on.

    Returns:
        Whether the kernel has changed.
    """
    base = unwrapped(model)
    config = base.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = (
        config._attn_implementation == "sdpa"
        and getattr(base, "_supports_attention_backend", False)
        and layers == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and not getattr(config, "attention_dropout", 0)
        and _passes_on(base)
    )
    if not plain or not (device_type == "cpu" or _has_varlen(base, device_type)):
        return False
    _register()
    base.set_attn_implementation(PACKED)
    return True


def use_masks(model: Any) -> None:
    """Go back to `sdpa` with a mask over the complete row."""
    unwrapped(model).set_attn_implementation("sdpa")


def borders_of(model: Any, batch: Batch) -> dict[str, Any]:
    """Return the arguments by which kernels learn where examples begin; none if they need none."""
    kernel = model.config._attn_implementation or ""
    borders = batch.borders
    if borders is None or not _passes_on(unwrapped(model)):
        return {}
    if kernel == PACKED and (batch.packed or borders.is_cuda):
        # transformers makes no mask, and asks the device nothing, where there is one of four
        # dimensions. The kernel does not read it.
        return _known(batch) | {"attention_mask": borders[:1].view(1, 1, 1, 1)}
    return _known(batch) if "flash" in kernel and batch.packed else {}


def _known(batch: Batch) -> dict[str, Any]:
    return {
        "cu_seq_lens_q": batch.borders,
        "cu_seq_lens_k": batch.borders,
        "max_length_q": batch.longest,
        "max_length_k": batch.longest,
    }


def _passes_on(base: Any) -> bool:
    """Say whether a model hands arguments that it does not know to its layers."""
    parameters = inspect.signature(base.forward).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _has_varlen(base: Any, device_type: str) -> bool:
    """Say whether the GPU's kernel trains a model of this shape in the present precision."""
    if device_type != "cuda" or torch.cuda.get_device_capability() < (8, 0):
        return False
    autocast = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type) if autocast else base.dtype
    config = base.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if dtype not in {torch.bfloat16, torch.float16} or width > WIDEST_HEAD or width % 8:
        return False
    heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    query, key, value = (
        torch.randn(8, count or heads[0], width, device=device_type, dtype=dtype).requires_grad_()
        for count in (heads[0], heads[1], heads[1])
    )
    borders = torch.tensor([0, 3, 8], dtype=torch.int32, device=device_type)
    try:
        result = _varlen(query, key, value, borders, 5, None)
        torch.autograd.grad(result.sum(), [query, key, value])
    except (ImportError, RuntimeError, ValueError):  # a build of PyTorch without FlashAttention
        return False
    return True


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int, scale: float | None
) -> Tensor:
    """Attend within the borders; tensors are [tokens, heads, width]."""
    from torch.nn.attention.varlen import varlen_attn

    causal: Any = {"window_size": (-1, 0), "enable_gqa": True, "scale": scale}
    result = varlen_attn(query, key, value, borders, borders, longest, longest, **causal)
    assert isinstance(result, Tensor)
    return result


def _split(
    query: Tensor, key: Tensor, value: Tensor, borders: Tensor, scale: float | None
) -> Tensor:
    """Attend within the borders, one example after the other.

    Args:
        query: [B, heads, T, width].
        key: The same, maybe with fewer heads.
        value: As the key.
        borders: Where examples begin in the flat batch; every row begins with one.
        scale: The factor of the products.

    Returns:
        [B, T, heads, width].
    """
    width = query.shape[2]
    sizes: list[list[int]] = [[] for _ in range(query.shape[0])]
    places = borders.tolist()
    for begin, end in pairwise(places):
        sizes[begin // width].append(end - begin)
    options: Any = {"is_causal": True, "scale": scale, "enable_gqa": query.shape[1] != key.shape[1]}
    parts = []
    for lengths, *row in zip(sizes, query, key, value, strict=True):
        for q, k, v in zip(*(tensor.split(lengths, dim=1) for tensor in row), strict=True):
            alone = functional.scaled_dot_product_attention(q[None], k[None], v[None], **options)
            parts.append(alone[0].transpose(0, 1))
    return torch.cat(parts).view(query.shape[0], width, query.shape[1], -1)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of one layer, [B, T, heads, width]; the interface of transformers."""
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
    if query.device.type == "cpu":
        return _split(query, key, value, cu_seq_lens_q, scaling), None
    autocast = torch.is_autocast_enabled(query.device.type)
    dtype = torch.get_autocast_dtype(query.device.type) if autocast else query.dtype
    q, k, v = (x.transpose(1, 2).flatten(0, 1).to(dtype) for x in (query, key, value))
    result = _varlen(q, k, v, cu_seq_lens_q, max_length_q, scaling)
    return result.view(query.shape[0], query.shape[2], query.shape[1], -1), None


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(PACKED, _attend)
    AttentionMaskInterface.register(PACKED, sdpa_mask)
