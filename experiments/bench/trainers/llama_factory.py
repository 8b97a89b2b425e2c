"""LLaMA-Factory's `run_exp` on a tokenised data set, in the form of its own neat packing.

In that form the attention mask numbers the examples of a bin.
"""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# It imports torchaudio for sounds. From the registry that package needs CUDA, so here is a dummy.
if "torchaudio" not in sys.modules:
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

from datasets import Dataset, DatasetDict
from llamafactory.train.tuner import run_exp

from trainers.hugging_face import Steps, arguments
from trainers.job import Job, step_tokens
from trainers.meter import Meter


def run(job: Job) -> None:
    """Train on the bins."""
    meter = Meter(job)
    contents = job.packed()
    rows = [
        {
            "input_ids": row["input_ids"],
            "labels": row["labels"],
            "attention_mask": [
                n for n, size in enumerate(row["seq_lengths"], 1) for _ in range(size)
            ],
        }
        for row in contents
    ]
    tokenized = str(Path("tokenized").resolve())
    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(tokenized)
    given: dict[str, Any] = arguments(job, job.micro, job.accumulation)
    # It calls this the other way round.
    given["disable_gradient_checkpointing"] = not given.pop("gradient_checkpointing")
    run_exp(
        {
            **given,
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": job.base,
            "template": "default",
            "dataset": "tokenized",  # it asks for a name, and reads the path
            "tokenized_path": tokenized,
            "neat_packing": True,
            "cutoff_len": job.capacity,
            "finetuning_type": "lora",
            "lora_rank": job.rank,
            "lora_alpha": 2 * job.rank,
            "lora_dropout": 0.0,
            "lora_target": "all",
            "flash_attn": "sdpa",
            "disable_shuffling": True,
        },
        callbacks=[Steps(meter)],
    )
    meter.end(step_tokens(contents, job.batch))
