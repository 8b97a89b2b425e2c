"""Short training runs over eight fixed examples, in any layout.

It is a script too, `training.py BASE OUT`: two DDP ranks take the step that `fit` takes in the
process of the tests, and rank 0 saves what `fit` returns, for the module and for the naive loss.
With `compiled` as a third argument, it does so for the module with compiled layers.
"""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger

from tell_lightning.callbacks.resume import Resume
from tell_lightning.data.batches import IGNORE, Batch, Item, collate_unpacked
from tell_lightning.data.stream import MicroBatches, PreparedRows, Stream
from tell_lightning.data.units import Examples, Place
from tell_lightning.model.loss import token_losses
from tell_lightning.model.module import TellModule
from tell_lightning.model.settings import LoraSettings, OptimizerSettings
from tell_lightning.model.sharding import shard_like

LABEL_COUNTS = (2, 3, 24, 30, 2, 4, 20, 28)
NAMES = ("task", "general")


def items() -> list[Item]:
    """Eight examples with a prompt of six tokens; the two sources take turns."""
    draw = random.Random(5)
    return [
        Item(
            [draw.randrange(1, 96) for _ in range(6 + count)],
            [False] * 6 + [True] * count,
            index % 2,
            index // 2,
            index,
        )
        for index, count in enumerate(LABEL_COUNTS)
    ]


def batch_of(positions: Sequence[int]) -> Batch:
    """The examples at some positions of the stream, which repeats the eight."""
    examples = items()
    return collate_unpacked([examples[p % 8]._replace(position=p) for p in positions], NAMES)


class Plan:
    """Position p holds example p modulo 8: row p // 2 modulo 4 of its source."""

    sources = tuple(SimpleNamespace(name=name) for name in NAMES)

    def at(self, positions: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """Yield (position, source, row)."""
        yield from ((p, p % 2, p % 8 // 2) for p in positions)


class Rows:
    """The rows of one source, as columns."""

    def __init__(self, source: int) -> None:
        self.items = [item for item in items() if item.source == source]

    def __getitem__(self, rows: Sequence[int]) -> dict[str, list[Any]]:
        return {name: [getattr(self.items[r], name) for r in rows] for name in Item._fields}


class Batches:
    """A loader; Lightning would take a list for several loaders."""

    def __init__(self, *batches: Batch) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class Data(pl.LightningDataModule):
    """The real stream over the fixed examples."""

    def __init__(self, micro_batch: int) -> None:
        super().__init__()
        self.plan, self.micro_batch = Plan(), micro_batch

    def train_dataloader(self) -> Stream:
        trainer = self.trainer
        assert trainer is not None
        place = Place(trainer.global_rank, trainer.world_size, self.micro_batch)
        micro_steps = trainer.max_steps * trainer.accumulate_grad_batches
        plan: Any = self.plan

        def from_here() -> MicroBatches:
            start = trainer.global_step * trainer.accumulate_grad_batches * place.step
            return MicroBatches(Examples(plan), place, start, micro_steps * place.step)

        rows = PreparedRows([Rows(0), Rows(1)])
        return Stream(from_here, rows, total=micro_steps, names=NAMES)

    def val_dataloader(self) -> Batches:
        batches = batch_of([0, 1, 2]), batch_of([3, 4])
        return Batches(*(batch._replace(split="dev") for batch in batches))

    def test_dataloader(self) -> Batches:
        return Batches(batch_of([6])._replace(split="test"))


class MeanOfMeans(TellModule):
    """What the real module must not be: a mean for each micro-batch, and the mean of those."""

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return token_losses(self.model, batch)[0].mean()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave the gradients as they are."""


class OneWithoutLabels(TellModule):
    """The real module, whose second micro-batch has no labels."""

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        if batch_idx == 1:
            batch = batch._replace(labels=torch.full_like(batch.labels, IGNORE), targets=None)
        return super().training_step(batch, batch_idx)


class Metrics(Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> int:
        return 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append({**metrics, "step": -1 if step is None else step})

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Not kept."""


@dataclass
class Watch(pl.Callback):
    """Keeps what the optimizer is given at each step."""

    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    resumes: bool = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give B other values than its zeros, with which A would have no gradient."""
        if trainer.global_step == 0 and not self.resumes:
            warm_up(pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            # After the step, which runs the backward pass first; the gradients are still there.
            self.lrs.append(optimizer.param_groups[0]["lr"])
            self.gradients.append(gradients_of(pl_module))

        trainer.optimizers[0].register_step_post_hook(keep)

    def on_train_batch_end(self, *_: Any) -> None:
        """Keep what the micro-step was seeded with."""
        self.seeds.append(torch.initial_seed())


def warm_up(module: torch.nn.Module) -> None:
    """Fill every B of the adapters, the same in every process."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                drawn = torch.randn(parameter.shape, generator=generator) * 0.1
                parameter.copy_(shard_like(parameter, drawn))


def gradients_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copy the gradients."""
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def relative_error(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> float:
    """The largest, over the parameters, of |found - wanted| / |wanted|."""
    assert found.keys() == wanted.keys()
    errors = {name: (found[name] - wanted[name]).norm() / wanted[name].norm() for name in wanted}
    return float(max(errors.values()))


def make_module(kind: type[TellModule], base: Path | str, **settings: Any) -> TellModule:
    """Build a module on a small base, without dropout and with a constant learning rate."""
    settings = {
        "base": str(base),
        "lora": LoraSettings(rank=4, alpha=8, dropout=0.0),
        "optimizer": OptimizerSettings(schedule="constant", warmup_share=0.0),
        **settings,
    }
    return kind(**settings, seed=11)


@dataclass(frozen=True)
class Run:
    """A finished run."""

    trainer: pl.Trainer
    module: TellModule
    gradients: list[dict[str, torch.Tensor]]
    lrs: list[float]
    seeds: list[int]
    logged: list[dict[str, float]]


def fit(
    base: Path | str,
    *,
    micro_batch: int,
    accumulate: int,
    kind: type[TellModule] = TellModule,
    ranks: int = 1,
    steps: int = 1,
    checkpoint: Path | None = None,
    data: Data | None = None,
    trainer: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """Train for a few optimizer steps, from the start or from a checkpoint."""
    watch, metrics = Watch(resumes=checkpoint is not None), Metrics()
    options = {
        "accelerator": "cpu",
        "devices": ranks,
        "strategy": "ddp" if ranks > 1 else "auto",
        "max_steps": steps,
        "max_epochs": -1,
        "accumulate_grad_batches": accumulate,
        "log_every_n_steps": 1,
        "limit_val_batches": 0,
        "callbacks": [watch, Resume(patience=None)],
        "logger": metrics,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
    }
    runner = pl.Trainer(**{**options, **(trainer or {})})
    module = make_module(kind, base, **settings)
    data = data or Data(micro_batch)
    runner.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return Run(runner, module, watch.gradients, watch.lrs, watch.seeds, metrics.rows)


def main(base: str, out: str, compiled: str = "") -> None:
    """Take one step on two ranks, rightly and naively, or with compiled layers."""
    torch.set_num_threads(1)
    found = {}
    kinds = [TellModule] if compiled else [TellModule, MeanOfMeans]
    changes = {"compile": True, "activation_checkpointing": True} if compiled else {}
    for kind in kinds:
        run = fit(base, kind=kind, ranks=2, micro_batch=2, accumulate=2, **changes)
        found[kind.__name__] = {"gradients": run.gradients[0], "logged": run.logged}
    if run.trainer.is_global_zero:
        torch.save(found, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
