"""What we rely on in Lightning beyond its documentation, asked of plain Lightning.

One test for each assumption, named by what must be true; the docstring says who needs it. A test
that fails after Lightning has changed names what has to be looked at before its bound is raised.
"""

import ast
import contextlib
import inspect
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.accelerators.cuda import _check_cuda_matmul_precision
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import move_data_to_device, rank_zero_info, rank_zero_only
from torch.utils.data import DataLoader, DistributedSampler

from tell_lightning.commands.startup import ADVERTS

SOURCES = Path(inspect.getfile(pl)).parent
RANK_ZERO = "lightning.pytorch.utilities.rank_zero"
SEED = "lightning.fabric.utilities.seed"


class Tiny(pl.LightningModule):
    """One parameter whose gradient is the batch; it keeps the batches, and when it was scored."""

    def __init__(self, lr: float = 1.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.lr = lr
        self.trained: list[int] = []
        self.scored: list[int] = []

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.trained.append(int(batch))
        return self.weight * batch

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        """Nothing to compute."""

    def test_step(self, batch: torch.Tensor, index: int) -> None:
        """Nothing to compute."""

    def on_validation_end(self) -> None:
        self.scored.append(self.trainer.global_step)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class Unsized:
    """A stream of numbers that is no DataLoader; it counts how many it was asked for."""

    def __init__(self, total: int, start: int = 0) -> None:
        self.total, self.start = total, start
        self.begun = self.fetched = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.begun += 1
        for number in range(self.start, self.total):
            self.fetched += 1
            yield torch.tensor(float(number))


class Sized(Unsized):
    """It knows the length of the whole run, wherever it starts."""

    def __len__(self) -> int:
        return self.total


class Stream(Sized):
    """It says, too, that it goes on where it stopped."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load: `start` says where."""


class Data(pl.LightningDataModule):
    """Streams from the step that its state names; two rows to score."""

    def __init__(self, loader: Callable[[int, int], Any] = Stream) -> None:
        super().__init__()
        self.loader = loader
        self.step = 0

    def train_dataloader(self) -> Any:
        each = self.trainer.accumulate_grad_batches
        self.stream = self.loader(self.trainer.max_steps * each, self.step * each)
        return self.stream

    def val_dataloader(self) -> Sized:
        return Sized(2)

    test_dataloader = val_dataloader

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.trainer.global_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]


class At(pl.Callback):
    """Calls functions at hooks."""

    def __init__(self, **hooks: Callable[..., None]) -> None:
        for name, function in hooks.items():
            assert hasattr(pl.Callback, name)
            setattr(self, name, function)


class Lines(Logger):
    """Keeps what it is given."""

    name = "lines"
    version = ""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.lines.append((step, metrics))

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Nothing to keep."""

    def of(self, name: str) -> list[tuple[int, float]]:
        return [(step, metrics[name]) for step, metrics in self.lines if name in metrics]


def make_trainer(**options: Any) -> pl.Trainer:
    """As in `commands/session.py`; four steps of two micro-batches, scored every two steps."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": -1,
        "max_steps": 4,
        "accumulate_grad_batches": 2,
        "check_val_every_n_epoch": None,
        "val_check_interval": 4,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**{**quiet, **options})


def fit(module: pl.LightningModule | None = None, data: Data | None = None, **options: Any) -> Any:
    """Fit and return the Trainer."""
    trainer = make_trainer(**options)
    trainer.fit(module or Tiny(), datamodule=data or Data())
    return trainer


def resume(path: Path, module: pl.LightningModule, data: Data | None = None, **options: Any) -> Any:
    """Go on from a checkpoint and return the Trainer."""
    trainer = make_trainer(**options)
    trainer.fit(module, datamodule=data or Data(), ckpt_path=path, weights_only=True)
    return trainer


@pytest.fixture
def halfway(tmp_path: Path) -> Path:
    """A checkpoint of a finished run of two steps."""
    path = tmp_path / "2.ckpt"
    fit(max_steps=2).save_checkpoint(path, weights_only=False)
    return path


# A Trainer that is made before the data are known


def test_max_steps_may_be_set_after_construction() -> None:
    """data/datamodule.py: cycles of the plan become steps when the data are there."""
    trainer = make_trainer(max_steps=-1)
    trainer.fit_loop.epoch_loop.max_steps = 3
    assert trainer.max_steps == 3
    module = Tiny()
    trainer.fit(module, datamodule=Data())
    assert trainer.global_step == 3
    assert module.trained == list(range(6))


def test_each_epoch_may_get_a_loader_and_its_own_number_of_batches() -> None:
    """data/datamodule.py: an epoch is a cycle of the plan, and cycles may differ by one step."""

    class Epochs(Data):
        def setup(self, stage: str) -> None:
            self.trainer.reload_dataloaders_every_n_epochs = 1

        def train_dataloader(self) -> Any:
            return range(
                self.trainer.current_epoch * 10, self.trainer.current_epoch * 10 + length()
            )

    def length() -> int:
        return 2 * (1 + trainer.current_epoch)

    module = Tiny()
    trainer = make_trainer(
        max_epochs=2, max_steps=-1, val_check_interval=1.0, check_val_every_n_epoch=1
    )
    trainer.fit(module, datamodule=Epochs())
    assert module.trained == [0, 1, 10, 11, 12, 13]
    assert trainer.global_step == 3


@pytest.mark.parametrize("told", [True, False])
def test_early_stopping_decides_before_the_fit_when_it_looks(told: bool) -> None:
    """callbacks/evaluation.py: it is told that validation counts, not the end of an epoch."""

    class Interval(pl.Callback):
        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            trainer.check_val_every_n_epoch, trainer.val_check_interval = None, 4
            if told:
                stopping._check_on_train_epoch_end = False

        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.log("val/score", 0.5)

    stopping = EarlyStopping("val/score", mode="max", patience=1)
    options = {"check_val_every_n_epoch": 1, "val_check_interval": 1.0, "max_steps": 9}
    trainer = fit(callbacks=[stopping, Interval()], **options)
    assert trainer.global_step == (4 if told else 9)


