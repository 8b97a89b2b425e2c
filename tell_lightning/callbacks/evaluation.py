"""Score the tasks on dev while training, and on test before and after.

Enters: the model at the end of a Lightning validation or test epoch. Leaves: logged scores, one
predictions file a task, samples on the screen, and `history`, which the run record saves. Every
rank takes its share of the rows; each task is scored once, on the gathered predictions.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from tell_lightning.callbacks.folder import RunFolder, write_jsonl
from tell_lightning.callbacks.samples import log_samples
from tell_lightning.callbacks.settings import EvalSettings
from tell_lightning.generation.answer import answer_rows
from tell_lightning.generation.batched import Budget
from tell_lightning.metrics.kinds.registry import display_of
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import Scores, baselines, saved_row, score
from tell_lightning.metrics.score_facts import facts_of
from tell_lightning.metrics.settings import Scoring

STAGES = {"dev": "val", "test": "test"}
"""How log keys begin, by split; those of the test rows with a swapped anchor as the split."""


@dataclass
class Scored:
    """The scores of every task on one split at one moment."""

    split: str
    step: int
    adapter: bool
    tasks: dict[str, Scores] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def selection(self) -> float:
        """The mean of the tasks' primary scores, 0 to 1."""
        return sum(scores.selection for scores in self.tasks.values()) / len(self.tasks)


class Evaluation(pl.Callback):
    """Generates and scores at the end of every validation and test epoch."""

    def __init__(self, settings: EvalSettings, folder: RunFolder) -> None:
        """Write below `folder`.

        Attributes:
            history: Everything scored so far.
            floors: Scores of the model-free predictions, by split and task.
            adapter: Whether the adapter differs from nothing yet.
            selected_step: Step of the adapter that was loaded after training, for `test`.
        """
        self.settings = settings
        self.folder = folder
        self.history: list[Scored] = []
        self.floors: dict[str, dict[str, dict[str, Scores]]] = {}
        self.adapter = False
        self.selected_step: int | None = None
        self._budget = Budget(settings.batch_tokens)

    def state_dict(self) -> dict[str, Any]:
        """Return what was scored so far, as text: a checkpoint holds plain values alone."""
        floors = {
            split: {
                task: {name: asdict(scores) for name, scores in named.items()}
                for task, named in tasks.items()
            }
            for split, tasks in self.floors.items()
        }
        history = [asdict(scored) for scored in self.history]
        return {"history": json.dumps(history), "floors": json.dumps(floors)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what the sessions before have scored."""
        self.history = [
            Scored(**{**saved, "tasks": {name: Scores(**s) for name, s in saved["tasks"].items()}})
            for saved in json.loads(state_dict["history"])
        ]
        self.floors = {
            split: {
                task: {name: Scores(**scores) for name, scores in named.items()}
                for task, named in tasks.items()
            }
            for split, tasks in json.loads(state_dict["floors"]).items()
        }
        self.adapter = True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Set the validation interval, in micro-batches as Lightning counts it."""
        every = self.settings.every_steps or max(1, trainer.max_steps // 5)
        if stage == "fit":
            trainer.val_check_interval = (
                min(every, trainer.max_steps) * trainer.accumulate_grad_batches
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score dev."""
        self._evaluate(trainer, pl_module, "dev", self.settings.dev_rows)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score test, or the same rows with the anchor swapped."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._evaluate(trainer, pl_module, datamodule.test_split, self.settings.test_rows)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the losses beside the scores."""
        self._keep_losses(trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the losses beside the scores."""
        self._keep_losses(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note that the adapter has learned something."""
        self.adapter = True

    def _evaluate(self, trainer: pl.Trainer, module: Any, split: str, most: int | None) -> None:
        stage = STAGES.get(split, split)
        step = trainer.global_step if self.selected_step is None else self.selected_step
        scored = Scored(split, step, self.adapter)
        samples: list[str] = []
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        for name, rows in datamodule.evaluation[split].items():
            predictions = answer_rows(
                module.model,
                datamodule.encoder.tokenizer,
                rows,
                budget=self._budget,
                most=most,
                temperature=self.settings.temperature,
                seed=datamodule.seed,
                rank=trainer.global_rank,
                world=trainer.world_size,
            )
            scored.tasks[name] = score(rows.scoring, predictions, intervals=split != "dev")
            if split in STAGES and name not in self.floors.setdefault(split, {}):
                self.floors[split][name] = baselines(rows.scoring, predictions)
            values = scored.tasks[name].values
            module.log_dict({f"{stage}/{name}/{key}": float(v) for key, v in values.items()})
            self._write(scored, name, predictions, rows.scoring)
            most_shown = self.settings.table_rows
            log_samples(trainer, f"{stage}/{name}/samples", rows, predictions, most_shown)
            if split == "test" and self.adapter:
                samples += self._samples(name, predictions)
        if scored.tasks:
            module.log(f"{stage}/score", scored.selection, prog_bar=True)
        self.history.append(scored)
        self._print(scored)
        for line in samples:
            rank_zero_info(one_line(line))

    def _keep_losses(self, trainer: pl.Trainer) -> None:
        split = self.history[-1].split
        start = f"{STAGES.get(split, split)}/loss/"
        self.history[-1].losses = {
            name.removeprefix(start): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(start)
        }

    @rank_zero_only
    def _write(
        self, scored: Scored, name: str, predictions: Sequence[Prediction], scoring: Scoring
    ) -> None:
        moment = f"step-{scored.step:06d}" if scored.adapter else "base"
        path = self.folder.predictions / f"{scored.split}-{name}-{moment}.jsonl"
        write_jsonl(path, (saved_row(each, scoring) for each in predictions))

    def _print(self, scored: Scored) -> None:
        for name, scores in scored.tasks.items():
            rank_zero_info(f"  {scored.split} {name}: {summary(scores)}")

    def _samples(self, name: str, predictions: Sequence[Prediction]) -> Iterator[str]:
        for prediction in predictions[: self.settings.samples]:
            yield f"  {name} {prediction.id}"
            yield f"    answer     {prediction.prediction}"
            yield f"    reference  {prediction.reference}"


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
