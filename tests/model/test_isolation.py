"""A model in which examples of one row see each other is refused; the others are left as is."""

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    PreTrainedModel,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from tell_lightning.model import loss
from tell_lightning.model.isolation import IsolationError, check_isolation, contamination
from tell_lightning.model.lora import add_adapters
from tell_lightning.model.settings import LoraSettings

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}


def falcon() -> Any:
    """Attention, which does not ask where positions restart."""
    return FalconForCausalLM(FalconConfig(**SMALL))


def convolution() -> Any:
    """A convolution over three tokens below the attention."""
    layers = ["conv", "full_attention"]
    config = Lfm2Config(**SMALL, intermediate_size=64, num_key_value_heads=2, layer_types=layers)
    return Lfm2ForCausalLM(config)


def recurrence() -> Any:
    """Recurrent layers whose state starts anew at position 0, and whose convolution does not."""
    blocks = ["recurrent", "attention"]
    config = RecurrentGemmaConfig(
        **SMALL,
        intermediate_size=64,
        num_key_value_heads=2,
        head_dim=8,
        lru_width=32,
        block_types=blocks,
    )
    return RecurrentGemmaForCausalLM(config)


def heedless(make_llama: Callable[..., PreTrainedModel]) -> Any:
    """A Llama that takes positions and forgets them."""
    model = make_llama()

    def forget(_: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        return args, {**given, "position_ids": None}

    model.model.register_forward_pre_hook(forget, with_kwargs=True)
    return model


def heedless_embeddings(make_llama: Callable[..., PreTrainedModel]) -> Any:
    """A Llama that gives every token an embedding of its place in the row."""
    model = make_llama()
    places = torch.randn(64, 32, generator=torch.Generator().manual_seed(2))

    def add(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output + places[: output.shape[1]]

    model.get_input_embeddings().register_forward_hook(add)
    return model


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_llama_keeps_examples_apart(
    make_llama: Callable[..., PreTrainedModel], kind: torch.dtype, attention: str
) -> None:
    model = make_llama().to(kind)
    model.set_attn_implementation(attention)
    check_isolation(model)
    seen, moved = contamination(model)
    assert seen == 0  # in any type: the passes that are compared differ in nothing else
    assert moved < 0.1


def test_a_gemma_and_adapters_keep_examples_apart(
    make_gemma: Callable[[], PreTrainedModel], make_llama: Callable[..., PreTrainedModel]
) -> None:
    check_isolation(make_gemma())
    check_isolation(add_adapters(make_llama(), LoraSettings(dropout=0.5), seed=0).train())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [falcon, convolution, recurrence])
def test_a_model_that_goes_on_over_the_border_is_refused(
    make: Callable[[], Any], kind: torch.dtype
) -> None:
    torch.manual_seed(1)
    model = make().to(kind)
    with pytest.raises(IsolationError, match=rf"data\.packing: .* got {type(model).__name__}"):
        check_isolation(model)


def test_a_model_that_forgets_the_positions_is_refused(
    make_llama: Callable[..., PreTrainedModel],
) -> None:
    model = heedless(make_llama)
    with pytest.raises(IsolationError, match="before it in its row, got LlamaForCausalLM"):
        check_isolation(model)
    with pytest.raises(IsolationError, match="got LlamaForCausalLM with sdpa attention"):
        check_isolation(add_adapters(model, LoraSettings(), seed=0))


def test_positions_that_do_not_restart_are_refused_though_nothing_is_seen(
    make_llama: Callable[..., PreTrainedModel],
) -> None:
    model = heedless_embeddings(make_llama)
    seen, moved = contamination(model)
    assert seen == 0
    assert moved > 0.5
    with pytest.raises(IsolationError, match="another neighbour makes 0%"):
        check_isolation(model)


def test_a_call_with_an_attention_mask_is_refused(
    make_llama: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tell_lightning.model import isolation

    def with_mask(model: Any, batch: Any) -> dict[str, Any]:
        mask = torch.ones_like(batch.input_ids)
        return {**loss.causal_inputs(model, batch), "attention_mask": mask}

    monkeypatch.setattr(isolation, "causal_inputs", with_mask)
    with pytest.raises(IsolationError, match="whatever is before it in its row"):
        check_isolation(make_llama())


def test_a_model_without_positions_is_refused() -> None:
    config = BloomConfig(vocab_size=96, hidden_size=32, n_layer=1, n_head=4)
    with pytest.raises(IsolationError) as raised:
        check_isolation(BloomForCausalLM(config))
    assert str(raised.value) == (
        "data.packing: needs a model whose forward takes position_ids, which tell it where an "
        "example begins, got BloomForCausalLM, which takes none. Set data.packing: false."
    )


@pytest.mark.parametrize("leaks", [False, True])
def test_modes_random_states_and_weights_are_as_before(
    make_llama: Callable[..., PreTrainedModel], leaks: bool
) -> None:
    base = heedless(make_llama) if leaks else make_llama()
    model = add_adapters(base, LoraSettings(dropout=0.5), seed=0).train()
    layers = list(model.modules())
    layers[3].training = False  # modes may be mixed
    modes = [layer.training for layer in layers]
    weights = copy.deepcopy(model.state_dict())
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    if leaks:
        with pytest.raises(IsolationError):
            check_isolation(model)
    else:
        check_isolation(model)
    assert [layer.training for layer in layers] == modes
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_computes_nothing_usable_is_refused(
    make_llama: Callable[..., PreTrainedModel],
) -> None:
    model = make_llama()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(IsolationError):
        check_isolation(model)
