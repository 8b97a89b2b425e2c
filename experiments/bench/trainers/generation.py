"""Answers to prompts, timed: by ours as in `fit`, or by transformers' `generate`.

All answers have the same number of new tokens. The first pass over the prompts is not timed.
"""

import time
from contextlib import nullcontext
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig

from trainers.bare import build
from trainers.job import IGNORE, Job
from trainers.meter import peak_bytes, say, versions


def run(job: Job) -> None:
    """Answer the prompts twice; report the second time."""
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    model = our_model(job) if job.options["ours"] else build(job)
    rows = job.unpacked()[: job.options["prompts"]]
    prompts = [row["input_ids"][: row["labels"].count(IGNORE)] for row in rows]
    answer = ours if job.options["ours"] else plain
    mixed = torch.autocast(job.device, torch.bfloat16) if job.bfloat16 else nullcontext()
    for _ in range(2):
        since = time.perf_counter()
        with mixed:
            answer(model, tokenizer, prompts, job.options["new_tokens"])
        if job.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - since
    say(
        seconds=[round(seconds, 3)],
        tokens=[len(prompts) * job.options["new_tokens"]],
        peak_bytes=peak_bytes(job.device),
        versions=versions(),
    )


def our_model(job: Job) -> Any:
    """Load the base as a run of ours does."""
    from trainers.ours import make_module

    module = make_module(job)
    with torch.device(job.device):
        module.configure_model()
    return module.model.to(job.device)


def ours(model: Any, tokenizer: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Answer in batches by length, under a budget that holds all of the longest prompts."""
    from tell_lightning.generation.batched import Budget, generate
    from tell_lightning.generation.decoding import Decoding

    decoding = Decoding(
        stop_ids=(tokenizer.eos_token_id,), max_new_tokens=new_tokens, min_new_tokens=new_tokens
    )
    budget = Budget(len(prompts) * (max(map(len, prompts)) + new_tokens))
    generate(model, tokenizer, prompts, decoding, budget=budget)


def plain(model: Any, tokenizer: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Answer in one batch, padded on the left."""
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    model.eval()
    with torch.inference_mode():
        model.generate(**padded.to(model.device), generation_config=config)
