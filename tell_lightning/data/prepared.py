"""The data of a run without a Trainer: prepared rows, the plan and its digest, the rows to score.

Needs a tokenizer, but neither Lightning nor a model. `plan`, `prepare` and `TellDataModule` use it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from tell_lightning.data import packing, store
from tell_lightning.data.advice import advice
from tell_lightning.data.anchors import Example, reference_text
from tell_lightning.data.evaluation_rows import (
    EvaluationRows,
    build,
    default_max_new_tokens,
    evaluation_example,
    settled_scoring,
    with_shots,
    with_swapped_anchor,
)
from tell_lightning.data.length import Length, default_length
from tell_lightning.data.permutation import derive_key, seed_for
from tell_lightning.data.plan import Plan, check_supply, draw, resolve_plan, steps_for
from tell_lightning.data.preparation import Preparation, training_sources
from tell_lightning.data.reading import RecordSet
from tell_lightning.data.report import realise, rendering_notes
from tell_lightning.data.settings import DataSettings, Task
from tell_lightning.data.splits import Splits, cache_folder, general_example, read_splits
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder, Lengths, TokenRow
from tell_lightning.data.units import Examples, Units
from tell_lightning.data.variants import apply_anchor
from tell_lightning.metrics.settings import Scoring

HELD_OUT_ROWS = 500
"""Held-out rows of a general source whose loss is computed, from the first on."""
LossRows = list[tuple[str, TokenRow]]
"""Rows whose loss is logged, each with the name of its task or general source."""


class PreparedData:
    """The data of a run, as the `data` section describes it.

    Attributes:
        encoder: Tokenizer and chat template.
        plan: Which row stands at which position. This and the following exist after `open`.
        units: The units of the optimizer batch: examples, or bins of packed examples.
        rows: The prepared rows of each source, in the order of the plan.
        evaluation: The rows to generate answers for, by split and task.
        loss_rows: The rows whose loss is logged, by split.
        scorings: How each task is scored, with the labels of its rows if none are configured.
        length: The number of steps with its reason, if it followed from the rows; exists after
            `steps`.
    """

    def __init__(
        self, settings: DataSettings, tokenizer: Any, *, seed: int, given: Splits | None = None
    ) -> None:
        """Read nothing yet.

        Args:
            settings: The `data` section.
            tokenizer: The base model's tokenizer.
            seed: The run's seed. The seeds of draw and order are derived from it.
            given: The records of all files, if they have been read already.
        """
        self.settings = settings
        self.seed = seed
        self.encoder = Encoder(tokenizer, Renderer(tokenizer, settings.thinking))
        self.preparation = Preparation(settings, self.encoder)
        self.draw_seed = seed_for("draw", seed, settings.mixture.draw_seed)
        self.is_open = False
        self.given = given
        self.length: Length | None = None

    @property
    def splits(self) -> Splits:
        """The records of all files, read at first use."""
        if self.given is None:
            self.given = read_splits(self.settings)
        return self.given

    def prepare(self) -> None:
        """Tokenise every training source that is not in the cache.

        Raises:
            TellError: A bad row, an example that is too long, or nothing to train on.
        """
        self.preparation.prepare(training_sources(self.settings, self.splits))

    def open(self, cycles: float | None = None) -> None:
        """Open the prepared rows and resolve the plan, with the same result in every process.

        Args:
            cycles: Length of the run in cycles; None: `mixture.cycles`.

        Raises:
            TellError: Proportions or lengths that cannot be met.
        """
        if not self.is_open:
            self._open_rows()
            self._open_evaluation()
            self._trained = self.splits.train
            self.given = None  # frees the other records
            self.is_open = True
        cycles = self.settings.mixture.cycles if cycles is None else cycles
        self.stop = None if cycles is None else self.plan.stop(cycles)
        self.depends_on = {**self._depends_on, "stop": self.stop}
        self.units = self._make_units()

    def _open_rows(self) -> None:
        splits, mixture = self.splits, self.settings.mixture
        sources = training_sources(self.settings, splits)
        drawn: dict[str, list[int]] = {}
        rows: dict[str, Any] = {}
        lengths: dict[str, Lengths] = {}
        self.source_reports: dict[str, dict[str, Any]] = {}
        for source in sources:
            name = source.name
            loaded = store.load(self.preparation.folder(source))
            rows[name], lengths[name], self.source_reports[name] = loaded
            longest = int(loaded.lengths.tokens.argmax())
            self.encoder.check_positions(
                loaded.rows[longest]["where"], int(loaded.lengths.tokens[longest])
            )
            if name in splits.train:
                chosen = draw(len(loaded.rows), mixture.task_examples, self.draw_seed, name)
                drawn[name] = chosen.tolist()
                rows[name], lengths[name] = loaded.rows.select(chosen), loaded.lengths.take(chosen)
        weights = {name: self.settings.general[name].weight for name in splits.general}
        self.plan: Plan = resolve_plan(
            mixture,
            {name: len(rows[name]) for name in splits.train},
            {name: (len(rows[name]), weight) for name, weight in weights.items()},
            seed=seed_for("order", self.seed, mixture.order_seed),
            mean_tokens={name: float(of.tokens.mean()) for name, of in lengths.items()},
        )
        self.rows = [rows[source.name] for source in self.plan.sources]
        self.lengths = [lengths[source.name] for source in self.plan.sources]
        self.drawn_ids = {name: rows[name]["id"][:] for name in splits.train}
        self._depends_on = {
            **self.plan.describe(),
            "template": self.encoder.renderer.template_digest,
            "tokenizer": self.preparation.tokenizer_digest,
            "drawn": blake2b(json.dumps(drawn).encode(), digest_size=16).hexdigest(),
            "optimizer_batch": self.settings.optimizer_batch,
            "packing": [packing.ALGORITHM, packing.WINDOW] if self.settings.packing else None,
            **{f"data.{source.key}": self._parts(source.name) for source in sources},
        }

    def _parts(self, name: str) -> dict[str, Any]:
        """Return what the rows of a source depend on, except what all sources share."""
        parts: dict[str, Any] = self.source_reports[name].pop("parts")
        return {key: parts[key] for key in parts if key not in {"template", "tokenizer"}}

    def _make_units(self) -> Units:
        if not self.settings.packing:
            return Examples(self.plan, self.stop)
        bins = packing.Bins(self.plan, self.lengths, self.settings.max_tokens, self.stop)
        bins.load(self._table)
        return bins

    @property
    def _table(self) -> Path:
        """The file that keeps the table of bins from one run to the next."""
        return cache_folder(self.settings) / f"bins-{self.digest}.npy"

    # Rows to score

    def _open_evaluation(self) -> None:
        splits = self.splits
        self.evaluation: dict[str, dict[str, EvaluationRows]] = {"dev": {}, "test": {}}
        self.loss_rows: dict[str, LossRows] = {"dev": [], "test": []}
        self.scorings = {name: self._scoring(name) for name in self.settings.tasks}
        self.loss_names = (*self.settings.tasks, *self.settings.general)
        held_out: LossRows = []
        for name, pool in splits.held_out.items():
            examples = [general_example(record) for record in pool.records[:HELD_OUT_ROWS]]
            held_out += self._encoded(name, examples)
        for split, pools in (("dev", splits.dev), ("test", splits.test)):
            for name, pool in pools.items():
                rows = self._evaluation_rows(name, pool)
                self.evaluation[split][name] = rows
                self.loss_rows[split] += self._encoded(name, rows.examples)
            self.loss_rows[split] += held_out

    def trained_answers(self, name: str) -> list[str]:
        """Return the responses of a task's training rows, without the response prefix.

        `open` must have been called.
        """
        pool, anchor = self._trained.get(name), self.settings.tasks[name].anchor
        texts = (reference_text(record, anchor) for record in (pool.records if pool else ()))
        return [text for text in texts if text]

    def _encoded(self, name: str, examples: Any) -> LossRows:
        rows = self.encoder.encode(examples)
        for example, row in zip(examples, rows, strict=True):
            self.encoder.check_positions(example.where, len(row.input_ids))
        return [(name, row) for row in rows]

    def _evaluation_rows(self, name: str, pool: RecordSet) -> EvaluationRows:
        task, variant = self.settings.tasks[name], self.settings.mixture.anchor
        known = [
            evaluation_example(record, task.anchor, variant)
            for pools in (self.splits.train, self.splits.dev)
            if name in pools
            for record in pools[name].records
        ]
        return build(
            self.encoder,
            pool.records,
            task=name,
            anchor=task.anchor,
            variant=variant,
            scoring=self.scorings[name],
            max_new_tokens=task.max_new_tokens or default_max_new_tokens(self.encoder, known),
            min_new_tokens=task.min_new_tokens,
            stop_tokens=task.stop_tokens,
            forced=task.force_response_prefix,
        )

    def _scoring(self, name: str) -> Scoring:
        """Return how a task is scored, with the labels of its rows if none are configured."""
        pools = (self.splits.train, self.splits.dev, self.splits.test)
        records = [record for pool in pools if name in pool for record in pool[name].records]
        return settled_scoring(self.settings.tasks[name], name, records)

    def swap_anchor(self) -> str | None:
        """Add a split of the test rows without their anchor, or with it if training had none.

        Returns:
            The name of the new split; None if no task has an anchor and test rows.
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
            return None
        split = f"test_{'with' if self.settings.mixture.anchor == 'none' else 'without'}_anchor"
        self.evaluation[split] = swapped
        self.loss_rows[split] = [
            pair for name, rows in swapped.items() for pair in self._encoded(name, rows.examples)
        ]
        return split

    def add_shots(self, splits: Sequence[Literal["dev", "test"]]) -> dict[str, int]:
        """Put the drawn task examples before every prompt, as earlier turns of the conversation.

        `open` must have been called. The loss of task rows is left out if other rows have one: it
        would take a pass over all of these examples for each row.

        Args:
            splits: The splits whose prompts get them.

        Returns:
            How many examples stand before the prompts of each task, as many as fit: before those
            of the last split where it has rows.
        """
        numbers: dict[str, int] = {}
        for split in splits:
            tasks = self.evaluation[split]
            for name, rows in tasks.items():
                tasks[name], numbers[name] = with_shots(self.encoder, rows, self._shots(name))
            held_out = [pair for pair in self.loss_rows[split] if pair[0] not in tasks]
            self.loss_rows[split] = held_out or [
                pair for name, rows in tasks.items() for pair in self._encoded(name, rows.examples)
            ]
        return numbers

    def _shots(self, name: str) -> list[Example]:
        """Return the drawn examples of a task, ordered by their text and the seed of the draw.

        The order of the draw would not do: a draw of all rows is in the order of the file, where
        those of one label may come first, and be all that fit.
        """
        task, pool = self.settings.tasks[name], self._trained.get(name)
        known = {_row_of(record.id, task): record for record in (pool.records if pool else ())}
        rows = [_row_of(id, task) for id in self.drawn_ids.get(name, ())]
        # Where each response of a conversation is a row, its id is that of the record and a number.
        drawn = dict.fromkeys(row if row in known else row.rpartition("/")[0] for row in rows)
        records = sorted(
            (known[row] for row in drawn),
            key=lambda record: derive_key(
                self.draw_seed, "shots", *(turn.content for turn in record.turns)
            ),
        )
        variant = self.settings.mixture.anchor
        return [apply_anchor(record, task.anchor, variant) for record in records]

    # The length of a run

    def steps(self, max_steps: int) -> int:
        """Return the optimizer steps of the run: those of its cycles if `cycles` is set.

        Args:
            max_steps: The steps of a run without `cycles`; below 1: they follow from the rows
                (`length`).

        Raises:
            PlanError: Examples are packed, and a general source would run out even with a single
                example in each bin.
        """
        self.length = None
        if max_steps < 1 and self.stop is None:
            repeat = self.settings.mixture.general_repeat
            self.length = default_length(self.plan, self._per_step, general_repeat=repeat)
            max_steps = self.length.steps
        if self.settings.packing:  # checked first, for counting the bins may take long
            units = max_steps * self.settings.optimizer_batch
            self._check_positions(units if self.stop is None else self.stop)
        if self.stop is None:
            return max_steps
        return steps_for(self.units.units_for(self.stop), self.settings.optimizer_batch)

    @property
    def _per_step(self) -> float:
        """Examples of an optimizer step; of bins, about the mean, and no less."""
        batch = self.settings.optimizer_batch
        if not self.settings.packing:
            return batch
        pairs = list(zip(self.plan.sources, self.lengths, strict=True))
        tokens = sum(source.slots * float(of.tokens.mean()) for source, of in pairs)
        return batch * max(1.0, self.settings.max_tokens * self.plan.cycle / tokens)

    def check_supply(self, steps: int) -> None:
        """Refuse a run that would see general rows twice, unless the settings allow it.

        Raises:
            PlanError: A general source runs out.
        """
        positions = self.units.positions(steps * self.settings.optimizer_batch)
        if isinstance(self.units, packing.Bins):
            self.units.save(self._table)  # all bins of the run are packed now
        self._check_positions(positions)

    def _check_positions(self, positions: int) -> None:
        check_supply(self.plan, positions, general_repeat=self.settings.mixture.general_repeat)

    # What is saved

    @property
    def digest(self) -> str:
        """Digest of everything that the order depends on."""
        text = json.dumps(self.depends_on, sort_keys=True)
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self, steps: int) -> dict[str, Any]:
        """Return the content of `plan.json` for a run of `steps` optimizer steps."""
        units = steps * self.settings.optimizer_batch
        realised = realise(self.plan, self.units.blocks(units), self.lengths)
        plan = {
            **self.plan.describe(),
            "steps": steps,
            "length": self.length.why if self.length else None,
            "unit": self.units.unit,
            "bins": self._bins(units, realised) if self.settings.packing else None,
            "optimizer_batch": self.settings.optimizer_batch,
            "digest": self.digest,
            "realised": realised,
            "inputs": self.source_reports,
            "notes": rendering_notes(self.encoder.renderer, self.source_reports, self._spelt()),
            "task_examples": {name: list(ids) for name, ids in self.drawn_ids.items()},
        }
        by_tokens = self.settings.mixture.task_share_in == "tokens"
        return {**plan, "advice": list(advice(plan, by_tokens=by_tokens))}

    def _spelt(self) -> dict[str, int]:
        """Count the rows to score that spell a control token."""
        spells = self.encoder.renderer.spells_control
        return {
            f"{name}.{split}": sum(map(spells, rows.examples))
            for split, tasks in self.evaluation.items()
            for name, rows in tasks.items()
        }

    def _bins(self, units: int, realised: Mapping[str, Any]) -> dict[str, Any]:
        """Return number, size and filled share of the bins; None if not all were counted."""
        tokens = sum(source["tokens"] for source in realised["sources"].values())
        capacity = self.settings.max_tokens
        filled = tokens / (units * capacity) if realised["complete"] else None
        return {"number": units, "tokens": capacity, "filled": filled}


def first_of_each(rows: LossRows, most: int | None) -> LossRows:
    """Keep the first rows of each source; None: all."""
    seen: Counter[str] = Counter()
    kept = []
    for name, row in rows:
        seen[name] += 1
        if most is None or seen[name] <= most:
            kept.append((name, row))
    return kept


def _row_of(id: str, task: Task) -> str:
    """Return an id without the name of the file, which may be another since rows were prepared."""
    return id if task.fields.id else id.rpartition(":")[2]
