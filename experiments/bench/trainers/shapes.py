"""Base models with random weights and the shape of real ones, and a tokenizer for them."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tell_lightning.callbacks.run_record import git_state, machine
from tell_lightning.data.tokenizer import base_path
from tell_lightning.microworld.tokenizer import save_tokenizer, train_tokenizer
from trainers.job import Job
from trainers.meter import say
from trainers.ours import write_bins


def shape(
    width: int, inner: int, layers: int, heads: int, pairs: int, vocabulary: int, tied: bool = True
) -> dict[str, Any]:
    """Return the fields of a `LlamaConfig`; `pairs` are the heads of keys and values."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


SHAPES = {
    "tiny": shape(64, 128, 2, 2, 2, 1024),
    "7M": shape(256, 768, 6, 4, 4, 8000),
    "135M": shape(576, 1536, 30, 9, 3, 49_152),  # SmolLM2
    "1.5B": shape(1536, 8960, 28, 12, 2, 151_936),  # Qwen2.5
    "7B": shape(4096, 11_008, 32, 32, 32, 32_000, tied=False),  # Llama 2
}
LINES = 3000
"""Rows that the tokenizer is trained on."""
TOKENS = 8000
"""Most tokens of the tokenizer. A larger vocabulary of a model is computed, but not used."""


def run(job: Job) -> None:
    """Make what all contenders of a case read: a base, unless there is one, and the bins."""
    job = made(job, job.options["shape"])
    say(
        base=str(Path(job.base).resolve()),
        parameters=layer_parameters(LlamaConfig.from_pretrained(job.base)),
        machine=machine(),
        git=git_state(),
    )


def made(job: Job, name: str | None) -> Job:
    """Make the base of a job, where a shape is named, and its bins; return the job with its base.

    Args:
        job: Where the base goes, or which one it is.
        name: One of SHAPES; None: there is a base.
    """
    if name:
        with Path(job.rows["train"]).open(encoding="utf-8") as file:
            texts = [line for line, _ in zip(file, range(LINES), strict=False)]
        folder = Path(job.base)
        folder.mkdir()
        make_base(folder, name, texts, bfloat16=job.bfloat16)
    else:
        job = replace(job, base=base_path(job.base))
    write_bins(job)
    return job


def make_base(folder: Path, name: str, texts: Iterable[str], *, bfloat16: bool) -> None:
    """Write a Llama with random weights of standard deviation 0.02, and its tokenizer.

    Args:
        folder: Becomes the folder of the base.
        name: One of SHAPES.
        texts: Texts that the tokenizer is trained on.
        bfloat16: Whether the weights are bfloat16 instead of float32.
    """
    config = LlamaConfig(
        **SHAPES[name],
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(7)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if bfloat16 else torch.float32)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
    model.save_pretrained(folder)
    save_tokenizer(train_tokenizer(texts, min(TOKENS, SHAPES[name]["vocab_size"])), folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"model_max_length": 4096}), encoding="utf-8")


def layer_parameters(config: Any) -> int:
    """Return the number of parameters in the linear layers, without embedding and output."""
    width, head = config.hidden_size, config.hidden_size // config.num_attention_heads
    attention = 2 * width * width + 2 * width * head * config.num_key_value_heads
    layers: int = config.num_hidden_layers
    return layers * (attention + 3 * width * config.intermediate_size)
