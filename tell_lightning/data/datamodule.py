"""`TellDataModule`: the data of a run for a Trainer, its ranks and its loaders.

Its state is the number of units that completed optimizer steps have consumed, and everything that
the order depends on. A resume with another order is refused.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, Protocol, Self, runtime_checkable

import lightning.pytorch as pl
import torch

from tell_lightning.data.batches import Batch, collate
from tell_lightning.data.evaluation_rows import EvaluationRows
from tell_lightning.data.order_changes import changes
from tell_lightning.data.plan import Plan
from tell_lightning.data.prepared import PreparedData, first_of_each
from tell_lightning.data.settings import (
    RANGES,
    DataSettings,
    General,
    Mixture,
    Task,
    check_batches,
)
from tell_lightning.data.splits import Splits, check_general, rows_of
from tell_lightning.data.stream import (
    LossBatches,
    MicroBatches,
    PreparedRows,
    Stream,
    longest_unit,
)
from tell_lightning.data.tokenizer import load_tokenizer
from tell_lightning.data.units import Place, Units
from tell_lightning.errors import TellError
from tell_lightning.settings import as_settings, check_ranges, plain


class StreamError(TellError):
    """A batch layout, a Trainer setting or a resume that does not fit the stream."""


@runtime_checkable
class TriesMicroBatches(Protocol):
    """What `micro_batch: auto` needs of a module. `TellModule` has it."""

    def largest_micro_batch(
        self, sizes: Sequence[int], batch_of: Callable[[int], Batch]
    ) -> int | None:
        """Return the largest of some sizes whose batch fits into memory; None if none does."""


class TellDataModule(pl.LightningDataModule):
    """Streams anchored task examples, mixed into general ones, in an order fixed by a seed.

    It works with any Trainer. The optimizer batch is fixed; devices and `accumulate_grad_batches`
    decide into how many forward passes it is divided. A run ends after the Trainer's `max_steps`,
    after `mixture.cycles`, or after `max_epochs`: an epoch is one cycle of the plan. With only
    `max_steps` the run is one epoch, for the stream has no end. With neither (`max_epochs=-1`) its
    length follows from the rows (`tell_lightning/data/length.py`).

    Attributes:
        prepared: The data without a Trainer: plan, prepared rows, rows to score.
        test_split: The split of `test_dataloader`: test, or the split of `swap_anchor`.
        tried: The micro-batch that trying has found, where it is `auto` and training has begun.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task | Mapping[str, Any]] | None = None,
        general: Mapping[str, General | Mapping[str, Any]] | None = None,
        *,
        tokenizer: Any,
        mixture: Mixture | Mapping[str, Any] = Mixture(),
        root: str = ".",
        max_tokens: int = 1024,
        thinking: Literal["strip", "keep"] = "strip",
        packing: bool = False,
        optimizer_batch: int = 16,
        micro_batch: int | Literal["auto"] = 8,
        num_workers: int = 0,
        prefetch_factor: int | None = None,
        multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None,
        on_bad_rows: Literal["error", "skip"] = "error",
        max_bad_share: float = 0.001,
        cache_dir: str | None = None,
        seed: int = 42,
    ) -> None:
        """Read nothing yet; the files are read in `prepare_data` and `setup`.

        Args:
            tasks: The low-resource tasks by name, as `Task` or as dictionaries of its fields.
            general: The general sources by name, as `General` or as dictionaries of its fields.
            tokenizer: The base model's tokenizer, or the name of the base: a hub id, a folder, or
                'smollm2' or 'microworld'.
            mixture: What is trained on, and how much of each.
            root: Folder that the paths of the tasks and sources start from.
            max_tokens: Longest training example in tokens.
            thinking: Whether the text between <think> and </think> is left out or trained, where
                the chat template knows thinking.
            packing: Whether examples share bins of `max_tokens` tokens.
            optimizer_batch: Examples (or bins) of an optimizer step, over all devices.
            micro_batch: Examples (or bins) of a forward pass on each device; auto: the largest
                that fits, which the module tries (`TriesMicroBatches`). If the Trainer has an
                `accumulate_grad_batches`, the micro-batch follows from that instead.
            num_workers: Worker processes that read rows.
            prefetch_factor: Micro-batches that each worker reads ahead.
            multiprocessing_context: How workers are started.
            on_bad_rows: error: the first bad row stops the run; skip: bad rows are left out.
            max_bad_share: With `skip`, the largest share of bad rows.
            cache_dir: Where prepared tokens are kept; None: ~/.cache/tell_lightning.
            seed: The seeds of draw and order are derived from it.

        Raises:
            ConfigError: A setting does not exist or has another type.
            SplitError: A general source has no rows, or rows that the base has still to write.
        """
        super().__init__()
        settings = DataSettings(
            root=root,
            tasks={
                name: as_settings(Task, task, f"data.tasks.{name}")
                for name, task in (tasks or {}).items()
            },
            general={
                name: as_settings(General, source, f"data.general.{name}")
                for name, source in (general or {}).items()
            },
            mixture=as_settings(Mixture, mixture, "data.mixture"),
            max_tokens=max_tokens,
            thinking=thinking,
            packing=packing,
            optimizer_batch=optimizer_batch,
            micro_batch=micro_batch,
            num_workers=num_workers,
            prefetch_factor=prefetch_factor,
            multiprocessing_context=multiprocessing_context,
            on_bad_rows=on_bad_rows,
            max_bad_share=max_bad_share,
            cache_dir=cache_dir,
        )
        check_ranges(plain(settings), RANGES, "data")
        check_general(settings.general)
        for name, source in settings.general.items():
            rows_of(name, source)  # refuses those that the base has still to write
        if isinstance(tokenizer, str):
            tokenizer = load_tokenizer(tokenizer)
        self.prepared = PreparedData(settings, tokenizer, seed=seed)
        self.seed = seed
        self.test_split = "test"
        self.tried: int | None = None
        self._awaits_try = False
        self.micro_batch = self._chosen
        self._short = False
        self._loss_limits: Mapping[str, int | None] = {}
        self.save_hyperparameters({"data": _hyperparameters(settings) | {"seed": seed}})

    @classmethod
    def from_settings(
        cls, settings: DataSettings, *, tokenizer: Any, seed: int, splits: Splits | None = None
    ) -> Self:
        """Make a data module from a complete `data` section, as the command line does.

        Args:
            settings: The `data` section.
            tokenizer: As in the constructor.
            seed: As in the constructor.
            splits: The records of all files, if they have been read already.
        """
        options = {key: value for key, value in vars(settings).items() if key != "audit"}
        data = cls(**options, tokenizer=tokenizer, seed=seed)
        data.prepared.given = splits
        return data

    @property
    def settings(self) -> DataSettings:
        """The `data` section."""
        return self.prepared.settings

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self.prepared.encoder.tokenizer

    @property
    def plan(self) -> Plan:
        """Which row stands at which position."""
        return self.prepared.plan

    @property
    def units(self) -> Units:
        """The units of the optimizer batch: examples, or bins."""
        return self.prepared.units

    @property
    def evaluation(self) -> Mapping[str, Mapping[str, EvaluationRows]]:
        """The rows to generate answers for, by split and task."""
        return self.prepared.evaluation

    # Preparing and setting up

    def prepare_data(self) -> None:
        """Tokenise every training source into the cache, once on each machine."""
        self.prepared.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared rows and, for `fit`, set the Trainer's steps and accumulation.

        Raises:
            TellError: Proportions, batch sizes, lengths or Trainer settings that cannot be met.
        """
        if stage == "fit":
            self._set_up_fit()
        elif not self.prepared.is_open:
            self.prepared.open()
        elif self._awaits_try:  # a scoring before training
            self._set_up_fit()

    def _set_up_fit(self) -> None:
        """Set the Trainer's number of steps and its accumulation.

        Each epoch gets a new loader, because cycles may differ by one step.
        """
        trainer = self._trainer
        if trainer.overfit_batches:
            raise StreamError(
                "overfit_batches: the stream goes on from cycle to cycle and never repeats a batch "
                f"by itself, got {trainer.overfit_batches}. Leave it out, and set "
                "mixture.task_examples to train on a few examples."
            )
        world = trainer.world_size
        follows = trainer.accumulate_grad_batches == 1 or self._awaits_try
        if follows:
            trainer.accumulate_grad_batches = self.accumulation(world)
        self.micro_batch = self._micro_batch(world, trainer.accumulate_grad_batches)
        max_steps = trainer.max_steps
        if self._has_epochs:
            if self.settings.mixture.cycles is not None:
                raise StreamError(
                    "data.mixture.cycles: must be null where the Trainer's max_epochs says how "
                    f"many cycles there are, got {self.settings.mixture.cycles:g} and "
                    f"{trainer.max_epochs} epochs. Leave one of them out."
                )
            steps = self._open_epochs()
            trainer.reload_dataloaders_every_n_epochs = 1
        else:
            self.prepared.open()
            steps = self.prepared.steps(max_steps)
        trainer.fit_loop.epoch_loop.max_steps = steps if max_steps < 1 else min(max_steps, steps)
        self.prepared.check_supply(trainer.max_steps)
        if follows and self.settings.micro_batch == "auto" and self.tried is None:
            self._try_micro_batch()

    def _open_epochs(self) -> int:
        """Open the plan up to the end of the last epoch, and return the steps up to there."""
        epochs = self._epochs
        self.prepared.open(cycles=epochs)
        # If a cycle does not fill one optimizer batch, an epoch is one optimizer batch.
        self._short = self.units.units_for(self.plan.cycle) < self.settings.optimizer_batch
        if self._short:
            self.prepared.open()
        return self._epoch_end(epochs - 1)

    def _epoch_end(self, epoch: int) -> int:
        """Return the number of completed optimizer steps at the end of an epoch."""
        stop = self.prepared.stop
        if self._short or stop is None:
            return epoch + 1
        share = self.units.units_for(stop) * (epoch + 1)
        return -(-share // (self._epochs * self.settings.optimizer_batch))

    @property
    def _trainer(self) -> Any:  # Lightning does not declare all attributes of a Trainer
        assert self.trainer is not None
        return self.trainer

    @property
    def _epochs(self) -> int:
        return self._trainer.max_epochs or -1

    @property
    def _has_epochs(self) -> bool:
        return self._epochs != -1

    def accumulation(self, world: int) -> int:
        """Return the forward passes per optimizer step on each of `world` devices.

        Raises:
            ConfigError: The optimizer batch is not a multiple of micro-batch times devices.
        """
        batch, micro = self.settings.optimizer_batch, self._chosen
        check_batches(batch, micro, world)
        return batch // (micro * world)

    @property
    def _chosen(self) -> int:
        """The micro-batch; the smallest one as long as `auto` has not been tried."""
        micro = self.settings.micro_batch
        return (self.tried or 1) if isinstance(micro, str) else micro

    def _try_micro_batch(self) -> None:
        """Let the module find the largest micro-batch; all ranks use the smallest of theirs.

        Before the Trainer has a module, nothing is tried: the next setup does.

        Raises:
            StreamError: The module cannot try, or not even a single unit fits.
        """
        trainer = self._trainer
        module = trainer.lightning_module
        self._awaits_try = module is None
        if module is None:
            return
        if not isinstance(module, TriesMicroBatches):
            raise StreamError(
                "data.micro_batch: must be a number for a module without largest_micro_batch, got "
                f"auto with {type(module).__name__}. Set it, or train a TellModule."
            )
        units = trainer.max_steps * self.settings.optimizer_batch
        longest = longest_unit(self.units, self.prepared.lengths, units)
        slots = self.units.at(range(longest, longest + 1))
        (items,) = PreparedRows(self.prepared.rows).__getitems__(slots)
        names = [source.name for source in self.plan.sources]
        share = self.settings.optimizer_batch // trainer.world_size
        sizes = [size for size in range(1, share + 1) if share % size == 0]
        found = module.largest_micro_batch(sizes, lambda size: collate([items] * size, names))
        smallest = trainer.strategy.reduce(
            torch.tensor(float(found or 0), device=trainer.strategy.root_device), reduce_op="min"
        )
        self.tried = int(smallest)
        if not self.tried:
            tokens = sum(len(item.input_ids) for item in items)
            raise StreamError(
                "data.micro_batch: must leave memory for a forward and backward pass, got too "
                f"little for one row of {tokens:,} tokens. Lower data.max_tokens (now "
                f"{self.settings.max_tokens:,}), or set model.activation_checkpointing: true."
            )
        self.settle(self.tried)

    def settle(self, micro_batch: int) -> None:
        """Use the micro-batch that trying has found, now or before a resume."""
        trainer = self._trainer
        self.tried, self._awaits_try = micro_batch, False
        trainer.accumulate_grad_batches = self.accumulation(trainer.world_size)
        self.micro_batch = self._micro_batch(trainer.world_size, trainer.accumulate_grad_batches)

    def _micro_batch(self, world: int, accumulation: int) -> int:
        batch = self.settings.optimizer_batch
        if batch % (world * accumulation):
            raise StreamError(
                f"accumulate_grad_batches: must divide optimizer_batch {batch} over {world} "
                f"device(s), got {accumulation}. Set another one, or leave it out: it then follows "
                "from micro_batch."
            )
        return batch // (world * accumulation)

    def swap_anchor(self) -> bool:
        """Take the anchor off the test rows, or put it on if training had none.

        A second call goes back to the original test rows.

        Returns:
            Whether a task has an anchor and test rows; if not, nothing has changed.
        """
        if self.test_split != "test":
            self.test_split = "test"
            return True
        split = self.prepared.swap_anchor()
        self.test_split = split or self.test_split
        return split is not None

    # Loading

    def train_dataloader(self) -> Stream:
        """Return the stream; it starts at the Trainer's current step."""
        settings, trainer = self.settings, self._trainer
        self._check_limit()
        first, last = self._bounds()
        return Stream(
            self._micro_batches,
            PreparedRows(self.prepared.rows),
            total=(last - first) * trainer.accumulate_grad_batches,
            names=[source.name for source in self.plan.sources],
            num_workers=settings.num_workers,
            prefetch_factor=settings.prefetch_factor,
            multiprocessing_context=settings.multiprocessing_context,
        )

    def _bounds(self) -> tuple[int, int]:
        """Return the numbers of completed steps at the start and the end of the current epoch."""
        trainer = self._trainer
        if not self._has_epochs:
            return 0, trainer.max_steps
        epoch = trainer.current_epoch
        first = self._epoch_end(epoch - 1) if epoch else 0
        return first, min(self._epoch_end(epoch), trainer.max_steps)

    def _micro_batches(self) -> MicroBatches:
        trainer, batch = self._trainer, self.settings.optimizer_batch
        first, last = self._bounds()
        start = trainer.global_step
        stop = last if start >= first else start + last - first  # after a limited epoch
        place = Place(trainer.global_rank, trainer.world_size, self.micro_batch)
        return MicroBatches(self.units, place, start * batch, stop * batch)

    def _check_limit(self) -> None:
        """Refuse a limit that would leave out a part of an optimizer batch."""
        trainer = self._trainer
        limit, accumulation = trainer.limit_train_batches, trainer.accumulate_grad_batches
        if isinstance(limit, float):
            first, last = self._bounds()
            limit = int(limit * (last - first) * accumulation)
        if limit is not None and limit % accumulation and not trainer.fast_dev_run:
            raise StreamError(
                f"limit_train_batches: must be whole optimizer batches of {accumulation} "
                f"micro-batches each, got {limit} micro-batches. Set a multiple of "
                f"{accumulation}."
            )

    def val_dataloader(self) -> LossBatches:
        """Return this rank's share of the dev and held-out rows."""
        return self._loss_batches("dev")

    def test_dataloader(self) -> LossBatches:
        """Return this rank's share of the test and held-out rows."""
        return self._loss_batches(self.test_split)

    def limit_loss_rows(self, limits: Mapping[str, int | None]) -> None:
        """Compute the loss of the first rows of each source alone, as answers are scored.

        Args:
            limits: Most rows of a task or general source, by split; None or no entry: all.
        """
        self._loss_limits = dict(limits)

    def _loss_batches(self, split: str) -> LossBatches:
        trainer, prepared = self._trainer, self.prepared
        place = Place(trainer.global_rank, trainer.world_size, self._chosen)
        rows = first_of_each(prepared.loss_rows[split], self._loss_limits.get(split))
        names = prepared.loss_names
        return LossBatches(rows, names, split, place, self._chosen)

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return the units consumed by completed optimizer steps, and what the order depends on."""
        return {
            "unit": self.units.unit,
            "consumed": self._trainer.global_step * self.settings.optimizer_batch,
            "depends_on": json.dumps(self.prepared.depends_on, sort_keys=True),
            **({} if self.tried is None else {"micro_batch": self.tried}),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the order is that of the checkpoint. The stream starts at the Trainer's step.

        A micro-batch that `auto` has found stays the one of the run.

        Raises:
            StreamError: Something that the order depends on has changed. The message names it.
        """
        saved = json.loads(state_dict["depends_on"])
        now = json.loads(json.dumps(self.prepared.depends_on))
        if changed := changes(saved, now):
            raise StreamError(
                f"resume: the data order must be the one that the run began with, got a change of "
                f"{', '.join(changed)}. Undo the change, or start a new run."
            )
        if self._awaits_try and (found := state_dict.get("micro_batch")):
            share = self.settings.optimizer_batch // self._trainer.world_size
            if share % found == 0:  # else on another number of devices
                self.settle(found)


def _hyperparameters(settings: DataSettings) -> dict[str, Any]:
    """Return the settings as plain values. Of rows in memory, only their number is kept."""
    values: dict[str, Any] = plain({f.name: getattr(settings, f.name) for f in fields(settings)})
    for section in (values["tasks"], values["general"]):
        for source in section.values():
            for key, value in source.items():
                if key in {"train", "dev", "test", "held_out"} and isinstance(value, list):
                    source[key] = f"{len(value)} rows"
    return values
