"""`tell_lightning`: `TellModule` and `TellDataModule` under a Trainer, as `fit` runs them."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from tell_lightning import TellDataModule, TellModule
from tell_lightning.callbacks.throughput import Throughput
from tell_lightning.data.stream import MicroBatches, PreparedRows, Stream
from tell_lightning.data.units import Place
from trainers.job import Job
from trainers.meter import Meter


class Steps(pl.Callback):
    """Passes the steps and losses of a Trainer on to the meter, and counts tokens."""

    def __init__(self, meter: Meter) -> None:
        """Keep the meter."""
        self.meter = meter
        self.tokens: list[Any] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Report the step if the batch ended one."""
        if index % trainer.accumulate_grad_batches == 0:
            self.tokens.append(0)
        self.tokens[-1] += (batch.examples >= 0).sum()
        if (index + 1) % trainer.accumulate_grad_batches == 0:
            step = trainer.global_step
            if step % self.meter.job.log_every == 0:
                self.meter.losses[step] = float(trainer.callback_metrics["train/loss"])
            self.meter.stepped()


def run(job: Job) -> None:
    """Train on the stream; packed, its bins are those of `bins.jsonl`."""
    meter = Meter(job)
    steps = Steps(meter)
    trainer = pl.Trainer(
        max_steps=job.steps,
        accelerator="gpu" if job.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if job.bfloat16 else "32-true",
        accumulate_grad_batches=job.accumulation,
        gradient_clip_val=1.0,
        log_every_n_steps=job.log_every,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Throughput(), steps],
    )
    trainer.fit(make_module(job), datamodule=data_module(job))
    meter.end([int(tokens) for tokens in steps.tokens])


def make_module(job: Job) -> TellModule:
    """Return the module of a job; its option `model` holds other arguments."""
    return TellModule(
        base=job.base,
        dtype="bfloat16" if job.bfloat16 else "float32",
        lora={"rank": job.rank, "alpha": 2 * job.rank, "dropout": 0.0},
        optimizer={
            "lr": job.lr,
            "betas": (0.9, 0.99),
            "warmup_share": 0.0,
            "schedule": "constant",
        },
        activation_checkpointing=job.checkpointing,
        **job.options.get("model", {}),
    )


def data_module(job: Job) -> TellDataModule:
    """Return the stream of a job: its rows alone, packed or one by one."""
    packed = job.options.get("packed", True)
    units = 1 if packed else job.rows_of_a_bin()
    return TellDataModule(
        general={"rows": job.rows},
        mixture={"arm": "general_only", "general_repeat": True},
        tokenizer=job.base,
        max_tokens=job.capacity,
        packing=packed,
        optimizer_batch=job.batch * units,
        micro_batch=job.micro * units,
        cache_dir=str(Path(job.folder) / "cache"),
    )


def write_bins(job: Job) -> None:
    """Write the bins of all steps as `Job.bins` reads them."""
    data = data_module(job).prepared
    data.prepare()
    data.open()
    order = MicroBatches(data.units, Place(0, 1, job.batch), 0, job.steps * job.batch)
    stream = Stream(lambda: order, PreparedRows(data.rows), total=job.steps)
    with (Path(job.folder) / "bins.jsonl").open("w", encoding="utf-8") as file:
        for batch in stream:
            for ids, labels, examples in zip(
                batch.input_ids, batch.labels, batch.examples, strict=True
            ):
                places = [examples == example for example in examples.unique() if example >= 0]
                members = [[ids[place].tolist(), labels[place].tolist()] for place in places]
                file.write(json.dumps(members) + "\n")
