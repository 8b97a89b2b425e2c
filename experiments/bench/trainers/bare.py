"""A loop without a library: packed bins, logits at the labels only, PyTorch and PEFT."""

from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from peft import get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM

from trainers.job import IGNORE, Job, step_tokens
from trainers.lora import lora
from trainers.meter import Meter


def run(job: Job) -> None:
    """Train on the bins in their order."""
    meter = Meter(job)
    model = build(job)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = {"fused": True} if job.device == "cuda" else {}
    optimizer = torch.optim.AdamW(trained, lr=job.lr, betas=(0.9, 0.99), weight_decay=0.0, **fused)
    contents = job.packed()
    window: list[Any] = []
    for step in range(1, job.steps + 1):
        members = contents[(step - 1) * job.batch : step * job.batch]
        count = sum(label != IGNORE for row in members for label in row["labels"])
        total = torch.zeros((), device=job.device)
        for start in range(0, job.batch, job.micro):
            loss = summed_loss(model, job, members[start : start + job.micro]) / count
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        window.append(total)
        if step % job.log_every == 0:
            meter.losses[step] = float(torch.stack(window).mean())
            window.clear()
        meter.stepped()
    meter.end(step_tokens(contents, job.batch))


def build(job: Job) -> Any:
    """Load the base and put the adapters on it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        job.base,
        dtype=torch.bfloat16 if job.bfloat16 else torch.float32,
        attn_implementation=job.options.get("attention", "sdpa"),
    ).to(job.device)
    if job.checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    return get_peft_model(model, lora(job)).train()


def summed_loss(model: Any, job: Job, rows: list[dict[str, Any]]) -> Any:
    """Return the loss of some bins in nats, summed over the supervised tokens."""
    width = max(len(row["input_ids"]) for row in rows)
    positions = [[i for size in row["seq_lengths"] for i in range(size)] for row in rows]
    ids = padded([row["input_ids"] for row in rows], 0, width)
    places = padded(positions, 0, width)
    targets = padded([[*row["labels"][1:], IGNORE] for row in rows], IGNORE, width)
    ids, places, targets = (
        tensor.pin_memory().to(job.device, non_blocking=True) if job.device == "cuda" else tensor
        for tensor in (ids, places, targets)
    )
    causal = model.get_base_model()
    mixed = torch.autocast(job.device, torch.bfloat16) if job.bfloat16 else nullcontext()
    with mixed:
        hidden = causal.model(input_ids=ids, position_ids=places, use_cache=False).last_hidden_state
        chosen = targets != IGNORE
        logits = causal.lm_head(hidden[chosen])
    return functional.cross_entropy(logits.float(), targets[chosen], reduction="sum")


def padded(rows: list[list[int]], value: int, width: int) -> torch.Tensor:
    """Pad rows on the right to one width: [B, T]."""
    flat = chain.from_iterable([*row, *[value] * (width - len(row))] for row in rows)
    return torch.tensor(list(flat)).view(len(rows), width)
