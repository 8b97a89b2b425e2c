"""The fast product of an adapter is PEFT's: values, gradients and random numbers."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from tell_lightning.model.fused import FusedLinear, fuse

Made = tuple[Any, Any]


@pytest.fixture
def pair(make_llama: Callable[..., PreTrainedModel]) -> Callable[..., Made]:
    """PEFT's model and the same one with fast layers; B is not zero."""

    def make(alpha: int = 32, **options: Any) -> Made:
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=16,
            lora_alpha=alpha,
            lora_dropout=0.1,
            target_modules="all-linear",
            **options,
        )
        base = make_llama()
        base.requires_grad_(False)
        theirs = get_peft_model(base, config).train()
        for name, parameter in theirs.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(parameter, std=0.1)
        return theirs, fuse(copy.deepcopy(theirs))

    return make


def step(model: Any, *, autocast: bool = False) -> tuple[Tensor, list[Tensor]]:
    """The logits of a batch, and the gradients of the adapters."""
    ids = torch.arange(60).view(3, 20)
    model.zero_grad()
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(input_ids=ids, use_cache=False).logits
    logits.float().square().mean().backward()
    return logits.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]


def test_is_pefts_to_the_bit_by_default(pair: Callable[..., Made]) -> None:
    theirs, ours = pair()
    assert sum(isinstance(module, FusedLinear) for module in ours.modules()) == 14
    for wanted, found in zip(step(theirs)[1], step(ours)[1], strict=True):
        assert wanted.any()
        assert torch.equal(wanted, found)
    assert torch.equal(step(theirs)[0], step(ours)[0])


@pytest.mark.parametrize("options", [{"alpha": 20}, {"use_rslora": True}])
def test_is_pefts_with_any_scale(pair: Callable[..., Made], options: dict[str, Any]) -> None:
    theirs, ours = pair(**options)
    for wanted, found in zip(step(theirs)[1], step(ours)[1], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_is_as_exact_as_peft_under_autocast(pair: Callable[..., Made]) -> None:
    theirs, ours = pair()
    exact = step(theirs)[1]

    def error(model: Any) -> float:
        gradients = step(model, autocast=True)[1]
        pairs = zip(gradients, exact, strict=True)
        return max(float((a - b).norm() / b.norm()) for a, b in pairs)

    assert error(ours) < 1.25 * error(theirs)


def test_answers_without_gradients_and_with_the_adapter_off(pair: Callable[..., Made]) -> None:
    theirs, ours = (model.eval() for model in pair())
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits, ours(ids).logits)
        with theirs.disable_adapter(), ours.disable_adapter():
            assert torch.equal(theirs(ids).logits, ours(ids).logits)
        for model in (theirs, ours):
            model.merge_adapter()
        assert torch.equal(theirs(ids).logits, ours(ids).logits)
    assert theirs.state_dict().keys() == ours.state_dict().keys()


def test_is_recomputed_with_the_same_dropout(pair: Callable[..., Made]) -> None:
    _, ours = pair()
    layer = ours.get_base_model().model.layers[0].mlp.gate_proj
    x = torch.randn(5, 32)

    def gradient(run: Callable[[], Tensor]) -> Tensor:
        layer.zero_grad()
        torch.manual_seed(1)
        run().square().sum().backward()
        return layer.lora_A["default"].weight.grad.clone()

    again: Callable[[], Any] = lambda: checkpoint(layer, x, use_reentrant=False)  # noqa: E731
    assert torch.equal(gradient(lambda: layer(x)), gradient(again))


@pytest.fixture
def kept() -> Iterator[list[int]]:
    """The bytes that autograd keeps for the backward pass, every tensor once."""
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        total[0] = sum(seen.values())
        return tensor

    total = [0]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total


def test_keeps_less_for_the_backward_pass(pair: Callable[..., Made], kept: list[int]) -> None:
    theirs, ours = pair()
    sizes = []
    for model in (theirs, ours):
        layer = model.get_base_model().model.layers[0].mlp.down_proj
        before = kept[0]
        outputs = layer(torch.randn(4096, 64, requires_grad=True))
        sizes.append(kept[0] - before)
        assert outputs.requires_grad
    assert sizes[1] < 0.8 * sizes[0]


def test_a_variant_of_lora_computes_as_peft_does(pair: Callable[..., Made]) -> None:
    theirs, ours = pair(use_dora=True)
    assert torch.equal(step(theirs)[0], step(ours)[0])
