"""Unsloth: its model and its changes to TRL, on the bins in TRL's form. Needs a GPU."""

import os

os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # it asks a server otherwise

import torch
from unsloth import FastLanguageModel  # before trl, which it changes

from trainers import trl_sft
from trainers.job import Job
from trainers.meter import Meter

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def run(job: Job) -> None:
    """Train on the bins."""
    meter = Meter(job)
    model, tokenizer = FastLanguageModel.from_pretrained(
        job.base,
        max_seq_length=job.capacity,
        dtype=torch.bfloat16 if job.bfloat16 else torch.float32,
        load_in_4bit=False,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=job.rank,
        lora_alpha=2 * job.rank,
        lora_dropout=0.0,
        target_modules=LAYERS,
        use_gradient_checkpointing="unsloth" if job.checkpointing else False,
        random_state=0,
    )
    trl_sft.train(job, meter, model, {"processing_class": tokenizer}, {})
