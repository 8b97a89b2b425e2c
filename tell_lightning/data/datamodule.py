"""`TellDataModule`: the only data file that knows the Trainer, its ranks and its loaders.

Enters: the `data` section, a tokenizer and a seed. Leaves: the training stream, the rows whose loss
is watched, the rows that are generated for, and the plan. Its state is one integer, the number of
examples that completed optimizer steps have consumed, with the digest of all that the order depends
on.
"""

import json
from hashlib import blake2b
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader

from tell_lightning.data import store
from tell_lightning.data.batches import Item, collate
from tell_lightning.data.evaluation_rows import (
    EvaluationRows,
    build,
    default_max_new_tokens,
    evaluation_example,
)
from tell_lightning.data.permutation import derive_key
from tell_lightning.data.plan import Plan, check_supply, draw, resolve_plan
from tell_lightning.data.preparation import Preparation, training_sources
from tell_lightning.data.report import Lengths, realise
from tell_lightning.data.settings import DataSettings
from tell_lightning.data.sources import (
    Pool,
    Sources,
    general_example,
    read_sources,
)
from tell_lightning.data.stream import Order, Place, RowStore, Stream
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder, TokenRow
from tell_lightning.errors import TellError


class StreamError(TellError):
    """A batch layout or a resume that does not fit."""


