"""A hundred chat prompts of no task: what the base answers, and what an adapter makes of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_llama

from tell_lightning import progress
from tell_lightning.callbacks.probe import LONGEST, Probe, can_chat, prompts
from tell_lightning.data.tokenizer import load_tokenizer
from tell_lightning.generation.batched import Budget
from tell_lightning.model.base import load_base
from tell_lightning.model.lora import add_adapters
from tell_lightning.model.settings import LoraSettings, ModelSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_llama(tmp_path_factory.mktemp("base"), prompts()))


@pytest.fixture
def tokenizer(base: str) -> Any:
    return load_tokenizer(base)


@pytest.fixture
def model(base: str) -> Any:
    return add_adapters(load_base(ModelSettings(base=base)), LoraSettings(rank=4, alpha=8), seed=0)


def train(model: Any, size: float) -> None:
    """Move the adapter by random numbers."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)


def test_there_are_a_hundred_short_different_prompts():
    assert len(prompts()) == len(set(prompts())) == 100
    assert all(0 < len(text) < 80 and text == text.strip() for text in prompts())


def test_the_base_is_unchanged_and_a_trained_adapter_is_not(model, tokenizer):
    probe = Probe(tokenizer, Budget(2048))
    before = probe.score(model, adapted=False)
    assert (before.rows, before.unchanged) == (100, 1)
    untouched = probe.score(model, adapted=True)
    assert untouched == before
    train(model, 1.0)
    after = probe.score(model, adapted=True)
    assert after.unchanged < 0.9
    assert after.loss > before.loss
    assert model.training


def test_the_answers_show_their_progress(model, tokenizer, monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.01)
    Probe(tokenizer, Budget(700)).score(model, adapted=False)
    assert " of 100 rows" in capsys.readouterr().err


def test_the_base_s_answers_are_found_with_a_trained_adapter_too(model, tokenizer):
    first = Probe(tokenizer, Budget(2048))
    first.score(model, adapted=False)
    train(model, 1.0)
    later = Probe(tokenizer, Budget(2048))  # as `test RUN` has it
    assert later.score(model, adapted=True) == first.score(model, adapted=True)


def test_the_loss_is_that_of_transformers_on_the_base_s_greedy_answers(model, tokenizer):
    train(model, 0.5)
    found = Probe(tokenizer, Budget(700)).score(model, adapted=True)
    model.eval()
    nats = tokens = 0.0
    for text in prompts():
        chat = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        with torch.no_grad():
            with model.disable_adapter():
                whole = model.generate(
                    input_ids=ids, max_new_tokens=LONGEST, do_sample=False, num_beams=1
                )
            losses = torch.nn.functional.cross_entropy(
                model(whole).logits[0, ids.shape[1] - 1 : -1], whole[0, ids.shape[1] :]
            )
        nats += float(losses) * (whole.shape[1] - ids.shape[1])
        tokens += whole.shape[1] - ids.shape[1]
    assert found.loss == pytest.approx(nats / tokens, rel=1e-4)


def test_only_a_base_with_a_template_and_a_full_vocabulary_can_chat(tokenizer, monkeypatch):
    assert not can_chat(load_tokenizer("microworld"))
    assert not can_chat(tokenizer)
    monkeypatch.setattr("tell_lightning.callbacks.probe.LEAST_VOCABULARY", len(tokenizer))
    assert can_chat(tokenizer)
    tokenizer.chat_template = None
    assert not can_chat(tokenizer)


def test_the_prompts_come_with_the_package():
    import tell_lightning

    assert (Path(tell_lightning.__file__).parent / "callbacks/probe.txt").is_file()
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    assert '"callbacks/probe.txt"' in pyproject.read_text(encoding="utf-8")
