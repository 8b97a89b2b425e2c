"""Measure on this machine what steps and answers of a run cost; a process of `plan --measure`.

    python -m tell_lightning.commands.measure FOLDER

The model, the batches, the Trainer and generation are those of `fit`. A few micro-batches are
trained, each with an optimizer step:

    typical (to warm up,   longest of the run   typical   typical   typical
    and to compile)        peak memory          tokens/s

Then each task's first test rows are answered in one batch, and the loss of a batch is computed.
"""

import json
import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import seed_everything

from tell_lightning.callbacks.folder import RunFolder, write_json
from tell_lightning.callbacks.probe import LONGEST, can_chat
from tell_lightning.callbacks.run_record import machine
from tell_lightning.callbacks.throughput import peak_memory_bytes
from tell_lightning.commands.check import Config
from tell_lightning.commands.price import CONFIG, RESULT
from tell_lightning.commands.room import room_to_train
from tell_lightning.commands.session import make_trainer
from tell_lightning.commands.startup import quieten
from tell_lightning.data.batches import PADDING, Batch
from tell_lightning.data.datamodule import TellDataModule
from tell_lightning.data.plan import Slot
from tell_lightning.data.settings import check_batches
from tell_lightning.data.stream import MicroBatches, PreparedRows, Stream, longest_unit
from tell_lightning.data.tokenizer import load_tokenizer
from tell_lightning.data.units import Place, Units
from tell_lightning.errors import TellError
from tell_lightning.export.adapter import save_adapter
from tell_lightning.generation.answer import answer_rows
from tell_lightning.generation.batched import Budget
from tell_lightning.generation.probe_prompts import prompts
from tell_lightning.memory import available_bytes, peak_since_reset, reset_peak, resident_bytes
from tell_lightning.metrics.score import saved_row
from tell_lightning.model.evaluating import evaluating
from tell_lightning.model.module import TellModule
from tell_lightning.model.sharding import FullySharded
from tell_lightning.progress import Progress

TYPICAL = 3
"""Micro-batches whose time is measured, after one to warm up and the longest one."""


def main(folder: Path) -> None:
    """Measure, and write the result as JSON.

    Args:
        folder: Where `plan` has written the configuration, and reads the result.
    """
    config: Config = pickle.loads((folder / CONFIG).read_bytes())
    quieten()
    try:
        with Progress("measuring"):
            write_json(folder / RESULT, measure(config))
    except TellError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def measure(config: Config) -> dict[str, Any]:
    """Measure what steps and answers of a run cost.

    Args:
        config: The checked configuration. Of several devices, one is measured.

    Raises:
        TellError: The run cannot be measured, or memory runs out.
    """
    seed_everything(config.seed)
    with TemporaryDirectory(prefix="tell-measure-") as name:
        folder = RunFolder(Path(name))
        real = make_trainer(config, folder, [], training=False)
        world = real.world_size
        if isinstance(real.strategy, FullySharded):
            raise TellError(
                "--measure: must be a run whose devices each hold the whole model, got "
                "trainer.strategy: fsdp2. Leave --measure out; fit prints speed and peak memory."
            )
        check_batches(config.data.optimizer_batch, config.data.micro_batch, world)
        share = config.data.optimizer_batch // world
        data = _Sample.from_settings(
            replace(config.data, optimizer_batch=share, num_workers=0),
            tokenizer=load_tokenizer(config.model.base, **config.model.hub_options),
            seed=config.seed,
        )
        data.world = world
        module = TellModule(**vars(config.model), seed=config.seed)
        meter = _Meter(config, data, folder.path)
        trainer = make_trainer(
            config,
            folder,
            [meter],
            training=False,
            devices=1,
            num_nodes=1,
            strategy="auto",
            logger=False,
            enable_progress_bar=False,
            limit_val_batches=0,
        )
        with room_to_train(config):
            trainer.fit(module, datamodule=data)
    return {**meter.found, "devices": world}


