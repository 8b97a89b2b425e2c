"""Pre-train the base model of the microworld: `python -m tell_lightning.microworld.pretrain`.

Writes a Hugging Face checkpoint, its tokenizer and `base.json` (settings, digests, measured
quality). A row is one whole document, never a random window. Muon trains the matrices and AdamW the
rest, with bf16 autocast. Some steps in the middle read only documents that compare two words,
because a model of this size does not learn to compare from the usual mixture. The default settings
took 13 minutes on two shared cores.

Measure a new base before you use it: small changes of the text change abruptly how well the base
knows Velsk and whether it can compare (experiments/microworld/README.md).
"""

import argparse
import hashlib
import json
import math
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from tell_lightning.microworld.corpus import write_document
from tell_lightning.microworld.tokenizer import (
    END,
    MAX_LENGTH_TOKENS,
    PAD,
    SPECIAL_TOKENS,
    save_tokenizer,
    train_tokenizer,
)

PAD_ID, END_ID = SPECIAL_TOKENS.index(PAD), SPECIAL_TOKENS.index(END)
HELD_OUT_FROM = 10**9
"""First position of the documents that measure quality; training ends far before it."""


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """All that the base depends on. Steps are optimizer steps; learning rates are peak values.

    `knowledge` is explained in `corpus.write_document`. Steps from `comparing_from_step` on, and
    before `comparing_until_step`, read only documents that compare words.
    """

    knowledge: float = 0.11
    steps: int = 3200
    documents_per_step: int = 64
    width: int = 160
    layers: int = 4
    heads: int = 5
    vocab_size: int = 2048
    seed: int = 0
    matrix_learning_rate: float = 0.02
    other_learning_rate: float = 0.003
    weight_decay: float = 0.05
    warmup_steps: int = 50
    comparing_from_step: int = 2000
    comparing_until_step: int = 2400
    threads: int = 2


def pretrain(out: Path, settings: PretrainSettings, *, log_every_steps: int = 50) -> None:
    """Pre-train a base and write it.

    Args:
        out: Folder to write to; made if missing. Files in it are replaced.
        settings: The settings of the base.
        log_every_steps: Steps between two progress lines on stderr.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    started = time.monotonic()
    sample = (training_text(i, settings) for i in range(20_000))
    tokenizer = train_tokenizer(sample, settings.vocab_size)
    model = _new_model(settings, tokenizer.get_vocab_size())
    num_tokens = _train(model, tokenizer, settings, log_every_steps)
    minutes = (time.monotonic() - started) / 60
    quality = _measure(model, tokenizer, settings)
    model.bfloat16().save_pretrained(out)
    save_tokenizer(tokenizer, out)
    record = {
        "digest": digest_of(out),
        "settings": asdict(settings),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": num_tokens,
        "minutes": round(minutes, 1),
        "loss_nats_per_token": quality,
    }
    (out / "base.json").write_text(json.dumps(record, indent=2) + "\n")


def training_text(position: int, settings: PretrainSettings) -> str:
    """Return the document that pre-training reads at a position, from 0."""
    step = position // settings.documents_per_step
    is_comparing = settings.comparing_from_step <= step < settings.comparing_until_step
    return write_document(settings.seed, position, settings.knowledge, is_comparing=is_comparing)[1]


def digest_of(folder: Path) -> dict[str, str]:
    """Return the hexadecimal sha256 of a base's weights and of its tokenizer."""
    files = {"weights": "model.safetensors", "tokenizer": "tokenizer.json"}
    return {
        name: hashlib.sha256((folder / file).read_bytes()).hexdigest()
        for name, file in files.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and pre-train."""
    parser = argparse.ArgumentParser(
        prog="python -m tell_lightning.microworld.pretrain",
        description="Pre-train the base of the microworld.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the base to")
    notes = {
        "knowledge": "parallel Velsk documents divided by parallel Norn documents, 0 to 1",
        "comparing_from_step": "first step (from 0) that reads only documents that compare words",
        "comparing_until_step": "first step that reads the usual mixture again",
    }
    for name, value in asdict(PretrainSettings()).items():
        option = "--" + name.replace("_", "-")
        note = notes.get(name, name.replace("_", " "))
        parser.add_argument(option, type=type(value), default=value, help=note)
    given = vars(parser.parse_args(arguments))
    if not 0 <= given["knowledge"] <= 1:
        parser.error(
            f"--knowledge: must be from 0 to 1, got {given['knowledge']}. Give 0 for no translated "
            "Velsk at all, 1 for as much as of Norn."
        )
    out = given.pop("out")
    pretrain(out, PretrainSettings(**given))


def _new_model(settings: PretrainSettings, vocab_size: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=settings.width,
        intermediate_size=settings.width * 8 // 3 // 16 * 16,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=MAX_LENGTH_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        attn_implementation="eager",  # type: ignore[call-arg]
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, eos_token_id=END_ID, pad_token_id=PAD_ID, bos_token_id=None
    )
    return model


def _batches(tokenizer: Tokenizer, settings: PretrainSettings) -> Iterator[Tensor]:
    """Yield `steps` batches of token ids, padded; rows of one batch have similar lengths."""
    size, group = settings.documents_per_step, 32
    for first in range(0, settings.steps, group):
        positions = range(first * size, min(first + group, settings.steps) * size)
        texts = [training_text(i, settings) for i in positions]
        rows = sorted((line.ids for line in tokenizer.encode_batch(texts)), key=len)
        batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        random.Random(f"{settings.seed}/batches/{first}").shuffle(batches)
        yield from map(_pad, batches)


def _pad(rows: list[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD_ID] * (longest - len(row)) for row in rows])


def _losses(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Return the loss in nats of every token of `ids` [B, T] except the first: [B, T - 1].

    The loss of padding is 0.
    """
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids[:, :-1], attention_mask=(ids[:, :-1] != PAD_ID).long()).logits
    wanted = ids[:, 1:].masked_fill(ids[:, 1:] == PAD_ID, -100)
    flat = functional.cross_entropy(
        logits.float().flatten(0, 1), wanted.flatten(), reduction="none"
    )
    return flat.view_as(wanted)


