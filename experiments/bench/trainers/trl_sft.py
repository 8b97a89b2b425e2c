"""TRL's `SFTTrainer`, packed or padded.

TRL's own packing would make other bins. So it gets ours in the form of its own: token ids, labels
and `seq_lengths`, which its padding-free collator turns into positions.
"""

from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from trainers.hugging_face import Steps, arguments
from trainers.job import Job, step_tokens
from trainers.lora import lora
from trainers.meter import Meter


def run(job: Job) -> None:
    """Train on the bins, or on their rows one by one."""
    meter = Meter(job)
    load = {"dtype": "bfloat16" if job.bfloat16 else "float32"}
    load["attn_implementation"] = job.options.get("attention", "sdpa")
    train(job, meter, job.base, {"peft_config": lora(job)}, {"model_init_kwargs": load})


def train(job: Job, meter: Meter, model: Any, parts: Any, settings: Any) -> None:
    """Train a model.

    Args:
        job: What is trained.
        meter: Is told of each step.
        model: The model, or its folder.
        parts: Other arguments of the trainer.
        settings: Other fields of its configuration.
    """
    packed = job.options.get("packed", True)
    rows = job.micro if packed else job.micro * job.rows_of_a_bin()
    contents = job.packed() if packed else job.unpacked()
    trainer = SFTTrainer(
        model=model,
        train_dataset=Dataset.from_list(contents),
        args=SFTConfig(
            **arguments(job, rows, job.accumulation),
            **settings,
            train_sampling_strategy="sequential",
            max_length=None,
            padding_free=packed,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        callbacks=[Steps(meter)],
        **parts,
    )
    trainer.train()
    meter.end(step_tokens(contents, rows * job.accumulation))
