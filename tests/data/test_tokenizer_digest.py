"""A run goes on where the network is gone: the tokenizer is the same one."""

import pytest
from transformers import tokenization_utils_base

from tell_lightning.data.store import tokenizer_digest
from tell_lightning.data.tokenizer import load_tokenizer


def test_a_tokenizer_is_the_same_with_and_without_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = set()
    for offline in (True, False):
        monkeypatch.setattr(
            tokenization_utils_base, "is_offline_mode", lambda is_off=offline: is_off
        )
        found.add(tokenizer_digest(load_tokenizer("microworld")))
    assert len(found) == 1
