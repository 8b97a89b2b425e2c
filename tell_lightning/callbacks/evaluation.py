"""Generate and score on dev while training, and on test.

Every rank takes its share of the rows; each task is scored once, on the predictions of all ranks.
The scores are logged, the predictions are written to one JSONL file a task, and `history` keeps
everything that was scored.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from tell_lightning.callbacks.folder import write_jsonl
from tell_lightning.callbacks.probe import Probe, can_chat
from tell_lightning.callbacks.samples import log_samples
from tell_lightning.callbacks.settings import (
    EVAL_RANGES,
    SPLITS,
    SWAPPED,
    most_loss_rows,
    most_rows,
)
from tell_lightning.data.batches import log_stage
from tell_lightning.data.evaluation_rows import EvaluationRows
from tell_lightning.errors import TellError
from tell_lightning.generation.answer import answer_rows
from tell_lightning.generation.batched import Budget
from tell_lightning.metrics.kinds.registry import display_of
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import Scores, baselines, saved_row, score
from tell_lightning.metrics.score_facts import PROBE, facts_of
from tell_lightning.metrics.settings import Scoring
from tell_lightning.model.lora import is_untrained
from tell_lightning.progress import Progress
from tell_lightning.settings import check_ranges


@runtime_checkable
class EvaluationData(Protocol):
    """What generation needs of a data module. `TellDataModule` has it."""

    seed: int
    """Seed of the draws where `temperature` is above 0."""
    test_split: str
    """The split that a test epoch scores."""

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""

    @property
    def evaluation(self) -> Mapping[str, Mapping[str, EvaluationRows]]:
        """The rows to generate for, by split and task."""


@runtime_checkable
class LimitsLossRows(Protocol):
    """A data module that can leave out the loss of rows that are not answered."""

    def limit_loss_rows(self, limits: Mapping[str, int | None]) -> None:
        """Compute the loss of the first rows of each source alone, by split."""


class AdaptedModel(Protocol):
    """What generation needs of a module. `TellModule` has it."""

    model: Any
    trained_steps: int


class EvaluationError(TellError):
    """A data module that has no rows to generate for."""


@dataclass
class Scored:
    """The scores of every task on one split at one moment."""

    split: str
    step: int
    adapter: bool
    tasks: dict[str, Scores] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    probe: dict[str, float] = field(default_factory=dict)
    """`ProbeScores` by name, where the base can chat: with the scores of test, or of dev where
    there is no test."""

    @property
    def selection(self) -> float:
        """The mean of the tasks' primary scores, 0 to 1."""
        return sum(scores.selection for scores in self.tasks.values()) / len(self.tasks)

    @property
    def loss(self) -> float:
        """The mean of the tasks' losses in nats a token; infinite if none is known."""
        known = [self.losses[name] for name in self.tasks if name in self.losses]
        return sum(known) / len(known) if known else inf