class TellDataModule(pl.LightningDataModule):
    """Streams anchored task examples, mixed into general ones, in an order fixed by a seed."""

    def __init__(self, **settings: Any) -> None:
        """Take the fields of `DataSettings`."""
        super().__init__()
        self.settings = DataSettings(**settings)
        self.text: Sources | None = None
        self.consumed = 0
        self._ready = False

    def connect(self, tokenizer: Any, *, seed: int, text: Sources | None = None) -> None:
        """Give what other sections decide.

        Args:
            tokenizer: The base model's tokenizer.
            seed: The run's seed; the draw and the order derive theirs from it.
            text: The sources, where they have been read already.
        """
        self.encoder = Encoder(tokenizer, Renderer(tokenizer))
        self.seed = seed
        self.text = text
        self.preparation = Preparation(self.settings, self.encoder)

    # Preparing

    def prepare_data(self) -> None:
        """Tokenise every training source into the cache, once on each machine."""
        self.preparation.prepare(training_sources(self.settings, self._text()))

    # Setting up

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared rows and resolve the plan; the same on every rank.

        Raises:
            TellError: Proportions, batch sizes or lengths that cannot be met.
        """
        if self._ready:
            return
        text = self._text()
        mixture = self.settings.mixture
        draw_seed = mixture.draw_seed
        draw_seed = derive_key(self.seed, "draw") if draw_seed is None else draw_seed
        sources = training_sources(self.settings, text)
        drawn: dict[str, list[int]] = {}
        rows: dict[str, Any] = {}
        self.source_reports: dict[str, dict[str, Any]] = {}
        for source in sources:
            name = source.name
            rows[name], self.source_reports[name] = store.load(self.preparation.folder(source))
            if name in text.train:
                drawn[name] = draw(len(rows[name]), mixture.task_examples, draw_seed, name).tolist()
                rows[name] = rows[name].select(drawn[name])
        order_seed = mixture.order_seed
        self.plan: Plan = resolve_plan(
            mixture,
            {name: len(rows[name]) for name in text.train},
            {name: (len(rows[name]), self.settings.general[name].weight) for name in text.general},
            seed=derive_key(self.seed, "order") if order_seed is None else order_seed,
        )
        self.rows = [rows[source.name] for source in self.plan.sources]
        self.drawn_ids = {name: rows[name]["id"][:] for name in text.train}
        self.depends_on = {
            **self.plan.describe(),
            "template": self.encoder.renderer.template_digest,
            "tokenizer": self.preparation.tokenizer_digest,
            "drawn": blake2b(json.dumps(drawn).encode(), digest_size=16).hexdigest(),
            "optimizer_batch": self.settings.optimizer_batch,
            **{source.key: self.preparation.folder(source).name for source in sources},
        }
        self._set_up_evaluation(text)
        self.text = None
        self._ready = True

    def _set_up_evaluation(self, text: Sources) -> None:
        self.evaluation: dict[str, dict[str, EvaluationRows]] = {"dev": {}, "test": {}}
        self._loss_rows: dict[str, list[tuple[str, TokenRow]]] = {"dev": [], "test": []}
        for split, pools in (("dev", text.dev), ("test", text.test)):
            for name, pool in pools.items():
                rows = self._evaluation_rows(name, pool, text)
                self.evaluation[split][name] = rows
                encoded = self.encoder.encode(rows.examples)
                self._loss_rows[split] += [(name, row) for row in encoded]
            for name, pool in text.held_out.items():
                encoded = self.encoder.encode([general_example(r) for r in pool.records])
                self._loss_rows[split] += [(name, row) for row in encoded]
        self.loss_names = [*self.settings.tasks, *self.settings.general]

    def _evaluation_rows(self, name: str, pool: Pool, text: Sources) -> EvaluationRows:
        task, variant = self.settings.tasks[name], self.settings.mixture.anchor
        known = [
            evaluation_example(record, task.anchor, variant)
            for pools in (text.train, text.dev)
            if name in pools
            for record in pools[name].records
        ]
        return build(
            self.encoder,
            pool.records,
            task=name,
            anchor=task.anchor,
            variant=variant,
            scoring=task.scoring,
            max_new_tokens=task.max_new_tokens or default_max_new_tokens(self.encoder, known),
        )

    # Loading

    def accumulation(self, world: int) -> int:
        """Return the forward passes per optimizer step on each of `world` devices.

        Raises:
            StreamError: The optimizer batch is not a multiple.
        """
        batch, micro = self.settings.optimizer_batch, self.settings.micro_batch
        if micro < 1 or batch < 1 or batch % (micro * world):
            step = max(1, micro) * world
            raise StreamError(
                f"data.optimizer_batch: must be a multiple of data.micro_batch {micro} times "
                f"{world} device(s), both at least 1, got {batch}. "
                f"Try data.optimizer_batch: {max(1, -(-batch // step)) * step} with "
                f"data.micro_batch: {max(1, micro)}."
            )
        return batch // (micro * world)

    def train_dataloader(self) -> Stream:
        """Return the stream from the first example that is not consumed yet."""
        assert self.trainer is not None
        world, settings = self.trainer.world_size, self.settings
        stop = self.trainer.max_steps * settings.optimizer_batch
        check_supply(self.plan, stop, general_repeat=settings.mixture.general_repeat)
        accumulation = self.accumulation(world)
        if self.trainer.accumulate_grad_batches != accumulation:
            raise StreamError(
                f"trainer.accumulate_grad_batches: must be {accumulation}, data.optimizer_batch "
                f"{settings.optimizer_batch} over {world} device(s) of data.micro_batch "
                f"{settings.micro_batch}, got {self.trainer.accumulate_grad_batches}. Set it to "
                f"{accumulation}; `fit` does."
            )
        place = Place(self.trainer.global_rank, world, settings.micro_batch)
        order = Order(self.plan, place, self.consumed, stop)
        total = self.trainer.max_steps * accumulation
        return Stream(order, RowStore(self.rows), total=total, num_workers=settings.num_workers)

    def val_dataloader(self) -> DataLoader[Item]:
        """Return the dev and held-out rows whose loss is watched, this rank's share."""
        return self._loss_loader("dev")

    def test_dataloader(self) -> DataLoader[Item]:
        """Return the test and held-out rows whose loss is reported, this rank's share."""
        return self._loss_loader("test")

    def _loss_loader(self, split: str) -> DataLoader[Item]:
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        items = [
            Item(row.input_ids, row.supervised, self.loss_names.index(name), index)
            for index, (name, row) in enumerate(self._loss_rows[split])
        ]
        # A rank without a row would leave the collectives of the epoch's end: it takes one of no
        # weight.
        mine = items[rank::world] or [
            _without_labels(items[0]) if items else Item([0, 0], [False, False], 0, 0)
        ]
        mine.sort(key=lambda item: len(item.input_ids))
        rows: Any = mine  # a list is a map-style data set
        return DataLoader(rows, batch_size=self.settings.micro_batch, collate_fn=collate)

    # State

    @property
    def digest(self) -> str:
        """Digest of all that the order depends on."""
        text = json.dumps(self.depends_on, sort_keys=True)
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self, positions: int) -> dict[str, Any]:
        """Return the resolved plan over a run, as it is saved in `plan.json`."""
        lengths = [
            Lengths(
                np.array([len(ids) for ids in rows["input_ids"]], dtype=np.int64),
                np.array([sum(flags) for flags in rows["supervised"]], dtype=np.int64),
            )
            for rows in self.rows
        ]
        return {
            **self.plan.describe(),
            "optimizer_batch": self.settings.optimizer_batch,
            "digest": self.digest,
            "realised": realise(self.plan, positions, lengths),
            "inputs": self.source_reports,
            "task_examples": {name: list(ids) for name, ids in self.drawn_ids.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the examples that completed optimizer steps have consumed."""
        assert self.trainer is not None
        return {
            "unit": "examples",
            "consumed": self.trainer.global_step * self.settings.optimizer_batch,
            "accumulation": self.accumulation(self.trainer.world_size),
            "depends_on": json.dumps(self.depends_on, sort_keys=True),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved position.

        Raises:
            StreamError: Something that the order depends on has changed, and it is named; or the
                accumulation has, in whose micro-batches Lightning's own counters stand.
        """
        assert self.trainer is not None
        saved = json.loads(state_dict["depends_on"])
        now = json.loads(json.dumps(self.depends_on))
        changed = sorted(key for key in saved.keys() | now.keys() if saved.get(key) != now.get(key))
        if changed:
            raise StreamError(
                f"resume: the data order must be the one that the run began with, got a change in "
                f"{', '.join(changed)}. Undo the change, or start a new run."
            )
        accumulation = self.accumulation(self.trainer.world_size)
        if accumulation != state_dict["accumulation"]:
            raise StreamError(
                f"resume: an optimizer batch must take {state_dict['accumulation']} forward "
                f"pass(es) a device, as it did when the run began, got {accumulation}. Set "
                "data.micro_batch and the number of devices so that their product is unchanged."
            )
        self.consumed = int(state_dict["consumed"])

    def _text(self) -> Sources:
        if self.text is None:
            self.text = read_sources(self.settings)
        return self.text


def _without_labels(item: Item) -> Item:
    """Return an item that weighs nothing."""
    return item._replace(supervised=[False] * len(item.supervised))