def test_accumulation_may_be_set_before_fit() -> None:
    """commands/fit.py: it follows from the optimizer batch and the number of devices."""
    trainer = make_trainer(accumulate_grad_batches=1)
    trainer.accumulate_grad_batches = 3
    module = Tiny()
    trainer.fit(module, datamodule=Data())
    assert len(module.trained) == 4 * 3
    assert trainer.global_step == 4


@pytest.mark.parametrize(("interval", "scored"), [(2, [1, 2, 3, 4]), (6, [3]), (10, [])])
def test_validation_interval_may_be_set_in_setup_and_counts_micro_batches(
    interval: int, scored: list[int]
) -> None:
    """callbacks/evaluation.py: it is set once the accumulation is known."""

    def setup(trainer: pl.Trainer, module: Any, stage: str) -> None:
        trainer.val_check_interval = interval

    module = Tiny()
    fit(module, val_check_interval=1, callbacks=[At(setup=setup)])
    assert module.scored == scored


def test_loggers_may_be_added_before_fit() -> None:
    """commands/fit.py: W&B starts when every check has passed."""
    trainer = make_trainer(logger=[])
    assert trainer.loggers == []
    lines = Lines()
    trainer.loggers += [lines]
    module = Tiny()
    trainer.callbacks.append(At(on_train_batch_end=lambda *rest: module.log("x", 1.0)))
    trainer.log_every_n_steps = 1
    trainer.fit(module, datamodule=Data())
    assert lines.of("x")


def test_number_of_devices_is_known_before_their_processes_start() -> None:
    """commands/fit.py: the accumulation is decided by it."""
    trainer = make_trainer(strategy="ddp", devices=2)
    assert (trainer.world_size, trainer.global_rank, trainer.is_global_zero) == (2, 0, True)


def test_data_module_may_be_given_its_trainer_before_fit() -> None:
    """commands/fit.py: a checkpoint is tried on it before the base is loaded."""
    data = Data()
    data.trainer = make_trainer()
    assert data.state_dict() == {"step": 0}
    data.trainer.fit(module := Tiny(), datamodule=data)
    assert module.trained == list(range(8))


def test_stages_are_set_up_in_this_order_and_resumed_before_the_loader_is_asked_for(
    halfway: Path,
) -> None:
    """data/datamodule.py, model/module.py, callbacks/resume.py: each needs those before it."""
    order: list[str] = []

    class Module(Tiny):
        def setup(self, stage: str) -> None:
            order.append(f"module setup: {stage == 'fit'}")

        def configure_model(self) -> None:
            order.append("configure_model")

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            order.append("module on_load_checkpoint")

        def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
            order.append("module load_state_dict")
            return super().load_state_dict(*arguments, **options)

        def configure_optimizers(self) -> Any:
            order.append("configure_optimizers")
            return super().configure_optimizers()

        def on_fit_start(self) -> None:
            order.append("on_fit_start")

    class Source(Data):
        def prepare_data(self) -> None:
            order.append("prepare_data")

        def setup(self, stage: str) -> None:
            order.append(f"data setup: {stage == 'fit'}")

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            order.append("data load_state_dict")

        def train_dataloader(self) -> Any:
            assert self.trainer.global_step == 2
            order.append("train_dataloader")
            return super().train_dataloader()

    Source.__qualname__ = Data.__qualname__
    watch = At(
        setup=lambda trainer, module, stage: order.append(f"callback setup: {stage == 'fit'}"),
        on_load_checkpoint=lambda *rest: order.append("callback on_load_checkpoint"),
        on_train_start=lambda *rest: order.append("on_train_start"),
    )
    resume(halfway, Module(), Source(), max_steps=3, callbacks=[watch])
    assert order == [
        "prepare_data",
        "data setup: True",
        "callback setup: True",
        "module setup: True",
        "configure_model",
        "module on_load_checkpoint",
        "module load_state_dict",
        "data load_state_dict",
        "callback on_load_checkpoint",
        "configure_optimizers",
        "on_fit_start",
        "train_dataloader",
        "on_train_start",
    ]


def test_module_is_configured_on_the_device_that_the_strategy_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """model/module.py: the base is loaded there, not on the CPU first."""

    class Stop(Exception):
        pass

    class Module(Tiny):
        def configure_model(self) -> None:
            assert torch.get_default_device().type == "meta"
            raise Stop

    trainer = make_trainer()
    device = torch.device("meta")
    monkeypatch.setattr(trainer.strategy, "tensor_init_context", lambda *rest, **options: device)
    with pytest.raises(Stop):
        trainer.fit(Module(), datamodule=Data())


def test_scoring_before_training_leaves_no_trace() -> None:
    """commands/fit.py: one Trainer scores the base, trains and scores again."""
    modes: list[bool] = []
    module = Tiny()
    module.part = torch.nn.Linear(1, 1).eval()

    def note(*rest: Any) -> None:
        modes.extend([module.training, module.part.training])

    trainer = make_trainer(callbacks=[At(on_test_start=note, on_validation_start=note)])
    data = Data()
    trainer.test(module, datamodule=data, verbose=False)
    trainer.validate(module, datamodule=data, verbose=False)
    assert modes == [False] * 4
    assert (module.training, module.part.training) == (True, False)
    assert trainer.global_step == 0
    with pytest.warns(match="in eval mode at the start of training"):
        trainer.fit(module, datamodule=data)
    assert module.trained == list(range(8))
    assert (module.training, module.part.training) == (True, False)
    trainer.test(module, datamodule=data, verbose=False)
    assert trainer.global_step == 4


