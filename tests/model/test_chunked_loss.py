"""A loss computed in parts has the values and gradients of one computed at once."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
)

from tell_lightning.data.batches import Batch, indexed
from tell_lightning.model import loss
from tell_lightning.model.lora import add_adapters
from tell_lightning.model.loss import token_losses
from tell_lightning.model.settings import LoraSettings

VOCABULARY = 96
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}


@pytest.fixture
def batch(training: ModuleType) -> Batch:
    return indexed(training.batch_of(range(8)))


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Compute the logits of some tokens at a time."""
    return lambda tokens: monkeypatch.setattr(loss, "CHUNK", tokens * VOCABULARY)


def step(model: Any, batch: Batch, *, autocast: bool = False) -> tuple[Tensor, list[Tensor]]:
    """The losses, and the gradients of a weighted sum of them."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses, _ = token_losses(model, batch)
    (losses * torch.linspace(0.5, 2, len(losses))).sum().backward()
    return losses.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]


def adapted(base: Any) -> Any:
    base.requires_grad_(False)
    model = add_adapters(base, LoraSettings(rank=2, dropout=0), seed=0)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("tokens", [1, 7, 50])
def test_parts_have_the_values_of_the_whole(
    make_llama: Callable[..., PreTrainedModel],
    batch: Batch,
    parts: Callable[[int], None],
    tied: bool,
    tokens: int,
) -> None:
    model = adapted(make_llama(tied=tied))
    wanted, gradients = step(model, batch)
    parts(tokens)
    shapes = []
    head = model.get_output_embeddings()
    with head.register_forward_hook(lambda _, __, y: shapes.append(y.shape[0])):
        found, others = step(model, batch)
    assert max(shapes) <= tokens
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for gradient, other in zip(gradients, others, strict=True):
        assert (other - gradient).norm() < 1e-5 * gradient.norm()


def test_parts_are_as_exact_in_bfloat16(
    make_llama: Callable[..., PreTrainedModel], batch: Batch, parts: Callable[[int], None]
) -> None:
    model = adapted(make_llama())
    wanted, gradients = step(model, batch, autocast=True)
    parts(9)
    found, others = step(model, batch, autocast=True)
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)
    for gradient, other in zip(gradients, others, strict=True):
        assert (other - gradient).norm() < 0.02 * gradient.norm()


def test_no_gradient_is_kept_for_a_loss_without_training(
    make_llama: Callable[..., PreTrainedModel], batch: Batch, parts: Callable[[int], None]
) -> None:
    model = adapted(make_llama())
    with torch.inference_mode():
        wanted, _ = token_losses(model, batch)
        parts(9)
        found, _ = token_losses(model, batch)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gemma", "cohere", "granite"])
def test_a_model_that_changes_its_logits_computes_them_at_once(
    family: str,
    make_gemma: Callable[[], PreTrainedModel],
    batch: Batch,
    parts: Callable[[int], None],
) -> None:
    made: dict[str, Callable[[], Any]] = {
        "gemma": make_gemma,
        "cohere": lambda: CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.25)),
        "granite": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=4.0)),
    }
    model = adapted(made[family]())
    wanted, gradients = step(model, batch)
    parts(9)
    found, others = step(model, batch)
    assert torch.equal(found, wanted)
    assert all(map(torch.equal, gradients, others))


def test_a_trained_output_layer_computes_them_at_once(
    make_llama: Callable[..., PreTrainedModel], batch: Batch, parts: Callable[[int], None]
) -> None:
    model = make_llama()
    wanted, gradients = step(model, batch)
    parts(9)
    found, others = step(model, batch)
    assert torch.equal(found, wanted)
    assert all(map(torch.equal, gradients, others))


@pytest.mark.long
def test_a_vocabulary_of_262144_does_not_decide_the_memory() -> None:
    """All logits at once would take 805 MB, and three times that with their gradients."""
    code = """
    import resource
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from tell_lightning.data.batches import Item, collate_unpacked
    from tell_lightning.model.loss import token_losses

    torch.set_num_threads(1)
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=262144, **shape)).requires_grad_(False)
    model.get_input_embeddings().register_forward_hook(lambda _, __, y: y.requires_grad_())
    items = [Item([5] * 257, [False] + [True] * 256, 0, n, n) for n in range(3)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    losses, _ = token_losses(model, collate_unpacked(items))
    losses.sum().backward()
    print(len(losses), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tokens, kibibytes = map(int, done.stdout.split())
    assert tokens == 768
    assert kibibytes < 1.3 * 2**20
