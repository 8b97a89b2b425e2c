"""The adapters of the contenders that take a configuration of PEFT."""

from peft import LoraConfig

from trainers.job import Job


def lora(job: Job) -> LoraConfig:
    """Return the adapters of a job: on every linear layer, without dropout."""
    return LoraConfig(
        r=job.rank,
        lora_alpha=2 * job.rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