def _train(
    model: LlamaForCausalLM, tokenizer: Tokenizer, settings: PretrainSettings, log_every_steps: int
) -> int:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(
        matrices, lr=settings.matrix_learning_rate, weight_decay=settings.weight_decay
    )
    adamw = torch.optim.AdamW(
        others, lr=settings.other_learning_rate, weight_decay=settings.weight_decay
    )
    num_tokens, started = 0, time.monotonic()
    model.train()
    for step, ids in enumerate(_batches(tokenizer, settings), start=1):
        share = _learning_rate_share(step, settings)
        muon.param_groups[0]["lr"] = settings.matrix_learning_rate * share
        adamw.param_groups[0]["lr"] = settings.other_learning_rate * share
        losses = _losses(model, ids)
        count = int((ids[:, 1:] != PAD_ID).sum())
        loss = losses.sum() / count
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in (muon, adamw):
            optimizer.step()  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
        num_tokens += count
        if step % log_every_steps == 0:
            rate = num_tokens / (time.monotonic() - started)
            line = f"step {step}/{settings.steps} loss {loss.item():.3f} {rate:.0f} tokens/s\n"
            sys.stderr.write(line)
    return num_tokens


def _learning_rate_share(step: int, settings: PretrainSettings) -> float:
    """Return the learning rate over its peak: warm-up, constant, linear fall in the second half."""
    warm = min(1.0, step / settings.warmup_steps)
    return min(warm, 2 * (settings.steps - step + 1) / settings.steps, 1.0)


@torch.no_grad()
def _measure(
    model: LlamaForCausalLM, tokenizer: Tokenizer, settings: PretrainSettings
) -> dict[str, float]:
    """Return the loss on unseen documents, in nats per token, for each kind of document."""
    model.eval()  # type: ignore[no-untyped-call]
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for i in range(512):
        kind, text = write_document(settings.seed, HELD_OUT_FROM + i, max(settings.knowledge, 0.1))
        losses = _losses(model, torch.tensor([tokenizer.encode(text).ids]))
        sums[kind] += float(losses.sum())
        counts[kind] += losses.numel()
    assert all(math.isfinite(total) for total in sums.values())
    return {kind: round(sums[kind] / counts[kind], 4) for kind in sorted(sums)}


if __name__ == "__main__":
    main()
