"""What two ranks find that train and generate with FSDP2: `sharded.py BASE CHECKPOINT OUT`.

CHECKPOINT was written by one process. Rank 0 writes `found.pt` and `two.ckpt` into OUT.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from tell_lightning.generation.batched import is_sharded
from tell_lightning.model.sharding import gathered, gathered_adapters

CLIP = 0.5
"""Below the norm of every step."""


def train(base: str, *, steps: int, checkpoint: Path | None = None, **settings: Any) -> Any:
    """Train on both ranks."""
    from training import (
        fit,
    )  # beside this script; pytest, which looks for doctests, has no such path

    return fit(
        base,
        ranks=2,
        micro_batch=2,
        accumulate=2,
        steps=steps,
        checkpoint=checkpoint,
        **{"trainer": {"strategy": "fsdp2", "gradient_clip_val": CLIP}, **settings},
    )


def answers(model: Any) -> list[list[int]]:
    """Generate for one prompt that is this rank's alone; the ranks' answers differ in length."""
    rank = torch.distributed.get_rank()
    prompt = torch.tensor([[5, 17, 40 + rank]])
    model.eval()
    with torch.no_grad():
        ids = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=4 + 4 * rank,
            min_new_tokens=4 + 4 * rank,
            do_sample=False,
            synced_gpus=True,
        )
    shares: list[Any] = [None, None]
    torch.distributed.all_gather_object(shares, ids[0].tolist())
    return shares


def main(base: str, checkpoint: str, out: str) -> None:
    """Train, go on from one process's checkpoint, and train on a base in bfloat16."""
    torch.set_num_threads(1)
    run = train(base, steps=2)
    run.trainer.save_checkpoint(Path(out) / "two.ckpt", weights_only=False)
    resumed = train(base, steps=3, checkpoint=Path(checkpoint))
    half = train(
        base,
        steps=1,
        dtype="bfloat16",
        activation_checkpointing=True,
        trainer={"strategy": "fsdp2", "precision": "bf16-mixed"},
    )
    found = {
        "gradients": gathered(run.gradients),
        "logged": run.logged,
        "sharded": is_sharded(run.module),
        "local": sum(
            p.to_local().numel() for p in run.module.parameters() if isinstance(p, DTensor)
        ),
        "answers": answers(run.module.model),
        "cut again": all(isinstance(p, DTensor) for p in run.module.parameters()),
        "resumed": gathered_adapters(resumed.module),
        "half": half.logged,
        "half types": sorted({str(p.dtype) for p in half.module.parameters()}),
    }
    if run.trainer.is_global_zero:
        torch.save(found, Path(out) / "found.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