class GenerationEvaluation(pl.Callback):
    """Generates and scores at the end of every validation and test epoch.

    It works with any Trainer and logger. `val/score`, the mean of the tasks' primary scores, is
    what a `ModelCheckpoint` or `EarlyStopping` may go by. Generation and the loss of dev and test
    rows are computed in the Trainer's precision.

    Attributes:
        history: Everything scored so far.
        baselines: Scores of the baselines that need no model, as plain values, by split, task and
            name.
    """

    def __init__(
        self,
        *,
        every_steps: int | None = None,
        dev_rows: int | None = 64,
        test_rows: int | None = None,
        loss_rows: int | None = None,
        batch_tokens: int = 16384,
        temperature: float = 0.0,
        samples: int = 3,
        table_rows: int = 32,
        probe: bool | None = None,
        folder: str | Path | None = None,
    ) -> None:
        """Score nothing yet.

        Args:
            every_steps: Optimizer steps between two scorings on dev; None: when the Trainer
                validates (`val_check_interval`, `check_val_every_n_epoch`).
            dev_rows: Rows of each dev set to score, from the first on; None: all.
            test_rows: Rows of each test set to score, from the first on; None: all.
            loss_rows: Rows of each set whose loss is computed, from the first on; None: as many as
                are scored.
            batch_tokens: Tokens of a generation batch, padding and answers included.
            temperature: 0: greedy; above: tokens are drawn.
            samples: Predictions of each task to print after the adapter is scored on test.
            table_rows: Predictions of each task to send to loggers that take tables.
            probe: Whether to score chat prompts of no task (`Probe`); None: where the base can
                chat.
            folder: Where predictions are written, one JSONL file a task and scoring; None: nowhere.

        Raises:
            ConfigError: A number is too small.
        """
        self.every_steps = every_steps
        self.dev_rows = dev_rows
        self.test_rows = test_rows
        self.loss_rows = loss_rows
        self.temperature = temperature
        self.samples = samples
        self.table_rows = table_rows
        self.probe = probe
        self.folder = None if folder is None else Path(folder)
        check_ranges(vars(self) | {"batch_tokens": batch_tokens}, EVAL_RANGES, "eval")
        self.history: list[Scored] = []
        self.baselines: dict[str, dict[str, dict[str, Any]]] = {}
        self._budget = Budget(batch_tokens)
        self._probe: Probe | None = None

    @property
    def state_key(self) -> str:
        """The name that checkpoints know its state by."""
        return "Evaluation"

    def state_dict(self) -> dict[str, Any]:
        """Return what was scored so far, as text: a checkpoint holds plain values alone."""
        history = [asdict(scored) for scored in self.history]
        return {"history": json.dumps(history), "floors": json.dumps(self.baselines)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what earlier sessions have scored; what this one has scored stays."""
        if self.history:  # `trainer.test(ckpt_path=...)` restores callbacks, too
            return
        self.history = [
            Scored(**{**saved, "tasks": {name: Scores(**s) for name, s in saved["tasks"].items()}})
            for saved in json.loads(state_dict["history"])
        ]
        self.baselines = json.loads(state_dict["floors"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the rows, and set the validation interval, in micro-batches as Lightning counts it.

        Raises:
            EvaluationError: The Trainer has no data module with rows to generate for.
        """
        self._data = _evaluation_data(trainer)
        if isinstance(self._data, LimitsLossRows):
            rows = (self.dev_rows, self.test_rows, self.loss_rows)
            limits = {split: most_loss_rows(split, *rows) for split in (*SPLITS, *SWAPPED)}
            self._data.limit_loss_rows(limits)
        if stage == "fit" and self.every_steps is not None:
            steps = trainer.max_steps
            every = min(self.every_steps, steps) if steps > 0 else self.every_steps
            trainer.check_val_every_n_epoch = None
            trainer.val_check_interval = every * trainer.accumulate_grad_batches
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, EarlyStopping) and str(callback.monitor)[:4] == "val/":
                    # It may have concluded from the old interval that epochs are what counts.
                    callback._check_on_train_epoch_end = False

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Have the last step scored, too, if `every_steps` does not divide the run."""
        if self.every_steps is not None and trainer.global_step == trainer.max_steps:
            trainer.val_check_batch = 1

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score dev."""
        if not trainer.sanity_checking:
            self._evaluate(trainer, pl_module, "dev")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score test, or the same rows with the anchor swapped."""
        self._evaluate(trainer, pl_module, self._data.test_split)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the losses to the scores in `history`."""
        if not trainer.sanity_checking:
            self._keep_losses(trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the losses to the scores in `history`."""
        self._keep_losses(trainer)

    def _most(self, split: str) -> int | None:
        """Return how many rows of each task are scored; None: all."""
        return most_rows(split, self.dev_rows, self.test_rows)

    def _evaluate(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        module, most = cast(AdaptedModel, pl_module), self._most(split)
        adapter = module.trained_steps > 0 or trainer.strategy.reduce_boolean_decision(
            not is_untrained(module.model),
            all=False,  # of a sharded model each rank knows a part
        )
        scored = Scored(split, module.trained_steps, adapter)
        stage = log_stage(split)
        samples: list[str] = []
        for name, rows in self._data.evaluation[split].items():
            asked = len(rows) if most is None else min(most, len(rows))
            mine = len(range(trainer.global_rank, asked, trainer.world_size))
            with (
                Progress(f"scoring {split} {name}", mine, shown=trainer.is_global_zero) as progress,
                trainer.precision_plugin.val_step_context(),
            ):
                predictions = answer_rows(
                    module.model,
                    self._data.tokenizer,
                    rows,
                    budget=self._budget,
                    most=most,
                    temperature=self.temperature,
                    seed=self._data.seed,
                    rank=trainer.global_rank,
                    world=trainer.world_size,
                    answered=progress.advance,
                )
            scored.tasks[name] = score(rows.scoring, predictions, intervals=split != "dev")
            if split in SPLITS and name not in (known := self.baselines.setdefault(split, {})):
                found = baselines(rows.scoring, predictions)
                known[name] = {baseline: asdict(scores) for baseline, scores in found.items()}
            values = scored.tasks[name].values
            pl_module.log_dict({f"{stage}/{name}/{key}": float(v) for key, v in values.items()})
            self._write(scored, name, predictions, rows.scoring)
            log_samples(trainer, f"{stage}/{name}/samples", rows, predictions, self.table_rows)
            if split == "test" and adapter:
                for each in predictions[: self.samples]:
                    samples += [
                        f"  {name} {each.id}",
                        f"    answer     {each.prediction}",
                        f"    reference  {each.reference}",
                    ]
        if split == ("test" if self._data.evaluation.get("test") else "dev"):
            scored.probe = self._probed(trainer, module, adapted=adapter)
            pl_module.log_dict({f"{stage}/chat_probe/{key}": v for key, v in scored.probe.items()})
        if scored.tasks:
            pl_module.log(f"{stage}/score", scored.selection, prog_bar=True)
        self.history.append(scored)
        for name, scores in scored.tasks.items():
            rank_zero_info(f"  {scored.split} {name}: {summary(scores)}")
        if scored.probe:
            rank_zero_info(
                f"  chat: loss {PROBE['loss'].written(scored.probe['loss'])}, kept "
                f"{PROBE['unchanged'].written(scored.probe['unchanged'])}%"
            )
        for line in samples:
            rank_zero_info(one_line(line))

    def _probed(
        self, trainer: pl.Trainer, module: AdaptedModel, *, adapted: bool
    ) -> dict[str, float]:
        """Score the chat prompts of no task; nothing where the base cannot chat."""
        tokenizer = self._data.tokenizer
        if not (can_chat(tokenizer) if self.probe is None else self.probe):
            return {}
        self._probe = self._probe or Probe(
            tokenizer, self._budget, trainer.global_rank, trainer.world_size
        )
        with trainer.precision_plugin.val_step_context():
            return asdict(self._probe.score(module.model, adapted=adapted))

    def _keep_losses(self, trainer: pl.Trainer) -> None:
        start = f"{log_stage(self.history[-1].split)}/loss/"
        self.history[-1].losses = {
            name.removeprefix(start): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(start)
        }

    @rank_zero_only
    def _write(
        self, scored: Scored, name: str, predictions: Sequence[Prediction], scoring: Scoring
    ) -> None:
        if self.folder is None:
            return
        moment = f"step-{scored.step:06d}" if scored.adapter else "base"
        path = self.folder / f"{scored.split}-{name}-{moment}.jsonl"
        write_jsonl(path, (saved_row(each, scoring) for each in predictions))


def _evaluation_data(trainer: pl.Trainer) -> EvaluationData:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, EvaluationData):
        raise EvaluationError(
            "GenerationEvaluation: needs a data module with rows to generate for, got "
            f"{type(data).__name__}. Pass datamodule=TellDataModule(...), or one that has seed, "
            "test_split, tokenizer and evaluation."
        )
    return data


def one_line(text: str) -> str:
    r"""Make one line of a text, no longer than the terminal is wide.

    >>> one_line("two\nlines")
    'two lines'
    """
    width = shutil.get_terminal_size((100, 24)).columns
    text = text.rstrip().replace("\n", " ")
    return text if len(text) <= width else text[: width - 1] + "…"


def summary(scores: Scores) -> str:
    """Say the main scores in one line."""
    shown, values = display_of(vars(scores)), scores.values
    known = (
        (facts_of(name, shown.facts), values[name]) for name in shown.summary if name in values
    )
    return ", ".join(f"{facts.label} {facts.written(value)}{facts.unit}" for facts, value in known)
