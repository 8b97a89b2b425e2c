"""What the contenders on the Trainer of transformers share: its arguments, and the meter."""

from typing import Any

from transformers import TrainerCallback

from trainers.job import Job
from trainers.meter import Meter


class Steps(TrainerCallback):
    """Passes the steps and losses of a Trainer on to the meter."""

    def __init__(self, meter: Meter) -> None:
        """Keep the meter."""
        self.meter = meter

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Report the step."""
        self.meter.stepped()

    def on_log(self, _: Any, state: Any, __: Any, logs: Any = None, **___: Any) -> None:
        """Keep the loss."""
        if logs and "loss" in logs:
            self.meter.losses[state.global_step] = float(logs["loss"])


def arguments(job: Job, rows: int, accumulation: int) -> dict[str, Any]:
    """Return the arguments of a Trainer that trains like the other contenders.

    Args:
        job: What is trained.
        rows: Rows of a forward pass.
        accumulation: Forward passes of an optimizer step.
    """
    return {
        "output_dir": job.own_folder,
        "max_steps": job.steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": job.lr,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.99,
        "max_grad_norm": 1.0,
        "bf16": job.bfloat16,
        "gradient_checkpointing": job.checkpointing,
        "logging_steps": job.log_every,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": job.device == "cpu",
        "disable_tqdm": True,
        "seed": 0,
    }
