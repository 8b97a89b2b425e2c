"""Adapters: what they compute, where they go, and what they start from."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import family
from messages import says
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from tell_lightning.model.lora import (
    AdapterError,
    ParameterCount,
    add_adapters,
    check_lora,
    linear_names,
    load_adapter,
)
from tell_lightning.model.settings import LoraSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def lora(**settings: Any) -> LoraSettings:
    return LoraSettings(**{"rank": 4, "alpha": 8, "dropout": 0.0, **settings})


def adapters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if "lora_" in name}


def adapted_names(model: torch.nn.Module) -> set[str]:
    return {name.split(".lora_")[0].rpartition(".")[2] for name in adapters(model)}


@pytest.mark.parametrize(("rslora", "scale"), [(False, 8 / 4), (True, 8 / math.sqrt(4))])
def test_computes_wx_plus_scaled_bax(
    make_llama: Callable[..., PreTrainedModel], rslora: bool, scale: float
) -> None:
    model = add_adapters(make_llama(), lora(rslora=rslora), seed=0)
    layer = model.get_base_model().model.layers[1].mlp.down_proj
    weight_a, weight_b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(weight_b)
    x = torch.randn(3, 64)
    wanted = x @ layer.base_layer.weight.T + scale * (x @ weight_a.T @ weight_b.T)
    torch.testing.assert_close(layer(x), wanted)


def test_starts_as_the_base_model(make_llama: Callable[..., PreTrainedModel]) -> None:
    ids = torch.arange(1, 20)[None]
    model = add_adapters(make_llama(), lora(), seed=0).eval()
    torch.testing.assert_close(model(ids).logits, make_llama()(ids).logits)


def test_all_linear_takes_every_linear_layer_but_the_output(
    make_llama: Callable[..., PreTrainedModel],
) -> None:
    base = make_llama()
    assert linear_names(base) == LINEAR
    model = add_adapters(base, lora(target_modules="all-linear"), seed=0)
    assert sorted(adapted_names(model)) == LINEAR
    assert len(adapters(model)) == 2 * 7 * 2  # A and B, seven layers, two blocks


@pytest.mark.parametrize(
    ("targets", "names"),
    [(["q_proj", "up_proj"], {"q_proj", "up_proj"}), ("v_proj", {"v_proj"})],
)
def test_names_take_those_layers_alone(
    make_llama: Callable[..., PreTrainedModel], targets: list[str] | str, names: set[str]
) -> None:
    model = add_adapters(make_llama(), lora(target_modules=targets), seed=0)
    assert adapted_names(model) == names


def test_names_of_other_kinds_of_linear_layers() -> None:
    config = GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    assert linear_names(GPT2LMHeadModel(config)) == ["c_attn", "c_fc", "c_proj"]


@pytest.mark.parametrize("targets", [["q_proj", "query"], "query"])
def test_a_wrong_name_lists_what_exists(
    make_llama: Callable[..., PreTrainedModel], targets: list[str] | str
) -> None:
    with pytest.raises(AdapterError) as raised:
        add_adapters(make_llama(), lora(target_modules=targets), seed=0)
    assert str(raised.value) == says(
        "model.lora.target_modules", got="['query']", cure=[", ".join(LINEAR), "'all-linear'"]
    )


def test_no_name_at_all_is_an_error(make_llama: Callable[..., PreTrainedModel]) -> None:
    with pytest.raises(AdapterError, match=r"got \[\]\. Choose from: down_proj"):
        add_adapters(make_llama(), lora(target_modules=[]), seed=0)


def test_first_values_depend_on_the_seed_alone(
    make_llama: Callable[..., PreTrainedModel],
) -> None:
    found = []
    for global_seed, seed in ((1, 5), (2, 5), (1, 2**64 - 1)):
        base = make_llama()
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        found.append(adapters(add_adapters(base, lora(), seed=seed)))
        assert torch.equal(torch.get_rng_state(), before)
    first, again, other = found
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[n], other[n]) == ("lora_B" in n) for n in first)


def test_adapters_are_float32_over_a_bfloat16_base(
    make_llama: Callable[..., PreTrainedModel],
) -> None:
    model = add_adapters(make_llama().to(torch.bfloat16), lora(), seed=0)
    kinds = {("lora_" in name, p.dtype) for name, p in model.named_parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


def test_only_adapters_are_trained_and_counted(
    make_llama: Callable[..., PreTrainedModel],
) -> None:
    model = add_adapters(make_llama(), lora(target_modules=["q_proj"]), seed=0)
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.named_parameters())
    count = ParameterCount(*model.get_nb_trainable_parameters())
    assert count.trained == 2 * 4 * (32 + 32)
    assert count.total == sum(p.numel() for p in model.parameters())
    assert str(count) == (
        f"512 of {count.total:,} parameters are trained ({512 / count.total:.2%})"
    )


@pytest.mark.parametrize("name", ["mamba", "falcon-h1"])
def test_all_linear_leaves_out_what_the_kernel_of_mamba_reads_itself(name: str) -> None:
    model = add_adapters(family(name), lora(), seed=0)
    adapted = {key.rpartition(".")[2] for key in model.targeted_module_names}
    assert "in_proj" in adapted
    assert not adapted & {"out_proj", "conv1d"}
    with pytest.raises(AdapterError) as raised:
        check_lora(family(name), lora(target_modules=["in_proj", "out_proj"]))
    assert str(raised.value) == says(
        "model.lora.target_modules", got="['out_proj']", cure="'all-linear'"
    )


def test_other_models_keep_their_layer_of_that_name() -> None:
    model = add_adapters(family("opt"), lora(), seed=0)
    assert any(key.endswith("out_proj") for key in model.targeted_module_names)


def test_gpt2_is_adapted_without_a_warning() -> None:
    model = add_adapters(family("gpt2"), lora(), seed=0)
    assert model.peft_config["default"].fan_in_fan_out is True


@pytest.mark.parametrize(
    ("spoil", "rule", "cure"),
    [
        (lambda data: data[: len(data) // 2], "be read", "Copy"),
        (lambda data: b"\xff" * 8 + data[8:], "be read", "Copy"),
    ],
    ids=["truncated", "damaged"],
)
def test_weights_that_cannot_be_read_are_not_blamed_on_the_configuration(
    make_llama: Callable[..., PreTrainedModel],
    tmp_path: Path,
    spoil: Callable[[bytes], bytes],
    rule: str,
    cure: str,
) -> None:
    add_adapters(make_llama(), lora(), seed=0).save_pretrained(str(tmp_path))
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(spoil(weights.read_bytes()))
    with pytest.raises(AdapterError) as raised:
        load_adapter(make_llama(), tmp_path)
    assert str(raised.value) == says(str(tmp_path), rule=rule, cure=cure)


def test_an_adapter_config_that_cannot_be_read_is_not_blamed_on_the_base(
    make_llama: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    add_adapters(make_llama(), lora(), seed=0).save_pretrained(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterError) as raised:
        load_adapter(make_llama(), tmp_path)
    assert str(raised.value) == says(str(tmp_path), rule="adapter_config.json", cure="Copy")


def test_an_adapter_of_another_family_is_refused_with_the_advice_to_use_its_base(
    make_llama: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    add_adapters(make_llama(), lora(target_modules=["q_proj"]), seed=0).save_pretrained(
        str(tmp_path)
    )
    with pytest.raises(AdapterError) as raised:
        load_adapter(family("gpt2"), tmp_path)
    assert str(raised.value) == says(str(tmp_path), rule="fits the base", cure="model.base")
