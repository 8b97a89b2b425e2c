"""ms-swift's `SwiftSft`, which gets rows that are tokenised already.

Its packing refuses attention without the package flash-attn, so rows are padded.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from swift.pipelines import SwiftSft

from trainers.hugging_face import Steps, arguments
from trainers.job import Job, step_tokens
from trainers.meter import Meter

PLACEHOLDER = "placeholder.jsonl"


def run(job: Job) -> None:
    """Train on the rows of the bins, one by one."""
    meter = Meter(job)
    contents = job.unpacked()
    rows = job.micro * job.rows_of_a_bin()

    class Sft(SwiftSft):
        """Reads our rows, and tells the meter."""

        def _prepare_dataset(self) -> list[Any]:
            return [Dataset.from_list(contents), None]

        def train(self, trainer: Any) -> Any:
            trainer.add_callback(Steps(meter))
            return trainer.train()

    Path(PLACEHOLDER).write_text('{"messages": [{"role": "user", "content": ""}]}\n')
    given = arguments(job, rows, job.accumulation)
    for name in ("use_cpu", "bf16", "disable_tqdm"):
        given.pop(name)
    given |= {
        "model": job.base,
        "model_type": "llama",
        "template": "dummy",
        "dataset": PLACEHOLDER,
        "tuner_type": "lora",
        "lora_rank": job.rank,
        "lora_alpha": 2 * job.rank,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
        "torch_dtype": "bfloat16" if job.bfloat16 else "float32",
        "train_dataloader_shuffle": False,
        "attn_impl": "sdpa",
    }
    Sft([text for name, value in given.items() for text in (f"--{name}", str(value))]).main()
    meter.end(step_tokens(contents, rows * job.accumulation))
