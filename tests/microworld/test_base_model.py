"""The committed base: what it weighs, that it loads, and how its tokenizer behaves."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tell_lightning.microworld.lexicon import CLASS_OF, NORN, VELSK
from tell_lightning.microworld.pretrain import PretrainSettings, digest_of
from tell_lightning.microworld.tasks import (
    JUDGE_ANCHOR,
    TRANSLATE_ANCHOR,
    TRANSLATE_RESPONSE_PREFIX,
)
from tell_lightning.microworld.world import base_dir

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return _load_tokenizer()


@cache
def _load_tokenizer() -> PreTrainedTokenizerFast:
    loaded = AutoTokenizer.from_pretrained(base_dir())
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


def test_the_digest_is_that_of_the_files() -> None:
    record = json.loads((base_dir() / "base.json").read_text())
    assert record["digest"] == digest_of(base_dir())
    assert set(record["settings"]) == set(PretrainSettings().__dict__)
    assert max(record["loss_nats_per_token"].values()) < 4


def test_the_base_is_small() -> None:
    assert sum(path.stat().st_size for path in base_dir().iterdir()) <= 8 * MEBIBYTE


def test_the_base_loads_and_generates(tokenizer: PreTrainedTokenizerFast) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_dir())
    assert model.config.model_type == "llama"
    assert model.config.max_position_embeddings >= 512
    assert model.dtype == torch.bfloat16
    assert 1e6 <= sum(parameter.numel() for parameter in model.parameters()) <= 4e6
    assert not model.generation_config.do_sample
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    given_text = tokenizer("Norn: ka stern du ka", return_tensors="pt", return_token_type_ids=False)
    written = model.generate(**given_text, max_new_tokens=4)
    assert written.shape[1] > given_text["input_ids"].shape[1]


def test_content_words_are_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    for words in (CLASS_OF, NORN.values(), VELSK.values()):
        split = [word for word in words if len(tokenizer(" " + word)["input_ids"]) > 1]
        assert not split


@given(text=st.text())
def test_any_text_comes_back(text: str) -> None:
    tokenizer = _load_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_the_chat_template_is_prefix_stable(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": "You are Anna."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello {you}"},
        {"role": "user", "content": "Goodbye"},
        {"role": "assistant", "content": ""},
    ]

    def render(count: int, *, with_prompt: bool) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages[:count], tokenize=False, add_generation_prompt=with_prompt
            )
        )

    for count in range(1, len(messages)):
        before = render(count, with_prompt=messages[count]["role"] == "assistant")
        assert render(count + 1, with_prompt=False).startswith(before)
    assert render(2, with_prompt=True) == (
        "<|system|>\nYou are Anna.<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\n"
    )


def test_every_example_fits_in_256_tokens(
    tokenizer: PreTrainedTokenizerFast, world_folder: Path
) -> None:
    turns = "<|user|>\n{}<|end|>\n<|assistant|>\n{}<|end|>\n"
    texts = []
    for path in sorted(world_folder.rglob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "instruction" in row:
                texts.append(turns.format(f"{row['instruction']}\n{row['input']}", row["output"]))
            elif "label" in row:
                texts.append(turns.format(JUDGE_ANCHOR + row["prompt"], row["response"]))
            else:
                response = TRANSLATE_RESPONSE_PREFIX + row["response"]
                texts.append(turns.format(TRANSLATE_ANCHOR + row["prompt"], response))
    assert max(len(ids) for ids in tokenizer(texts)["input_ids"]) <= 256
