"""Tiny models, as generation finds them: with dropout, and with settings that it must set aside."""

import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_models import tiny_gpt2, tiny_llama, tiny_mistral
from tiny_tokenizers import character_tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The end token is the padding token too."""
    return character_tokenizer(pad_token="<end>")


@pytest.fixture
def llama() -> PreTrainedModel:
    return tiny_llama(attention_dropout=0.5, use_cache=False).train()


@pytest.fixture
def sliding() -> PreTrainedModel:
    """Each token sees the eight before it alone."""
    return tiny_mistral(sliding_window=8).train()


@pytest.fixture
def gpt2() -> PreTrainedModel:
    """Its text depends on the count of positions, which Llama's does not."""
    return tiny_gpt2().train()


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