class _Sample(TellDataModule):
    """The data of a run, of which a few micro-batches are trained."""

    world = 1

    def setup(self, stage: str | None = None) -> None:
        """Set up the run, then let every micro-batch be a step, and choose them."""
        super().setup(stage)
        trainer = self._trainer
        self.passes = trainer.accumulate_grad_batches
        units = trainer.max_steps * self.settings.optimizer_batch * self.world
        size = self.micro_batch * self.world
        longest = longest_unit(self.units, self.prepared.lengths, units)
        starts = [(index * size % max(1, units), 0) for index in range(1 + TYPICAL)]
        starts.insert(1, (longest // size * size, longest % self.world))
        self._sample = starts
        trainer.accumulate_grad_batches = 1
        trainer.fit_loop.epoch_loop.max_steps = len(starts)

    def train_dataloader(self) -> Stream:
        """Return the chosen micro-batches."""
        return Stream(
            lambda: _Chosen(self.units, self._sample, self.micro_batch, self.world),
            PreparedRows(self.prepared.rows),
            total=len(self._sample),
            names=[source.name for source in self.plan.sources],
        )


class _Chosen(MicroBatches):
    """Yields micro-batches that begin at chosen units, each as one rank would take it."""

    def __init__(
        self, units: Units, starts: Sequence[tuple[int, int]], micro_batch: int, world: int
    ) -> None:
        super().__init__(units, Place(0, world, micro_batch), 0, 0)
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[list[list[Slot]]]:
        step = self.place.step
        for first, rank in self.starts:
            yield self.units.at(range(first, first + step))[rank :: self.place.world]


class _Meter(pl.Callback):
    """Measures the steps, then answers and losses with the same model."""

    def __init__(self, config: Config, data: _Sample, folder: Path) -> None:
        self.config, self.data, self.folder = config, data, folder
        self.steps: list[tuple[float, float, int, tuple[int, int]]] = []
        self.found: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read what is there before the first step."""
        self.on_gpu = trainer.strategy.root_device.type == "cuda"
        if self.on_gpu:
            self.before = torch.cuda.memory_allocated()
            _, self.available = torch.cuda.mem_get_info()
        else:
            self.before, self.available = resident_bytes(), available_bytes()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._began = self._now()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Note the end of the backward pass."""
        self._passed = self._now()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Note pass, step, tokens and shape of a micro-batch."""
        tokens = int((batch.examples != PADDING).sum())
        rows, width = batch.input_ids.shape
        now = self._now()
        self.steps.append((self._passed - self._began, now - self._passed, tokens, (rows, width)))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the figures of the steps together, and measure the rest."""
        module, data = pl_module, self.data
        assert isinstance(module, TellModule)
        peak = peak_memory_bytes()
        (first, *_), longest, *typical = self.steps
        passing = sum(seconds for seconds, *_ in typical) / len(typical)
        stepping = sum(seconds for _, seconds, *_ in typical) / len(typical)
        tokens = sum(tokens for *_, tokens, _ in typical) / len(typical)
        seconds = data.passes * passing + stepping
        about = machine()
        threads = about["torch_threads"]
        cpu = f"{about['processor']}, {threads} thread{'' if threads == 1 else 's'}"
        self.found = {
            "device": torch.cuda.get_device_name() if self.on_gpu else cpu,
            "precision": str(trainer.precision),
            "unit": data.units.unit,
            "micro_batch": data.micro_batch,
            "accumulation": data.passes,
            "seconds_per_step": seconds,
            "compiling_seconds": max(0.0, first - passing) if self.config.model.compile else 0.0,
            "tokens_per_step": tokens * data.passes * data.world,
            "tokens_per_second": tokens * data.passes * data.world / seconds,
            "longest": {"rows": longest[3][0], "tokens": longest[3][1]},
            "bytes": self._saved(trainer, module),
        }
        self._restart_peak()
        self.found |= self._score(trainer, module)
        self.found["memory"] = {
            "before": self.before,
            "training": peak,
            "scoring": self._peak(),
            "available": self.available,
        }

    def _saved(self, trainer: pl.Trainer, module: TellModule) -> dict[str, float]:
        """Return the bytes of a checkpoint and of an adapter folder, by writing both."""
        checkpoint, adapter = self.folder / "last.ckpt", self.folder / "adapter"
        trainer.save_checkpoint(checkpoint, weights_only=False)
        save_adapter(adapter, module, self.data, base_files={"none": ""})
        files = [path for path in adapter.rglob("*") if path.is_file()]
        return {
            "checkpoint": checkpoint.stat().st_size,
            "adapter": sum(path.stat().st_size for path in files),
            "prediction": 0.0,
        }

    def _score(self, trainer: pl.Trainer, module: TellModule) -> dict[str, Any]:
        """Return the seconds of an answer by task, of a token of losses, and of the chat probe."""
        data, settings = self.data, self.config.eval
        split = "test" if settings.test and data.evaluation["test"] else "dev"
        seconds: dict[str, float] = {}
        written = answered = spent = new = 0.0
        for name, rows in {**data.evaluation["dev"], **data.evaluation[split]}.items():
            width = max(map(len, rows.prompts)) + rows.max_new_tokens
            most = settings.test_rows if split == "test" else settings.dev_rows
            size = min(len(rows) if most is None else most, max(1, settings.batch_tokens // width))
            for count in (1, size):  # the first call finds out how the model is asked
                began = self._now()
                with trainer.precision_plugin.val_step_context():
                    predictions = answer_rows(
                        module.model,
                        data.tokenizer,
                        rows,
                        budget=Budget(settings.batch_tokens),
                        most=count,
                        temperature=settings.temperature,
                        seed=data.seed,
                    )
            took = self._now() - began
            seconds[name] = took / len(predictions)
            spent += took
            new += sum(each.new_tokens + each.stopped for each in predictions)
            lines = [json.dumps(saved_row(each, rows.scoring)) for each in predictions]
            written += sum(len(line) + 1 for line in lines)
            answered += len(lines)
        self.found["bytes"]["prediction"] = written / max(1, answered)
        chat = can_chat(data.tokenizer) if settings.probe is None else settings.probe
        probed = len(prompts()) * LONGEST * spent / max(1.0, new) if chat and seconds else 0.0
        return {
            "seconds_per_row": seconds,
            "seconds_per_loss_token": self._loss(trainer, module, split),
            "seconds_of_chat": probed,
        }

    def _loss(self, trainer: pl.Trainer, module: TellModule, split: str) -> float:
        """Return the seconds of a token whose loss is computed, of a batch of middle length."""
        batches = list(self.data._loss_batches(split))
        if not self.data.prepared.loss_rows[split]:
            return 0.0
        batch = trainer.strategy.batch_to_device(batches[len(batches) // 2])
        with (
            evaluating(module.model),
            torch.no_grad(),
            trainer.precision_plugin.val_step_context(),
        ):
            for _ in range(2):
                began = self._now()
                module.validation_step(batch, 0)
        return (self._now() - began) / int((batch.examples != PADDING).sum())

    def _now(self) -> float:
        """Read the clock when the device has done what it was asked."""
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _restart_peak(self) -> None:
        reset_peak()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self.on_gpu else peak_since_reset()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
