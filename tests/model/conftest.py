"""Tiny models with random weights and a tokenizer of bytes; the fixed training runs of a script."""

import string
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

STOP = 0
VOCABULARY = 96


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def training() -> ModuleType:
    """The module `training.py`, which is a script too: ranks are started by its path."""
    path = Path(__file__).with_name("training.py")
    spec = spec_from_file_location("training", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable character; there is an end token and no padding token."""
    vocab = {"<end>": STOP, **{c: i + 1 for i, c in enumerate(string.printable[:95])}}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., PreTrainedModel]:
    def make(*, tied: bool = False, seed: int = 7) -> PreTrainedModel:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=STOP,
            pad_token_id=STOP,
        )
        return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture(scope="session")
def make_gemma() -> Callable[[], PreTrainedModel]:
    """A model that bends its logits after the output layer, which is tied."""

    def make() -> PreTrainedModel:
        torch.manual_seed(7)
        config = Gemma2Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            query_pre_attn_scalar=8,
            initializer_range=0.3,
            final_logit_softcapping=2.0,
            bos_token_id=None,
            eos_token_id=STOP,
            pad_token_id=STOP,
            attn_implementation="eager",
        )
        return Gemma2ForCausalLM(config).eval()

    return make


@pytest.fixture(scope="session")
def llama_folder(
    make_llama: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    make_llama().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