def test_options_of_the_trainer_can_be_read_from_its_source() -> None:
    """commands/check.py: a configuration is checked without importing torch."""
    tree = ast.parse((SOURCES / "trainer/trainer.py").read_text(encoding="utf-8"))
    (trainer,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Trainer")
    (init,) = (n for n in trainer.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    read = [argument.arg for argument in init.args.kwonlyargs if argument.annotation is not None]
    parameters = inspect.signature(pl.Trainer.__init__).parameters.values()
    assert read == [p.name for p in parameters if p.name != "self"]


# The order of the callbacks


def test_checkpoint_callbacks_are_moved_behind_all_others_and_keep_their_order() -> None:
    """callbacks/checkpoints.py: what is saved has seen the scores and the losses of the step."""

    class Last(Checkpoint):
        pass

    last, best, other = Last(), ModelCheckpoint(monitor="x"), pl.Callback()
    trainer = make_trainer(callbacks=[best, last, other], enable_checkpointing=True)
    assert trainer.callbacks == [other, best, last]
    assert trainer.checkpoint_callbacks == [best, last]


def test_checkpoint_callback_of_our_own_keeps_lightning_from_adding_one() -> None:
    """commands/session.py: without dev rows there is no ModelCheckpoint at all."""
    own = Checkpoint()
    trainer = make_trainer(callbacks=[own], enable_checkpointing=True)
    assert trainer.callbacks == [own]


def test_progress_bar_of_our_own_is_the_only_one() -> None:
    """callbacks/progress.py: Lightning's would count micro-batches."""

    class Bar(ProgressBar):
        def disable(self) -> None:
            raise AssertionError

    bar = Bar()
    trainer = fit(callbacks=[bar], enable_progress_bar=True)
    assert trainer.callbacks == [bar]
    assert bar.trainer is trainer


def test_progress_bar_is_disabled_on_other_ranks() -> None:
    """callbacks/progress.py: one bar for all."""
    asked: list[str] = []

    class Bar(ProgressBar):
        def disable(self) -> None:
            asked.append("disable")

    for first in (True, False):
        trainer: Any = SimpleNamespace(is_global_zero=first)
        Bar().setup(trainer, Tiny(), "fit")
    assert asked == ["disable"]


# An optimizer step


def test_loss_is_divided_by_the_accumulation_before_our_hook_and_clipped_after_it() -> None:
    """model/module.py: the hook turns sums into means, and clipping must see those."""
    seen: list[float] = []

    def scale(trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        seen.append(float(module.weight.grad))
        module.weight.grad *= 100

    module = Tiny()
    watch = At(on_before_optimizer_step=scale)
    fit(module, max_steps=2, gradient_clip_val=1.0, callbacks=[watch])
    assert seen == [(0 + 1) / 2, (2 + 3) / 2]
    assert module.weight.item() == pytest.approx(-1.0 - 0.5)  # 1 by the learning rates


def test_step_is_counted_after_it_was_taken() -> None:
    """model/module.py, callbacks/audit.py: dropout, logging and the audit go by this number."""
    counts: dict[str, list[int]] = {"start": [], "before": [], "end": []}

    def at(name: str) -> Callable[..., None]:
        return lambda trainer, *rest: counts[name].append(trainer.global_step)

    watch = At(
        on_train_batch_start=at("start"),
        on_before_optimizer_step=at("before"),
        on_train_batch_end=at("end"),
    )
    fit(max_steps=3, callbacks=[watch])
    assert counts == {
        "start": [0, 0, 1, 1, 2, 2],
        "before": [0, 1, 2],
        "end": [0, 1, 1, 2, 2, 3],
    }


def test_schedule_goes_by_optimizer_steps_and_the_rate_of_the_step_is_seen_before_it() -> None:
    """model/module.py, callbacks/resume.py: LambdaLR, `last_epoch` and the logged rate."""
    rates: list[float] = []

    def note(trainer: pl.Trainer, *rest: Any) -> None:
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = fit(callbacks=[At(on_before_optimizer_step=note)])
    assert rates == [1.0, 0.5, 0.25, 0.125]
    (config,) = trainer.lr_scheduler_configs
    assert isinstance(config.scheduler, torch.optim.lr_scheduler.LambdaLR)
    assert config.scheduler.last_epoch == 4


def test_step_before_is_logged_and_scored_when_the_next_one_starts() -> None:
    """callbacks/checkpoints.py: what is saved then repeats nothing and skips nothing."""
    order: list[str] = []

    class Noted(Lines):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            order.append("score logged" if "score" in metrics else "logged")

    class Module(Tiny):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            order.append("step")
            self.log("loss", 1.0)

        def on_train_batch_end(self, *rest: Any) -> None:
            order.append("module end")

        def on_validation_epoch_end(self) -> None:
            self.log("score", 1.0)

    watch = At(
        on_train_start=lambda *rest: order.append("train start"),
        on_train_batch_start=lambda *rest: order.append("start"),
        on_train_batch_end=lambda *rest: order.append("callback end"),
        on_validation_start=lambda *rest: order.append("validation"),
        on_train_end=lambda *rest: order.append("train end"),
    )
    fit(Module(), max_steps=4, logger=Noted(), log_every_n_steps=1, callbacks=[watch])
    ends = ["callback end", "module end"]
    step = ["start", *ends, "start", "step", *ends, "logged"]
    scored = ["validation", "score logged"]
    wanted = ["train start", *2 * (2 * step + scored)]
    assert order[: len(wanted)] == wanted
    assert order[-1] == "train end"
    assert set(order[len(wanted) : -1]) <= {"logged"}


# The loader


def test_stream_that_is_no_dataloader_is_taken_as_it_is() -> None:
    """data/stream.py: the stream deals rows out to the ranks itself."""
    trainer = make_trainer(strategy="ddp", devices=2, use_distributed_sampler=True)
    prepare = trainer._data_connector._prepare_dataloader
    stream = Stream(8)
    assert prepare(stream, shuffle=True, mode=RunningStage.TRAINING) is stream
    rows: Any = [0, 1, 2, 3]
    other = prepare(DataLoader(rows), shuffle=True, mode=RunningStage.TRAINING)
    assert isinstance(other.sampler, DistributedSampler)  # this is what must not happen


def test_sampler_of_a_dataloader_is_left_alone_where_we_say_so() -> None:
    """commands/session.py: the rows whose loss is watched are dealt out already."""
    trainer = make_trainer(strategy="ddp", devices=2)
    rows: Any = [0, 1, 2, 3]
    loader = DataLoader(rows)
    prepare = trainer._data_connector._prepare_dataloader
    assert prepare(loader, shuffle=False, mode=RunningStage.VALIDATING) is loader


@pytest.mark.parametrize(("loader", "ahead"), [(Stream, 0), (Unsized, 1)])
def test_sized_stream_is_read_once_and_never_ahead(loader: Any, ahead: int) -> None:
    """data/stream.py: it has a length for this; without one a batch is read ahead."""
    data = Data(loader)
    counts: list[tuple[int, int]] = []

    def note(trainer: Any, module: Any, batch: Any, index: int) -> None:
        counts.append((index, data.stream.fetched))

    fit(data=data, callbacks=[At(on_train_batch_start=note)])
    assert counts == [(index, min(8, index + 1 + ahead)) for index in range(8)]
    assert data.stream.begun == 1


def test_stream_with_a_state_is_not_complained_about_on_resume(halfway: Path) -> None:
    """data/stream.py: its state is empty and only says that a resume is exact."""
    resume(halfway, Tiny(), Data(Stream), max_steps=3)
    bare = halfway.with_name("bare.ckpt")
    fit(data=Data(Sized), max_steps=2).save_checkpoint(bare, weights_only=False)
    with pytest.warns(match="ended before the epoch ended"):
        resume(bare, Tiny(), Data(Sized), max_steps=3)


def test_named_tuple_is_moved_field_by_field() -> None:
    """data/batches.py: a `Batch` is one."""

    class Pair(NamedTuple):
        a: torch.Tensor
        b: torch.Tensor

    moved = move_data_to_device(Pair(torch.zeros(1), torch.zeros(2)), torch.device("meta"))
    assert isinstance(moved, Pair)
    assert {moved.a.device.type, moved.b.device.type} == {"meta"}


# Checkpoints


def test_checkpoint_counts_batches_where_we_look() -> None:
    """callbacks/resume.py, commands/fit.py: the keys that are read and restated."""
    saved: list[dict[str, Any]] = []

    def save(trainer: Any, module: Any, batch: Any, index: int) -> None:
        if index == 4:
            saved.append(trainer._checkpoint_connector.dump_checkpoint(weights_only=False))

    fit(callbacks=[At(on_train_batch_start=save)])
    (checkpoint,) = saved
    assert {"state_dict", "global_step", "loops", "Data"} <= checkpoint.keys()
    assert {"callbacks", "optimizer_states", "lr_schedulers"} <= checkpoint.keys()
    assert checkpoint["global_step"] == 2
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    done = {"ready": 5, "started": 4, "processed": 4, "completed": 4}
    assert progress["total"] == progress["current"] == done


def restate(checkpoint: dict[str, Any], batches: int) -> None:
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts.update(ready=batches, started=batches, processed=batches, completed=batches)


@pytest.mark.parametrize("after", [2, 1, 3])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_run_goes_on_from_the_start_of_a_step_with_restated_counts(
    at: int, after: int, tmp_path: Path
) -> None:
    """callbacks/checkpoints.py, callbacks/resume.py: no batch, score or step twice or never."""

    def save(trainer: Any, module: Any, batch: Any, index: int) -> None:
        if index % 2 == 0:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt", weights_only=False)

    def load(trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        assert trainer.datamodule.step == at
        restate(checkpoint, at * after)

    indices: list[int] = []
    note = At(
        on_load_checkpoint=load,
        on_train_batch_start=lambda trainer, module, batch, index: indices.append(index),
    )
    whole = Tiny()
    fit(whole, max_steps=5, callbacks=[At(on_train_batch_start=save)])
    assert whole.scored == [2, 4]
    module, data = Tiny(), Data()
    trainer = resume(
        tmp_path / f"{at}.ckpt",
        module,
        data,
        max_steps=7,
        accumulate_grad_batches=after,
        val_check_interval=2 * after,
        callbacks=[note],
    )
    assert module.trained == indices == list(range(at * after, 7 * after))
    assert module.scored == [step for step in (2, 4, 6) if step > at]
    assert trainer.global_step == 7
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 7
    assert data.stream.begun == 1


def test_finished_run_can_be_saved_and_goes_on_with_more_steps(tmp_path: Path) -> None:
    """commands/fit.py: the last checkpoint is written when `Trainer.fit` has returned."""
    restated = At(on_load_checkpoint=lambda trainer, module, saved: restate(saved, 2 * steps))
    for steps in (1, 2, 4, 5):
        path = tmp_path / f"{steps}.ckpt"
        fit(max_steps=steps).save_checkpoint(path, weights_only=False)
        for callbacks in ([], [restated]):
            module, data = Tiny(), Data()
            trainer = resume(path, module, data, max_steps=7, callbacks=callbacks)
            assert module.trained == list(range(2 * steps, 14))
            assert module.scored == [step for step in (2, 4, 6) if step > steps]
            assert trainer.global_step == 7
            assert data.stream.begun == 1


def test_run_that_was_stopped_early_goes_on_with_more_steps(tmp_path: Path) -> None:
    """callbacks/resume.py: it ends in the midst of Lightning's epoch, and counts as completed."""

    def stop(trainer: Any, module: Any) -> None:
        trainer.should_stop = True

    path = tmp_path / "2.ckpt"
    trainer = fit(max_steps=6, callbacks=[At(on_validation_end=stop)])
    assert trainer.global_step == 2
    trainer.save_checkpoint(path, weights_only=False)
    module = Tiny()
    resume(
        path, module, max_steps=6, callbacks=[At(on_load_checkpoint=lambda t, m, c: restate(c, 4))]
    )
    assert module.trained == list(range(4, 12))
    assert module.scored == [4, 6]


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """commands/fit.py: `weights_only` reaches the function that reads the file."""
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {}, "code": SimpleNamespace()}, path)
    with pytest.raises(UnpicklingError):
        resume(path, Tiny())


def test_state_of_the_data_is_stored_under_the_name_of_its_class(halfway: Path) -> None:
    """commands/fit.py: it is looked up there before Lightning starts."""
    assert torch.load(halfway, weights_only=True)[Data.__qualname__] == {"step": 2}


def test_checkpoint_holds_what_the_module_gives_and_is_given_back_to_it(tmp_path: Path) -> None:
    """model/module.py: checkpoints hold the adapters alone."""
    given: list[tuple[dict[str, Any], bool]] = []

    class Module(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.strict_loading = False
            self.base = torch.nn.Linear(1, 1)

        def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:
            return {"weight": super().state_dict(*arguments, **options)["weight"]}

        def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
            given.append((dict(state), strict))

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["ours"] = [1.0]

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            assert checkpoint["ours"] == [1.0]

    path = tmp_path / "a.ckpt"
    trainer = fit(Module(), max_steps=2)
    trainer.save_checkpoint(path, weights_only=False)
    state = torch.load(path, weights_only=True)["state_dict"]
    assert set(state) == {"weight"}
    resume(path, Module(), max_steps=3)
    assert given == [(state, False)]


def test_state_of_a_callback_is_stored_and_given_back(tmp_path: Path) -> None:
    """callbacks/evaluation.py: the scores of the sessions before."""
    given: list[Any] = []

    class History(pl.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"history": "[]"}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            given.append(state_dict)

    path = tmp_path / "a.ckpt"
    fit(max_steps=2, callbacks=[History()]).save_checkpoint(path, weights_only=False)
    resume(path, Tiny(), max_steps=3, callbacks=[History()])
    assert given == [{"history": "[]"}]


def test_rate_of_the_checkpoint_is_back_when_training_starts_and_may_be_changed(
    halfway: Path,
) -> None:
    """callbacks/resume.py: what is typed on resume wins."""
    rates: list[float] = []

    def correct(trainer: Any, module: Any) -> None:
        scheduler = trainer.lr_scheduler_configs[0].scheduler
        (group,) = scheduler.optimizer.param_groups
        assert (group["lr"], scheduler.base_lrs, scheduler.last_epoch) == (0.25, [1.0], 2)
        scheduler.base_lrs = [8.0]
        group["lr"] = 8.0 * 0.25

    def note(trainer: Any, *rest: Any) -> None:
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    watch = At(on_train_start=correct, on_before_optimizer_step=note)
    resume(halfway, Tiny(lr=8.0), max_steps=4, callbacks=[watch])
    assert rates == [2.0, 1.0]


def test_patience_of_the_checkpoint_is_back_when_training_starts_and_may_be_changed(
    tmp_path: Path,
) -> None:
    """callbacks/resume.py: what is typed on resume wins."""

    def score(trainer: Any, module: Any) -> None:
        module.log("val/score", 0.5)

    def correct(trainer: Any, module: Any) -> None:
        (stopping,) = (c for c in trainer.callbacks if isinstance(c, EarlyStopping))
        assert (stopping.patience, stopping.wait_count) == (9, 0)
        stopping.patience = 1

    path = tmp_path / "2.ckpt"
    watch = At(on_validation_epoch_end=score)
    stopping = EarlyStopping("val/score", mode="max", patience=9)
    trainer = fit(max_steps=2, callbacks=[watch, stopping])
    trainer.save_checkpoint(path, weights_only=False)
    stopping = EarlyStopping("val/score", mode="max", patience=1)
    watch = At(on_validation_epoch_end=score, on_train_start=correct)
    trainer = resume(path, Tiny(), max_steps=9, callbacks=[watch, stopping])
    assert trainer.global_step == 4


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_best_checkpoint_is_kept_over_sessions_in_one_file(tmp_path: Path) -> None:
    """callbacks/checkpoints.py, commands/fit.py: best_model_path and best_model_score."""
    scores = {1: 0.5, 2: 0.9, 3: 0.8, 4: 0.95}
    best = tmp_path / "best/best.ckpt"
    last = tmp_path / "last.ckpt"
    for steps, step in ((2, 2), (3, 2), (4, 4)):
        callback = ModelCheckpoint(
            dirpath=best.parent,
            filename="best",
            monitor="val/score",
            mode="max",
            enable_version_counter=False,
        )
        watch = At(
            on_validation_epoch_end=lambda trainer, module: module.log(
                "val/score", scores[trainer.global_step]
            )
        )
        options = {
            "max_steps": steps,
            "val_check_interval": 2,
            "callbacks": [watch, callback],
            "enable_checkpointing": True,
        }
        trainer = resume(last, Tiny(), **options) if last.exists() else fit(**options)
        trainer.save_checkpoint(last, weights_only=False)
        assert callback.best_model_path == str(best)
        assert float(callback.best_model_score) == pytest.approx(scores[step])
        assert torch.load(best, weights_only=True)["global_step"] == step
        assert list(best.parent.iterdir()) == [best]


def test_folder_with_the_best_checkpoint_is_warned_of_on_resume(tmp_path: Path) -> None:
    """commands/startup.py: the message that is kept from the user."""
    (tmp_path / "best.ckpt").touch()
    callback = ModelCheckpoint(dirpath=tmp_path, monitor="val/score")
    with pytest.warns(match="Checkpoint directory .* exists and is not empty"):
        callback.setup(make_trainer(), Tiny(), "fit")


def test_every_checkpoint_is_written_by_the_plugin(tmp_path: Path) -> None:
    """callbacks/checkpoints.py: `AtomicCheckpoints` lets a kill leave the old file."""
    written: list[str] = []

    class Writer(TorchCheckpointIO):
        def save_checkpoint(
            self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
        ) -> None:
            written.append(Path(path).name)
            torch.save(checkpoint, path)

    score = At(on_validation_epoch_end=lambda trainer, module: module.log("x", 1.0))
    trainer = fit(
        callbacks=[score, ModelCheckpoint(dirpath=tmp_path, save_top_k=-1, monitor="x")],
        plugins=[Writer()],
        enable_checkpointing=True,
    )
    assert len(written) == 2
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    assert written[2:] == ["last.ckpt"]


# Logging


class Logged(Tiny):
    """Logs its steps as `loss`, 1 for the first, and 10 times as much after scoring."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        step = self.trainer.global_step + 1
        if step % self.trainer.log_every_n_steps == 0:
            self.log("loss", float(step))

    def on_validation_epoch_end(self) -> None:
        self.log("score", 10.0 * self.trainer.global_step)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_step_n_is_logged_as_step_n_minus_one_together_with_its_scores(every: int) -> None:
    """model/module.py, callbacks/loggers.py: windows end, and rows are kept, by this."""
    fit(Logged(), max_steps=6, logger=(lines := Lines()), log_every_n_steps=every)
    assert list(dict(lines.of("loss")).items()) == [
        (step - 1, step) for step in range(1, 7) if step % every == 0
    ]
    assert lines.of("score") == [(step - 1, 10.0 * step) for step in (2, 4, 6)]


def test_what_a_callback_logs_at_the_end_of_a_step_is_in_the_row_of_the_step() -> None:
    """callbacks/throughput.py: tokens per second stand beside the loss."""

    def log(trainer: Any, module: Any, *rest: Any) -> None:
        module.log("speed", float(trainer.global_step))

    watch = At(on_train_batch_end=log)
    fit(Logged(), logger=(lines := Lines()), log_every_n_steps=2, callbacks=[watch])
    rows = [(step, row["loss"], row["speed"]) for step, row in lines.lines if "loss" in row]
    assert rows[:2] == [(1, 2.0, 2.0), (3, 4.0, 4.0)]


def test_numbers_of_a_step_can_be_read_at_its_end() -> None:
    """callbacks/progress.py: the line of a step shows the loss of this step."""
    seen: list[tuple[int, float]] = []

    def read(trainer: Any, *rest: Any) -> None:
        if trainer.global_step and trainer.global_step % trainer.log_every_n_steps == 0:
            seen.append((trainer.global_step, float(trainer.callback_metrics["loss"])))

    fit(Logged(), logger=Lines(), log_every_n_steps=2, callbacks=[At(on_train_batch_end=read)])
    assert {(2, 2.0), (4, 4.0)} <= set(seen)
    assert {loss for step, loss in seen if step == 4} == {4.0}


def test_scores_of_an_epoch_can_be_read_at_its_end() -> None:
    """callbacks/evaluation.py: losses that the module logs are kept beside the scores."""
    seen: list[tuple[float, float]] = []

    def log(trainer: Any, module: Any) -> None:
        module.log_dict({"val/score": 0.1 * trainer.global_step})

    def read(trainer: Any, *rest: Any) -> None:
        metrics = trainer.callback_metrics
        seen.append((float(metrics["score"]), round(float(metrics["val/score"]), 4)))

    fit(Logged(), callbacks=[At(on_validation_epoch_end=log, on_validation_end=read)])
    assert seen == [(20.0, 0.2), (40.0, 0.4)]


def test_number_that_is_not_logged_again_is_written_again() -> None:
    """model/module.py: why a source that a window did not see is logged as nan."""

    class Module(Tiny):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            if self.trainer.global_step == 0:
                self.log("once", 7.0)

    fit(Module(), logger=(lines := Lines()), log_every_n_steps=1)
    assert dict(lines.of("once")) == dict.fromkeys(range(4), 7.0)


def test_counter_of_steps_that_we_set_is_what_loggers_are_given() -> None:
    """callbacks/resume.py: Lightning's own may be one ahead after a resume."""

    def shift(trainer: Any, *rest: Any) -> None:
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step + 100

    watch = At(on_train_batch_start=shift)
    fit(Logged(), logger=(lines := Lines()), log_every_n_steps=1, callbacks=[watch])
    assert list(dict(lines.of("loss")).items()) == [(100, 1), (101, 2), (102, 3), (103, 4)]
    assert lines.of("score") == [(101, 20), (103, 40)]


def test_loggers_can_be_asked_to_write_what_they_hold_back() -> None:
    """callbacks/checkpoints.py: a checkpoint is never ahead of metrics.csv."""
    assert all(callable(kind.save) for kind in (Logger, CSVLogger, WandbLogger))


def test_csv_logger_writes_into_the_folder_itself_and_keeps_its_columns(tmp_path: Path) -> None:
    """callbacks/loggers.py: `metrics_keys` are the columns; rows are added behind those there."""
    logger = CSVLogger(str(tmp_path), name="", version="")
    assert Path(logger.log_dir) == tmp_path
    assert logger._experiment is None
    writer = logger.experiment
    assert writer is logger._experiment is logger.experiment
    assert writer.metrics_keys == []
    file = tmp_path / "metrics.csv"
    file.write_text("a,step\n1.0,0\n")
    writer.metrics_keys = ["a", "step"]
    logger.log_metrics({"a": 2.0}, step=1)
    logger.save()
    assert file.read_text().splitlines() == ["a,step", "1.0,0", "2.0,1"]
    logger.log_metrics({"b": 3.0}, step=2)
    logger.save()
    assert file.read_text().splitlines() == ["a,b,step", "1.0,,0", "2.0,,1", ",3.0,2"]


def test_csv_logger_deletes_the_rows_of_before_when_its_writer_is_made(tmp_path: Path) -> None:
    """callbacks/loggers.py: so they are read before and put back after."""
    file = tmp_path / "metrics.csv"
    file.write_text("step\n0\n")
    logger = CSVLogger(str(tmp_path), name="", version="")
    assert file.exists()
    with pytest.warns(match="Experiment logs directory .* exists"):
        logger.experiment  # noqa: B018
    assert not file.exists()


def test_wandb_is_started_with_the_settings_that_are_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """callbacks/wandb_record.py: mode, patience and silence are ours; what it adds is known."""
    import wandb

    given: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "init", lambda **options: given.update(options))
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = wandb.Settings(mode="offline", silent=True)
    logger = WandbLogger(
        project="p",
        name="n",
        save_dir=str(tmp_path),
        offline=False,
        config={"a": 1},
        settings=settings,
    )
    assert given == {}
    logger.experiment  # noqa: B018
    wanted = {"project": "p", "name": "n", "config": {"a": 1}, "settings": settings}
    assert given.items() >= wanted.items()
    assert Path(given["dir"]) == tmp_path
    assert given["resume"] == "allow"
    assert logger._wandb_init["anonymous"] is None  # W&B warns of it, even of None


def test_process_of_wandb_can_be_stopped() -> None:
    """callbacks/wandb_record.py: where a file is under way, W&B goes on for hours after its end."""
    import wandb

    from tell_lightning.callbacks.wandb_record import _stop_service

    wandb.teardown()
    service: Any = wandb.setup()
    service.ensure_service()
    process = service._connection._proc._process
    assert process.poll() is None
    _stop_service()
    assert process.wait() != 0
    with contextlib.suppress(Exception):
        wandb.teardown()


def test_wandb_takes_tables_and_the_csv_logger_does_not() -> None:
    """callbacks/samples.py: they go to the loggers that have `log_table`."""
    assert not hasattr(CSVLogger, "log_table")
    parameters = inspect.signature(WandbLogger.log_table).parameters
    assert {"key", "columns", "data", "step"} <= parameters.keys()


# Messages


def test_rank_is_known_to_the_functions_of_rank_zero() -> None:
    """callbacks/loggers.py: W&B is started before the Trainer runs."""
    make_trainer()
    assert rank_zero_only.rank == 0


def listen(name: str) -> tuple[logging.Handler, list[str]]:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    return handler, messages


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What Lightning says, by the two loggers that are filtered, while it trains and resumes."""
    folder = tmp_path_factory.mktemp("messages")
    loggers = [logging.getLogger(name) for name in (RANK_ZERO, SEED)]
    filters = [list(logger.filters) for logger in loggers]  # runs in this process leave theirs
    for logger in loggers:
        logger.filters.clear()
    heard = [listen(name) for name in (RANK_ZERO, SEED)]
    try:
        pl.seed_everything(1, verbose=True)
        fit(val_check_interval=1, enable_checkpointing=True, default_root_dir=folder)
        fit(max_steps=2).save_checkpoint(folder / "a.ckpt", weights_only=False)
        resume(folder / "a.ckpt", Tiny(), max_steps=3)
        with pytest.MonkeyPatch.context() as patch:  # what it says on a machine with a recent GPU
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
            patch.setattr(torch.cuda, "get_device_name", lambda _: "GPU")
            _check_cuda_matmul_precision(torch.device("cuda", 0))
    finally:
        for logger, (handler, _), before in zip(loggers, heard, filters, strict=True):
            logger.removeHandler(handler)
            logger.filters.extend(before)
    return [message for _, said in heard for message in said]


@pytest.mark.parametrize("advert", ADVERTS)
def test_filtered_message_is_one_that_lightning_writes(advert: str, messages: list[str]) -> None:
    """commands/startup.py: a filter for nothing hides the day its message is worded otherwise."""
    assert any(advert in message for message in messages), messages


@pytest.mark.parametrize("part", ["does not have many workers", "sync_dist=True"])
def test_filtered_warning_is_one_that_lightning_has(part: str) -> None:
    """commands/startup.py: those that are not seen in the tests here."""
    assert any(part in path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py"))


@pytest.mark.long
def test_messages_go_to_a_handler_on_standard_error() -> None:
    """callbacks/progress.py: the bar takes this handler's stream over."""
    code = f"""
import logging, sys
from lightning.pytorch.utilities import rank_zero_info
logger = logging.getLogger({RANK_ZERO!r})
handlers = []
while logger is not None:
    handlers += logger.handlers
    logger = logger.parent if logger.propagate else None
(handler,) = handlers
assert type(handler) is logging.StreamHandler and handler.stream is sys.__stderr__
rank_zero_info("a message")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (0, ["a message"])


def test_our_messages_are_written_where_lightnings_are() -> None:
    """callbacks/progress.py, commands/startup.py: the name of the logger."""
    handler, said = listen(RANK_ZERO)
    try:
        rank_zero_info("a message")
    finally:
        logging.getLogger(RANK_ZERO).removeHandler(handler)
    assert said == ["a message"]


# SIGTERM and other ends


@pytest.fixture
def handler() -> Iterator[list[int]]:
    """Our own handler before Lightning; what it heard."""
    before = signal.getsignal(signal.SIGTERM)
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


STARTS = {
    "fit": "on_train_start",
    "validate": "on_validation_start",
    "test": "on_test_start",
}


@pytest.mark.parametrize("stage", STARTS)
def test_signal_is_taken_before_the_hook_and_given_back_at_the_end(
    stage: str, handler: list[int]
) -> None:
    """callbacks/termination.py: a handler that we install in the hook is the one in force."""
    ours = signal.getsignal(signal.SIGTERM)
    found: list[Any] = []
    heard: list[int] = []

    def start(*rest: Any) -> None:
        found.append(signal.getsignal(signal.SIGTERM))
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))

    hooks = {STARTS[stage]: start}
    end = {"fit": "on_train_end", "validate": "on_validation_end", "test": "on_test_end"}[stage]
    hooks[end] = lambda *rest: os.kill(os.getpid(), signal.SIGTERM)
    trainer = make_trainer(callbacks=[At(**hooks)])
    getattr(trainer, stage)(Tiny(), datamodule=Data())
    assert found
    assert ours not in found  # Lightning's
    assert heard == [signal.SIGTERM]
    assert handler == []
    assert signal.getsignal(signal.SIGTERM) is ours


def test_signal_that_comes_before_the_hook_is_remembered(handler: list[int]) -> None:
    """callbacks/termination.py: loaders are made between Lightning's handler and the hook."""

    class Source(Data):
        def test_dataloader(self) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().test_dataloader()

    seen: list[bool] = []
    watch = At(on_test_start=lambda trainer, module: seen.append(trainer.received_sigterm))
    trainer = make_trainer(callbacks=[watch])
    with pytest.raises(SystemExit):
        trainer.test(Tiny(), datamodule=Source())
    assert seen == [True]
    assert handler == [signal.SIGTERM]  # a handler of before is called, too


@pytest.mark.parametrize("ours", [False, True])
def test_method_by_which_ranks_ask_for_a_signal_in_every_micro_batch_can_be_replaced(
    ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """callbacks/termination.py: with a handler of our own, ranks need not wait for the answer."""
    asked: list[str] = []

    def start(trainer: Any, module: Any) -> None:
        """Let it be two ranks."""
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(pl.Trainer, "world_size", 2)
        monkeypatch.setattr(torch.distributed, "broadcast", lambda *_, **__: asked.append("rank 0"))
        if ours:
            loop = trainer.fit_loop.epoch_loop
            loop._broadcast_sigterm_tensor = lambda: asked.append("ours")

    def end(trainer: Any, module: Any, *rest: Any) -> None:
        if len(asked) == 4:
            monkeypatch.undo()

    fit(callbacks=[At(on_train_start=start, on_train_batch_end=end)], limit_val_batches=0)
    assert asked == ["ours" if ours else "rank 0"] * 4


def test_run_goes_on_after_a_signal_that_our_handler_takes(handler: list[int]) -> None:
    """callbacks/termination.py: the step ends, is scored and saved before the run does."""

    class Module(Tiny):
        def on_train_start(self) -> None:
            signal.signal(signal.SIGTERM, lambda number, frame: None)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    module = Module()
    trainer = fit(module)
    assert not trainer.received_sigterm
    assert module.trained == list(range(8))


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_exit_passes_through_with_its_code_and_the_callbacks_hear_of_it(
    stage: str, handler: list[int]
) -> None:
    """callbacks/termination.py, commands/fit.py: 143, and the handler of before is back."""
    ours = signal.getsignal(signal.SIGTERM)
    heard: list[BaseException] = []

    class Ended(SystemExit):
        pass

    def end(*rest: Any) -> None:
        raise Ended(143)

    watch = At(
        on_train_batch_start=end,
        on_validation_batch_start=end,
        on_exception=lambda trainer, module, error: heard.append(error),
    )
    trainer = make_trainer(callbacks=[watch])
    with pytest.raises(Ended) as raised:
        getattr(trainer, stage)(Tiny(), datamodule=Data())
    assert raised.value.code == 143
    assert heard == [raised.value]
    assert signal.getsignal(signal.SIGTERM) is ours


def test_interrupt_becomes_an_exit_with_the_interrupt_as_its_context() -> None:
    """commands/fit.py, callbacks/progress.py: run.json says KeyboardInterrupt; the bar stops."""
    heard: list[BaseException] = []

    def interrupt(*rest: Any) -> None:
        raise KeyboardInterrupt

    watch = At(
        on_train_batch_start=interrupt,
        on_exception=lambda trainer, module, error: heard.append(error),
    )
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(BaseException) as raised:  # noqa: PT011  (an interrupt ends pytest)
            fit(callbacks=[watch])
    finally:
        signal.signal(signal.SIGINT, before)
    assert isinstance(raised.value, SystemExit)
    assert raised.value.code == 1
    assert isinstance(raised.value.__context__, KeyboardInterrupt)
    assert heard == [raised.value.__context__]


def test_child_that_fails_has_the_first_process_killed_and_one_that_ends_has_not() -> None:
    """callbacks/termination.py: why a child that was asked to end exits with 0."""
    for code, killed in ((0, False), (143, True)):
        wait = [sys.executable, "-c", "import time; time.sleep(60)"]
        first = subprocess.Popen(wait)
        child = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
        child.wait()
        try:
            assert _ChildProcessObserver(first.pid, [child])._run()
            if killed:
                assert first.wait() == -signal.SIGKILL
            else:
                assert first.poll() is None
        finally:
            first.kill()
            first.wait()


def test_processes_that_lightning_starts_can_be_told_apart_and_told_to_end() -> None:
    """callbacks/termination.py: the first process has a launcher with `kill`."""
    alone, first = make_trainer(), make_trainer(strategy="ddp", devices=2)
    assert alone.strategy.launcher is None
    for trainer in (alone, first):
        environment = trainer._accelerator_connector.cluster_environment
        assert isinstance(environment, LightningEnvironment)
    launcher: Any = first.strategy.launcher
    launcher.procs = [
        child := subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ]
    try:
        launcher.kill(signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()


# What the ranks share


def test_strategy_of_one_device_reduces_and_broadcasts_to_itself() -> None:
    """model/module.py, callbacks/audit.py, callbacks/termination.py."""
    strategy = make_trainer().strategy
    sums = torch.tensor([[1.0, 2.0]])
    assert torch.equal(strategy.reduce(sums, reduce_op="sum"), sums)
    assert strategy.broadcast("a folder") == "a folder"
    for answer in (True, False):
        assert strategy.reduce_boolean_decision(answer, all=False) is answer


@pytest.mark.parametrize(("others", "answer"), [(0, False), (1, True)])
def test_any_rank_decides_for_all(
    others: int, answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """callbacks/termination.py: the signal may reach one rank alone."""
    strategy = make_trainer(strategy="ddp", devices=2).strategy
    given: list[Any] = []

    def reduce(mine: torch.Tensor, reduce_op: Any) -> torch.Tensor:
        given.append(str(reduce_op).lower())
        return mine + others

    monkeypatch.setattr(strategy, "reduce", reduce)
    assert bool(strategy.reduce_boolean_decision(False, all=False)) is answer
    assert "sum" in given[0]
