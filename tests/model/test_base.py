"""The base model and its tokenizer, and what is said when there is none."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from families import family
from messages import says
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from tell_lightning.data.tokenizer import BaseModelError, base_path
from tell_lightning.data.tokenizer import load_tokenizer as load_tokenizer_of
from tell_lightning.model import base
from tell_lightning.model.base import load_base, load_skeleton
from tell_lightning.model.settings import ModelSettings


def load_tokenizer(settings: ModelSettings) -> object:
    """Load the tokenizer of a base."""
    return load_tokenizer_of(settings.base, **settings.hub_options)


FOLDER_ADVICE = "Give a folder that `save_pretrained` wrote in full."
HUB_ADVICE = "Check the name, model.revision and the network, or give a local folder."


@pytest.fixture
def folder(llama_folder: Path, tmp_path: Path) -> Path:
    """A model folder to spoil."""
    return shutil.copytree(llama_folder, tmp_path / "model")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_HUB_OFFLINE=1 does, which is read when huggingface_hub is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def message(load: Callable[[ModelSettings], object], base: Path | str, **settings: object) -> str:
    with pytest.raises(BaseModelError) as raised:
        load(ModelSettings(base=str(base), **settings))  # type: ignore[arg-type]
    text = str(raised.value)
    assert "\n" not in text
    assert text.count("model.base:") == 1
    return text


# What is there


def test_every_weight_is_frozen_and_float32_on_a_cpu(llama_folder: Path) -> None:
    model = load_base(ModelSettings(base=str(llama_folder)))
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_settings_choose_type_and_attention(llama_folder: Path) -> None:
    settings = ModelSettings(base=str(llama_folder), dtype="bfloat16", attn_implementation="eager")
    model = load_base(settings)
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"


def test_the_embedded_default_is_a_folder_as_any_other() -> None:
    settings = ModelSettings(base="microworld")
    assert (Path(base_path(settings.base)) / "config.json").is_file()
    assert load_tokenizer(settings).eos_token_id is not None


def test_padding_falls_back_to_the_end_token(llama_folder: Path) -> None:
    tokenizer = load_tokenizer(ModelSettings(base=str(llama_folder)))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 0


def test_a_padding_token_of_its_own_is_kept(
    tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "~"}))
    loaded = load_tokenizer(ModelSettings(base=str(folder)))
    assert loaded.pad_token_id == tokenizer.convert_tokens_to_ids("~") != loaded.eos_token_id


# What is not


@pytest.mark.parametrize("load", [load_base, load_tokenizer])
def test_a_folder_without_config(load: Callable[[ModelSettings], object], folder: Path) -> None:
    (folder / "config.json").unlink()
    assert message(load, folder) == says(
        "model.base", rule="config.json", got=f"'{folder}'", cure="`save_pretrained`"
    )


@pytest.mark.parametrize("base", ["./gone", "/gone", "~/gone", "a/b/c"])
def test_a_missing_folder(base: str) -> None:
    assert message(load_base, base) == says("model.base", got=f"'{base}'", cure=str(Path.cwd()))


@pytest.mark.parametrize("spoil", [lambda data: b"garbage" * 99, lambda data: data[:5000]])
def test_corrupted_weights(folder: Path, spoil: Callable[[bytes], bytes]) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(spoil(weights.read_bytes()))
    text = message(load_base, folder)
    assert text == says("model.base", rule=f"'{folder}'")
    assert text.endswith(FOLDER_ADVICE)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    text = message(load_base, folder)
    assert "no file named model.safetensors" in text
    assert text.endswith(FOLDER_ADVICE)


def test_a_missing_weight_is_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.self_attn.q_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert message(load_base, folder) == says(
        "model.base",
        rule="config.json",
        got="1 missing",
        cure=[f"'{folder}'", "model.layers.0.self_attn.q_proj.weight", "`save_pretrained`"],
    )


def test_weights_of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))
    text = message(load_base, folder)
    assert "got 6 missing or of another shape" in text
    assert "such as model.layers.0.mlp.down_proj.weight" in text


def test_a_broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "is not a valid JSON file" in message(load_base, folder)


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_broken_tokenizer(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    text = message(load_tokenizer, folder)
    assert text == says("model.base", rule=f"'{folder}'")


def test_a_tokenizer_without_an_end_token(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert message(load_tokenizer, folder) == says(
        "model.base", got=f"none in '{folder}'", cure=["eos_token", "tokenizer_config.json"]
    )


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("load", [load_base, load_tokenizer])
@pytest.mark.parametrize("base", ["someone/their-model", "their-model"])
def test_a_hub_model_without_a_network(load: Callable[[ModelSettings], object], base: str) -> None:
    text = message(load, base)
    assert f"of '{base}' could not be loaded, got: We couldn't connect" in text
    assert text.endswith(HUB_ADVICE)


def test_an_attention_kernel_that_is_not_installed(llama_folder: Path) -> None:
    text = message(load_base, llama_folder, attn_implementation="flash_attention_2")
    assert "FlashAttention2" in text
    assert text.endswith("Install the package flash-attn, or set model.attn_implementation: sdpa.")


@pytest.mark.parametrize("load", [load_base, load_skeleton])  # refused before the folder is made
@pytest.mark.parametrize(("kernel", "other"), [("sdpa", "eager"), ("flash_attention_2", "sdpa")])
def test_an_attention_kernel_that_the_model_does_not_support(
    load: Callable[[ModelSettings], object], kernel: str, other: str, tmp_path: Path
) -> None:
    family("bloom").save_pretrained(tmp_path)
    text = message(load, tmp_path, attn_implementation=kernel)
    assert text == says("model.base", got="BloomForCausalLM does not support", cure=other)
    assert "save_pretrained" not in text


@pytest.mark.parametrize("load", [load_base, load_skeleton])
def test_an_attention_kernel_that_does_not_exist(
    load: Callable[[ModelSettings], object], llama_folder: Path
) -> None:
    text = message(load, llama_folder, attn_implementation="quick")
    assert text == says(
        "model.base", got='Specified `attn_implementation="quick"`', cure="auto, sdpa"
    )


def test_auto_takes_the_attention_that_the_model_supports(tmp_path: Path) -> None:
    family("bloom").save_pretrained(tmp_path)
    model = load_base(ModelSettings(base=str(tmp_path)))
    assert model.config._attn_implementation == "eager"


def test_code_of_the_model_does_not_run_unless_asked(folder: Path) -> None:
    assert not ModelSettings(base="microworld").trust_remote_code
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    marker = folder / "has_run"
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    text = message(load_base, folder)
    assert "contains custom code" in text
    assert text.endswith("Read that code, and set model.trust_remote_code: true if you trust it.")
    assert not marker.exists()


def test_a_large_base_computes_in_bfloat16_on_a_cpu_with_amx(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ModelSettings(base=str(llama_folder))

    def chosen(settings: ModelSettings) -> tuple[str, str]:
        return base.base_dtype(settings, "cpu"), base.default_precision(settings, "cpu")

    monkeypatch.setattr(base, "has_amx", lambda: True)
    assert chosen(given) == ("float32", "32-true")
    monkeypatch.setattr(base, "LARGE", 1000)
    assert chosen(given) == ("bfloat16", "bf16-mixed")
    assert chosen(replace(given, dtype="float32"))[0] == "float32"  # what is typed wins
    monkeypatch.setattr(base, "has_amx", lambda: False)
    assert chosen(given) == ("float32", "32-true")


def test_the_demo_stays_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "has_amx", lambda: True)
    assert base.default_precision(ModelSettings(base="microworld"), "cpu") == "32-true"
