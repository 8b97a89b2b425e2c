"""The kernel of packed rows: each example alone, no mask, the values of `sdpa` with a mask."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from tiny_models import tiny_mistral
from transformers import PreTrainedModel

from tell_lightning.data.batches import Batch, collate, collate_unpacked, indexed
from tell_lightning.model.attention import PACKED, use_masks, use_packed_kernel
from tell_lightning.model.isolation import contamination
from tell_lightning.model.loss import token_losses


@pytest.fixture
def packed(training: ModuleType) -> Batch:
    """Three bins: three examples, none, five."""
    items = training.items()
    return indexed(collate([items[:3], [], items[3:]], training.NAMES))


def losses_and_gradients(model: Any, batch: Batch) -> list[torch.Tensor]:
    model.zero_grad()
    losses, _ = token_losses(model, batch)
    losses.sum().backward()
    return [losses.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_rows_have_the_values_of_masks(
    make_llama: Callable[..., PreTrainedModel], packed: Batch, checkpointing: bool
) -> None:
    model: Any = make_llama().train()
    wanted = losses_and_gradients(model, packed)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    assert use_packed_kernel(model, "cpu")
    assert model.config._attn_implementation == PACKED
    for found, value in zip(losses_and_gradients(model, packed), wanted, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)
    assert contamination(model.eval()) == (0, 0)


def test_packed_rows_need_no_mask_and_other_batches_are_sdpas(
    make_llama: Callable[..., PreTrainedModel],
    packed: Batch,
    training: ModuleType,
) -> None:
    model: Any = make_llama()
    alone = collate_unpacked(training.items(), training.NAMES)
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    padded = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    with torch.no_grad():
        before = token_losses(model, alone)[0], model(**padded).logits
        assert use_packed_kernel(model, "cpu")
        after = token_losses(model, alone)[0], model(**padded).logits
        assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
        seen = []
        layer = model.model.layers[0]
        hook = lambda _, __, given: seen.append(given["attention_mask"])  # noqa: E731
        with layer.register_forward_pre_hook(hook, with_kwargs=True):
            token_losses(model, packed)
    (mask,) = seen
    assert mask.numel() == 1  # nothing of the size of the rows


def test_masks_can_come_back(make_llama: Callable[..., PreTrainedModel], packed: Batch) -> None:
    model: Any = make_llama()
    with torch.no_grad():
        wanted, _ = token_losses(model, packed)
        assert use_packed_kernel(model, "cpu")
        use_masks(model)
        assert model.config._attn_implementation == "sdpa"
        assert torch.equal(token_losses(model, packed)[0], wanted)


def test_a_window_keeps_its_mask() -> None:
    assert not use_packed_kernel(tiny_mistral(sliding_window=8), "cpu")
    assert use_packed_kernel(tiny_mistral(sliding_window=None), "cpu")


def test_another_kernel_stays(make_llama: Callable[..., PreTrainedModel]) -> None:
    model = make_llama()
    model.set_attn_implementation("eager")
    assert not use_packed_kernel(model, "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: FlashAttention")
def test_flash_attention_of_a_gpu_has_the_values_of_masks(
    make_llama: Callable[..., PreTrainedModel], packed: Batch
) -> None:
    model: Any = make_llama().cuda().bfloat16()
    batch: Batch = move_data_to_device(packed, "cuda")
    wanted = losses_and_gradients(model, batch)
    assert use_packed_kernel(model, "cuda")
    for found, value in zip(losses_and_gradients(model, batch), wanted, strict=True):
        assert (found - value).norm() < 0.03 * value.norm()
