"""The learning rate of a base that none is given for."""

import json
from pathlib import Path
from typing import Any

import pytest
from messages import says
from transformers import AutoConfig, PretrainedConfig

from tell_lightning.data.tokenizer import BaseModelError
from tell_lightning.model import rate
from tell_lightning.model.rate import rate_of
from tell_lightning.model.settings import ModelSettings, OptimizerSettings


def base(folder: Path, **config: Any) -> ModelSettings:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return ModelSettings(base=str(folder))


@pytest.mark.parametrize("width", [576, 2048, 4096])
def test_a_llama_has_the_formula_of_tinker_times_our_factor(width: int, tmp_path: Path) -> None:
    found = rate_of(base(tmp_path, model_type="llama", hidden_size=width))
    assert found.value == pytest.approx(rate.FACTOR * 5e-4 * (2000 / width) ** 0.781, rel=0.05)
    assert found.why == f"auto, a Llama of width {width:,}"


def test_a_qwen_falls_slowly_with_the_width(tmp_path: Path) -> None:
    found = rate_of(base(tmp_path, model_type="qwen3", hidden_size=1024))
    assert found.value == pytest.approx(rate.FACTOR * 5e-4 * (2000 / 1024) ** 0.0775, rel=0.05)
    assert found.why == "auto, a Qwen of width 1,024"


@pytest.mark.parametrize("width", [640, 5376])
def test_another_family_has_the_lower_of_the_known_rates(width: int, tmp_path: Path) -> None:
    found = rate_of(base(tmp_path, model_type="gemma3_text", hidden_size=width))
    assert found.value == min(rate.by_width(width, name) for name in ("llama", "qwen"))
    assert found.why == f"auto, the lower of a Llama and a Qwen of width {width:,}"


def test_the_width_may_stand_in_the_part_for_text(tmp_path: Path) -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560}
    inside = rate_of(base(tmp_path, model_type="gemma3", text_config=text))
    assert inside == rate_of(base(tmp_path, **text))


def test_the_width_may_have_an_older_name(tmp_path: Path) -> None:
    assert "of width 96" in rate_of(base(tmp_path, model_type="gpt2", n_embd=96)).why


class Nameless(PretrainedConfig):
    """A configuration of a stranger, without a width."""

    model_type = "nameless"


def test_a_base_without_a_width_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *_, **__: Nameless())
    with pytest.raises(BaseModelError) as caught:
        rate_of(base(tmp_path, model_type="nameless"))
    assert str(caught.value) == says(
        "model.optimizer.lr", rule="width", got="no hidden_size", cure="3e-4"
    )


def test_a_number_stays(tmp_path: Path) -> None:
    optimizer = OptimizerSettings(lr=0.2)
    assert rate_of(ModelSettings(base=str(tmp_path), optimizer=optimizer)) == (0.2, "as set")
