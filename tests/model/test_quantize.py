"""A base of 4 bits a weight: what is refused, and that adapters train on it as on any other."""

import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from messages import says
from safetensors.torch import load_file

from tell_lightning.commands.check import check, check_training
from tell_lightning.model import settings as model_settings
from tell_lightning.model.base import load_base
from tell_lightning.model.lora import load_adapter
from tell_lightning.model.module import TellModule
from tell_lightning.model.settings import ModelSettings, check_quantize
from tell_lightning.settings import ConfigError

NF4 = ModelSettings(base="microworld", quantize="nf4")
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="Requires: bitsandbytes (the extra quantize)",
)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package be there, without importing it."""
    monkeypatch.setattr(model_settings, "find_spec", lambda name: name)


@pytest.fixture
def _quiet() -> Iterator[None]:
    """The package itself uses what others deprecate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_a_missing_package_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_settings, "find_spec", lambda name: None)
    config = check(["-c", "microworld", "--model.quantize=nf4"])
    cure = "pip install 'tell_lightning[quantize]'"
    refusal = says("model.quantize", rule="bitsandbytes", got="nf4", cure=cure)
    with pytest.raises(ConfigError, check=refusal):
        check_training(config)
    with pytest.raises(ConfigError, check=refusal):
        load_base(config.model)


@pytest.mark.parametrize(
    ("option", "cure"),
    [
        ("--model.dtype=float16", "model.dtype"),
        ("--trainer.strategy=fsdp2", "Leave one"),
        ("--trainer.strategy=deepspeed_stage_2", "Leave one"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(there: None, option: str, cure: str) -> None:
    config = check(["-c", "microworld", "--model.quantize=nf4", option])
    value = option.partition("=")[2]
    with pytest.raises(ConfigError, check=says("model.quantize", got="nf4", cure=cure)) as error:
        check_training(config)
    assert value in str(error.value)


def test_other_strategies_and_types_are_taken(there: None) -> None:
    for strategy in ("auto", "ddp", "None", "ddp_find_unused_parameters_true"):
        check_quantize(NF4, strategy)
    check_quantize(ModelSettings(base="x", quantize="nf4", dtype="bfloat16"))


@needs_bitsandbytes
@pytest.mark.usefixtures("_quiet")
def test_scoring_between_two_steps_changes_no_gradient() -> None:
    module = TellModule("microworld", quantize="nf4", lora={"dropout": 0.0})
    module.configure_model()
    ids = torch.arange(1, 13)[None]

    def gradients() -> list[torch.Tensor]:
        module.model.zero_grad()
        module.model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in module.parameters() if p.grad is not None]

    for name, values in module.named_parameters():  # where B = 0, A has no gradient
        if "lora_B" in name:
            torch.nn.init.normal_(values, generator=torch.Generator().manual_seed(1))
    before = gradients()
    assert all(bool(values.any()) for values in before)
    module.model.eval()
    with torch.inference_mode():
        module.model(input_ids=ids)
    module.model.train()
    assert all(map(torch.equal, gradients(), before))


@needs_bitsandbytes
@pytest.mark.usefixtures("_quiet")
def test_adapters_train_on_a_base_of_four_bits(
    training: ModuleType, llama_folder: Path, tmp_path: Path
) -> None:
    """The loss falls, the base stays, and the adapter loads again onto the same base."""
    run = training.fit(llama_folder, micro_batch=2, accumulate=4, steps=6, quantize="nf4")
    losses = [row["train/loss"] for row in run.logged if "train/loss" in row]
    assert losses[-1] < losses[0]
    layers = dict(run.module.model.get_base_model().named_modules())
    weight = layers["model.layers.0.self_attn.q_proj"].base_layer.weight
    assert (weight.dtype, weight.requires_grad) == (torch.uint8, False)
    path = tmp_path / "run.ckpt"
    run.trainer.save_checkpoint(path)
    names = torch.load(path, weights_only=True)["state_dict"]
    assert names
    assert all("lora_" in name for name in names)

    again = TellModule.load_from_checkpoint(path, weights_only=True)
    assert again.settings.quantize == "nf4"
    ids = torch.arange(1, 13)[None]
    run.module.model.eval()
    again.model.eval()
    with torch.no_grad():
        wanted = run.module.model(input_ids=ids).logits
        assert torch.equal(again.model(input_ids=ids).logits, wanted)
        run.module.model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
        base = load_base(run.module.settings)
        loaded = load_adapter(base, tmp_path / "adapter").eval()
        assert torch.allclose(loaded(input_ids=ids).logits, wanted, atol=1e-5)
    assert load_file(tmp_path / "adapter/adapter_model.safetensors")
