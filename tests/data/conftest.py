"""A byte-level tokenizer made on the spot, the real data, and files of rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SPECIAL = [
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"),
]

# The machine may be busy with other things: time says nothing about a property.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[[str | None], Any]:
    """Return a function that makes a byte-level tokenizer with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}

    def make(chat_template: str | None) -> Any:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(SPECIAL)
        fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
        )
        fast.chat_template = chat_template
        return fast

    return make


@pytest.fixture(scope="session")
def runs_z() -> Callable[[Any], float]:
    """Return the Wald-Wolfowitz runs test: z of the number of runs in a sequence of truth values.

    Below 0 the values clump, above 0 they alternate too regularly.
    """

    def z(flags: Any) -> float:
        size, ones = len(flags), int(flags.sum())
        product = 2 * ones * (size - ones)
        variance = product * (product - size) / (size**2 * (size - 1))
        runs = 1 + int((flags[1:] != flags[:-1]).sum())
        return float((runs - 1 - product / size) / variance**0.5)

    return z


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of the real data, or skip."""
    if not SHARED.is_dir():
        pytest.skip("Requires: shared/data")
    return SHARED


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes rows, or lines given as text, to a JSON Lines file."""

    def write(*rows: object, name: str = "rows.jsonl") -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / name

    return write
