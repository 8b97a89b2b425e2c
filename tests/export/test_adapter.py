"""An adapter folder: read by plain PEFT, the same bytes every time, whole or not there."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokenizer import base_path, load_tokenizer
from tell_lightning.export import adapter
from tell_lightning.export.adapter import write_adapter
from tell_lightning.export.anchor_file import AnchorFile, read_anchor_file
from tell_lightning.files import sha256_of
from tell_lightning.model.settings import ModelSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

IDS = torch.arange(5, 45)[None]


@pytest.fixture
def saved(
    make_model: Callable[..., Any],
    tokenizer: Any,
    settings: ModelSettings,
    anchors: AnchorFile,
    tmp_path: Path,
) -> tuple[Any, Path]:
    """A model, and the folder that it was saved in."""
    model = make_model()
    write_adapter(model, tokenizer, tmp_path / "run" / "adapter", settings, anchors)
    return model, tmp_path / "run" / "adapter"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# The adapter


def test_plain_peft_gives_the_same_logits(saved: tuple[Any, Path], settings: ModelSettings) -> None:
    model, folder = saved
    base = AutoModelForCausalLM.from_pretrained(base_path(settings.base), dtype=torch.float32)
    of_base = logits(base)
    loaded = PeftModel.from_pretrained(base, str(folder))
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.allclose(logits(loaded), of_base, atol=0.1)


def test_peft_finds_the_base_by_itself(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    loaded = AutoPeftModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    assert torch.equal(logits(loaded), logits(model))


def test_the_readme_shows_how_to_load_it(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = saved
    readme = (folder / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace('"adapter"', repr(str(folder))), names)
    assert torch.equal(logits(names["model"]), logits(model))
    assert "[More Information Needed]" not in readme


def test_the_readme_names_the_revision(
    make_model: Callable[..., Any], tokenizer: Any, anchors: AnchorFile, tmp_path: Path
) -> None:
    settings = ModelSettings(base="someone/model", revision="abc123")
    write_adapter(make_model(), tokenizer, tmp_path / "adapter", settings, anchors)
    readme = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert '("someone/model", revision="abc123", dtype="float32")' in readme
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("someone/model", "abc123")


def test_the_tokenizer_is_the_base_models(saved: tuple[Any, Path], tokenizer: Any) -> None:
    loaded = AutoTokenizer.from_pretrained(str(saved[1]))
    text = "A sentence, 12 of them.\n"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.chat_template == tokenizer.chat_template
    assert (loaded.eos_token, loaded.pad_token) == (tokenizer.eos_token, tokenizer.pad_token)


def test_target_modules_are_sorted(saved: tuple[Any, Path]) -> None:
    config = json.loads((saved[1] / "adapter_config.json").read_text())
    targets = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert config["target_modules"] == targets
    assert config["inference_mode"]


def test_holds_the_adapter_and_no_base_weights(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    trained = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert 4 * trained <= size < 4 * trained + 20_000


def test_holds_the_anchors(saved: tuple[Any, Path], anchors: AnchorFile) -> None:
    digest = sha256_of(saved[1] / "adapter_model.safetensors")
    assert read_anchor_file(saved[1]) == replace(anchors, weights_sha256=digest)
    assert "Þýddu á ensku." in (saved[1] / "anchor.json").read_text(encoding="utf-8")


# The folder


def test_saving_twice_gives_the_same_bytes(
    saved: tuple[Any, Path],
    make_model: Callable[..., Any],
    tokenizer: Any,
    settings: ModelSettings,
    anchors: AnchorFile,
    tmp_path: Path,
) -> None:
    again = make_model()
    config = again.peft_config["default"]
    # A set has another order in another process; this one stands for it.
    config.target_modules = list(reversed(sorted(config.target_modules)))
    write_adapter(again, tokenizer, tmp_path / "again", settings, anchors)
    assert contents(tmp_path / "again") == contents(saved[1])


def test_replaces_an_older_folder(
    saved: tuple[Any, Path],
    make_model: Callable[..., Any],
    tokenizer: Any,
    settings: ModelSettings,
    anchors: AnchorFile,
) -> None:
    _, folder = saved
    before = contents(folder)
    (folder / "stale.txt").write_text("of the older adapter")
    write_adapter(make_model(seed=1), tokenizer, folder, settings, anchors)
    after = contents(folder)
    assert after.keys() == before.keys()
    assert {n for n in after if after[n] != before[n]} == {
        "adapter_model.safetensors",
        "anchor.json",
    }
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_failure_leaves_the_older_folder_alone(
    saved: tuple[Any, Path],
    make_model: Callable[..., Any],
    tokenizer: Any,
    settings: ModelSettings,
    anchors: AnchorFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> str:
        raise OSError("No space left on device")

    _, folder = saved
    before = contents(folder)
    monkeypatch.setattr(adapter, "_readme", full)
    with pytest.raises(OSError, match="No space left"):
        write_adapter(make_model(seed=1), tokenizer, folder, settings, anchors)
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]


def test_the_template_that_a_base_lacks_is_in_the_folder(
    make_model: Callable[..., Any], settings: ModelSettings, anchors: AnchorFile, tmp_path: Path
) -> None:
    bare = load_tokenizer(settings.base)
    bare.chat_template = None
    write_adapter(make_model(), bare, tmp_path / "adapter", settings, anchors)
    loaded = AutoTokenizer.from_pretrained(str(tmp_path / "adapter"))
    assert Renderer(loaded).template_digest == Renderer(bare).template_digest
    asked = [{"role": "user", "content": "Why?"}]
    prompt = loaded.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    assert prompt == "### User:\nWhy?\n\n### Assistant:\n"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_follow_the_umask(
    mask: int,
    mode: int,
    make_model: Callable[..., Any],
    tokenizer: Any,
    settings: ModelSettings,
    anchors: AnchorFile,
    tmp_path: Path,
) -> None:
    before = os.umask(mask)
    try:
        write_adapter(make_model(), tokenizer, tmp_path / "adapter", settings, anchors)
    finally:
        os.umask(before)
    assert {oct(p.stat().st_mode & 0o777) for p in (tmp_path / "adapter").iterdir()} == {oct(mode)}
    assert oct((tmp_path / "adapter").stat().st_mode & 0o777) == oct(0o777 & ~mask)
