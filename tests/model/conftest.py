"""Tiny models, and the fixed training runs of a script."""

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from tiny_models import tiny_gemma, tiny_llama
from tiny_tokenizers import character_tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast


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
    """There is no padding token."""
    return character_tokenizer()


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., PreTrainedModel]:
    def make(*, tied: bool = False, seed: int = 7) -> PreTrainedModel:
        return tiny_llama(seed=seed, tie_word_embeddings=tied)

    return make


@pytest.fixture(scope="session")
def make_gemma() -> Callable[[], PreTrainedModel]:
    return tiny_gemma


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
