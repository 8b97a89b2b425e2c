"""`TellDataModule`: the only data file that knows the Trainer, its ranks and its loaders.

Enters: the `data` section, a tokenizer and a seed. Leaves: the training stream, the rows whose loss
is watched, the rows that are generated for, and the plan. Its state is one integer, the number of
examples that completed optimizer steps have consumed, with the digest of all that the order depends
on.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from tell_lightning.data import packing, store
from tell_lightning.data.batches import Item, collate_unpacked
from tell_lightning.data.evaluation_rows import (
    EvaluationRows,
    build,
    default_max_new_tokens,
    evaluation_example,
    settled_scoring,
    with_swapped_anchor,
)
from tell_lightning.data.permutation import derive_key
from tell_lightning.data.plan import Plan, check_supply, draw, resolve_plan, steps_for
from tell_lightning.data.preparation import Preparation, training_sources
from tell_lightning.data.report import realise
from tell_lightning.data.settings import DataSettings
from tell_lightning.data.splits import (
    Pool,
    Splits,
    cache_folder,
    general_example,
    read_splits,
)
from tell_lightning.data.stream import (
    Examples,
    MicroBatches,
    Place,
    PreparedRows,
    Stream,
    Units,
    Workers,
)
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder, Lengths, TokenRow
from tell_lightning.errors import TellError
from tell_lightning.metrics.settings import Scoring

NAMES = {
    "algorithm": "the version of the shuffle",
    "order": "data.mixture.order",
    "order_seed": "the seed (seed_everything or data.mixture.order_seed)",
    "cycle": "data.mixture",
    "task_share": "data.mixture",
    "sources": "data.mixture",
    "template": "the chat template",
    "tokenizer": "the tokenizer",
    "drawn": "the task examples drawn (data.mixture.task_examples or draw_seed)",
    "optimizer_batch": "data.optimizer_batch",
    "packing": "data.packing",
    "stop": "data.mixture.cycles",
    # of a source
    "file": "the file of {source}",
    "ids": "the rows that are left of {source}",
    "bad_rows": "data.on_bad_rows",
    "max_bad_share": "data.max_bad_share",
    "max_tokens": "data.max_tokens",
    "variant": "data.mixture.anchor",
}
"""What a change of the data order is called in front of the user."""
COUNTS = {"cycle", "task_share", "sources"}
"""What of it changes with the number of rows."""


class StreamError(TellError):
    """A batch layout or a resume that does not fit."""


class TellDataModule(pl.LightningDataModule):
    """Streams anchored task examples, mixed into general ones, in an order fixed by a seed."""

    def __init__(self, **settings: Any) -> None:
        """Take the fields of `DataSettings`."""
        super().__init__()
        self.settings = DataSettings(**settings)
        self.text: Splits | None = None
        self.consumed = 0
        self.test_split = "test"
        self._ready = False

    def connect(self, tokenizer: Any, *, seed: int, text: Splits | None = None) -> None:
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
        lengths: dict[str, Lengths] = {}
        self.source_reports: dict[str, dict[str, Any]] = {}
        for source in sources:
            name = source.name
            found = store.load(self.preparation.folder(source))
            rows[name], lengths[name], self.source_reports[name] = found
            if name in text.train:
                chosen = draw(len(found.rows), mixture.task_examples, draw_seed, name)
                drawn[name] = chosen.tolist()
                rows[name], lengths[name] = found.rows.select(chosen), found.lengths.take(chosen)
        order_seed = mixture.order_seed
        self.plan: Plan = resolve_plan(
            mixture,
            {name: len(rows[name]) for name in text.train},
            {name: (len(rows[name]), self.settings.general[name].weight) for name in text.general},
            seed=derive_key(self.seed, "order") if order_seed is None else order_seed,
            mean_tokens={name: float(each.tokens.mean()) for name, each in lengths.items()},
        )
        self.rows = [rows[source.name] for source in self.plan.sources]
        self.lengths = [lengths[source.name] for source in self.plan.sources]
        cycles = mixture.cycles
        self.stop = None if cycles is None else self.plan.stop(cycles)
        self.drawn_ids = {name: rows[name]["id"][:] for name in text.train}
        self.depends_on = {
            **self.plan.describe(),
            "template": self.encoder.renderer.template_digest,
            "tokenizer": self.preparation.tokenizer_digest,
            "drawn": blake2b(json.dumps(drawn).encode(), digest_size=16).hexdigest(),
            "optimizer_batch": self.settings.optimizer_batch,
            "packing": [packing.ALGORITHM, packing.WINDOW] if self.settings.packing else None,
            "stop": self.stop,
            **{f"data.{source.key}": self._parts(source.name) for source in sources},
        }
        self.units = self._make_units()
        self._set_up_evaluation(text)
        self.text = None
        self._ready = True

    def _parts(self, name: str) -> dict[str, Any]:
        """Return what decides the rows of a source, beside what all sources share."""
        parts: dict[str, Any] = self.source_reports[name].pop("parts")
        return {key: parts[key] for key in parts if key not in {"template", "tokenizer"}}

    def _make_units(self) -> Units:
        """Return what an optimizer batch counts, with the table of bins where one is saved."""
        if not self.settings.packing:
            return Examples(self.plan, self.stop)
        bins = packing.Bins(self.plan, self.lengths, self.settings.max_tokens, self.stop)
        bins.load(self._table)
        return bins

    @property
    def _table(self) -> Path:
        return cache_folder(self.settings) / f"bins-{self.digest}.npy"

    def _set_up_evaluation(self, text: Splits) -> None:
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

    def _evaluation_rows(self, name: str, pool: Pool, text: Splits) -> EvaluationRows:
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
            scoring=self._scoring(name, text),
            max_new_tokens=task.max_new_tokens or default_max_new_tokens(self.encoder, known),
            min_new_tokens=task.min_new_tokens,
            stop_tokens=task.stop_tokens,
            forced=task.force_response_prefix,
        )

    def _scoring(self, name: str, text: Splits) -> Scoring:
        """Return how a task is scored, with the labels of its rows where none are configured."""
        pools = [pools[name] for pools in (text.train, text.dev, text.test) if name in pools]
        records = [record for pool in pools for record in pool.records]
        return settled_scoring(self.settings.tasks[name], name, records)

    def swap_anchor(self) -> bool:
        """Make the test rows those without their anchor, or with it where training had none.

        Returns:
            Whether there is a task with an anchor and test rows; if not, nothing has changed.
        """
        tasks = {
            name: task.anchor for name, task in self.settings.tasks.items() if task.anchor.text
        }
        swapped = {
            name: with_swapped_anchor(self.encoder, rows, tasks[name])
            for name, rows in self.evaluation["test"].items()
            if name in tasks
        }
        if not swapped:
            return False
        now = "with" if self.settings.mixture.anchor == "none" else "without"
        self.test_split = f"test_{now}_anchor"
        self.evaluation[self.test_split] = swapped
        self._loss_rows[self.test_split] = [
            (name, row)
            for name, rows in swapped.items()
            for row in self.encoder.encode(rows.examples)
        ]
        return True

    # Loading

    def steps(self, max_steps: int) -> int:
        """Return the optimizer steps of the run: those of the cycles, where cycles are the stop.

        Raises:
            PlanError: A general source runs out even if each bin held a single example. It takes
                long to count the bins of a run that is far too long.
        """
        if self.settings.packing:
            units = max_steps * self.settings.optimizer_batch
            self._check_positions(units if self.stop is None else self.stop)
        if self.stop is None:
            return max_steps
        return steps_for(self.units.units_for(self.stop), self.settings.optimizer_batch)

    def check_supply(self, steps: int) -> None:
        """Refuse a run that would see general rows twice without being asked to.

        Raises:
            PlanError: A general source runs out.
        """
        positions = self.units.positions(steps * self.settings.optimizer_batch)
        if isinstance(self.units, packing.Bins):
            self.units.save(self._table)  # packed up to the end by now
        self._check_positions(positions)

    def _check_positions(self, positions: int) -> None:
        check_supply(self.plan, positions, general_repeat=self.settings.mixture.general_repeat)

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
        self.check_supply(self.trainer.max_steps)
        accumulation = self.accumulation(world)
        if self.trainer.accumulate_grad_batches != accumulation:
            raise StreamError(
                f"trainer.accumulate_grad_batches: must be {accumulation}, data.optimizer_batch "
                f"{settings.optimizer_batch} over {world} device(s) of data.micro_batch "
                f"{settings.micro_batch}, got {self.trainer.accumulate_grad_batches}. Set it to "
                f"{accumulation}; `fit` does."
            )
        place = Place(self.trainer.global_rank, world, settings.micro_batch)
        order = MicroBatches(self.units, place, self.consumed, stop)
        workers = Workers(
            settings.num_workers, settings.prefetch_factor, settings.multiprocessing_context
        )
        total = self.trainer.max_steps * accumulation
        return Stream(order, PreparedRows(self.rows), total=total, workers=workers)

    def val_dataloader(self) -> DataLoader[Item]:
        """Return the dev and held-out rows whose loss is watched, this rank's share."""
        return self._loss_loader("dev")

    def test_dataloader(self) -> DataLoader[Item]:
        """Return the test and held-out rows whose loss is reported, this rank's share."""
        return self._loss_loader(self.test_split)

    def _loss_loader(self, split: str) -> DataLoader[Item]:
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        items = [
            Item(row.input_ids, row.supervised, self.loss_names.index(name), index, index)
            for index, (name, row) in enumerate(self._loss_rows[split])
        ]
        # All ranks take equally many, for they meet in collectives: at the epoch's end, and in each
        # pass of a sharded model. What is missing is made up for by a row of no weight.
        empty = _without_labels(items[0]) if items else Item([0, 0], [False, False], 0, 0, 0)
        mine = items[rank::world]
        mine += [empty] * (max(1, -(-len(items) // world)) - len(mine))
        mine.sort(key=lambda item: len(item.input_ids))
        rows: Any = mine  # a list is a map-style data set
        return DataLoader(rows, batch_size=self.settings.micro_batch, collate_fn=collate_unpacked)

    # State

    @property
    def digest(self) -> str:
        """Digest of all that the order depends on."""
        text = json.dumps(self.depends_on, sort_keys=True)
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self, steps: int) -> dict[str, Any]:
        """Return the resolved plan over a run, as it is saved in `plan.json`."""
        units = steps * self.settings.optimizer_batch
        realised = realise(self.plan, self.units.blocks(units), self.lengths)
        return {
            **self.plan.describe(),
            "steps": steps,
            "unit": self.units.unit,
            "bins": self._bins(units, realised) if self.settings.packing else None,
            "optimizer_batch": self.settings.optimizer_batch,
            "digest": self.digest,
            "realised": realised,
            "inputs": self.source_reports,
            "task_examples": {name: list(ids) for name, ids in self.drawn_ids.items()},
        }

    def _bins(self, units: int, realised: Mapping[str, Any]) -> dict[str, Any]:
        """Say how large and how full the bins of a run are, where all of it was counted."""
        tokens = sum(source["tokens"] for source in realised["sources"].values())
        capacity = self.settings.max_tokens
        filled = tokens / (units * capacity) if realised["complete"] else None
        return {"number": units, "tokens": capacity, "filled": filled}

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the units that completed optimizer steps have consumed."""
        assert self.trainer is not None
        return {
            "unit": self.units.unit,
            "consumed": self.trainer.global_step * self.settings.optimizer_batch,
            "depends_on": json.dumps(self.depends_on, sort_keys=True),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved position.

        Raises:
            StreamError: Something that the order depends on has changed, and it is named.
        """
        saved = json.loads(state_dict["depends_on"])
        now = json.loads(json.dumps(self.depends_on))
        if changed := changes(saved, now):
            raise StreamError(
                f"resume: the data order must be the one that the run began with, got a change of "
                f"{', '.join(changed)}. Undo the change, or start a new run."
            )
        self.consumed = int(state_dict["consumed"])

    def _text(self) -> Splits:
        if self.text is None:
            self.text = read_splits(self.settings)
        return self.text


def _without_labels(item: Item) -> Item:
    """Return an item that weighs nothing."""
    return item._replace(supervised=[False] * len(item.supervised))


def changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs between two records of what the order depends on."""
    different = {key for key in saved.keys() | now.keys() if saved.get(key) != now.get(key)}
    sources = {key for key in different if isinstance(saved.get(key) or now.get(key), dict)}
    named = []
    for key in sources:
        if key not in saved or key not in now:
            named.append(key)
            continue
        old, new = saved[key], now[key]
        parts = {part for part in old.keys() | new.keys() if old.get(part) != new.get(part)}
        # Another file has other rows, too.
        for part in parts - {"ids"} or parts:
            named.append(NAMES.get(part, "{source}.{part}").format(source=key, part=part))
    # The counts follow from the rows.
    others = different - sources - (COUNTS if sources else set())
    return sorted({*named, *(NAMES.get(key, key) for key in others)})
