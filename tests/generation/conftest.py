"""Tiny models with random weights and a tokenizer of bytes, made in memory."""

import string
import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

STOP = 0
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": STOP,
    "pad_token_id": STOP,
}
"""Of a model with random weights that are far from uniform, so that the best token is clear."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable character; the end token is the padding token too."""
    vocab = {"<end>": STOP, **{c: i + 1 for i, c in enumerate(string.printable[:95])}}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")


@pytest.fixture
def llama() -> PreTrainedModel:
    torch.manual_seed(7)
    return LlamaForCausalLM(LlamaConfig(**SIZES, attention_dropout=0.5, use_cache=False))


@pytest.fixture
def sliding() -> PreTrainedModel:
    """Each token sees the eight before it alone."""
    torch.manual_seed(7)
    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8))


@pytest.fixture
def gpt2() -> PreTrainedModel:
    """Absolute positions: a wrong count of them changes the text, which Llama's would not."""
    torch.manual_seed(7)
    config = GPT2Config(
        vocab_size=96,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=96,
        initializer_range=0.3,
        bos_token_id=STOP,
        eos_token_id=STOP,
    )
    return GPT2LMHeadModel(config)


@pytest.fixture
def adapted(llama: PreTrainedModel) -> PeftModel:
    torch.manual_seed(8)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "down_proj"], lora_dropout=0.5, init_lora_weights=False
    )
    with warnings.catch_warnings():  # peft reads a name that transformers 5.23 deprecates
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        model = get_peft_model(llama, config)
    assert isinstance(model, PeftModel)
    return model
