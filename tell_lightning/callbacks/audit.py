"""Record the examples of every optimizer step, and check them against the plan.

`audit/rank-R.jsonl` gets one line when a session starts and one line per optimizer step, with the
examples that `training_step` received. A step that differs from the plan is an error at once.

    {"session": {"step": 0, "world": 2, "micro_batch": 4, "unit": "examples"}}
    {"step": 1, "rank": 0, "positions": [0, 2, 4, 6], "sources": [1, 1, 0, 1], "rows": [7, 3, 0, 5]}
"""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.data.batches import Batch
from tell_lightning.data.datamodule import TellDataModule
from tell_lightning.data.plan import Slot
from tell_lightning.data.units import Place
from tell_lightning.errors import TellError


class AuditError(TellError):
    """A step trained on other examples than those of the plan."""


class Audit(pl.Callback):
    """Writes and checks the examples of every optimizer step."""

    def __init__(self, folder: RunFolder, data: TellDataModule) -> None:
        """Write to the folder of rank 0, and compare with the plan of `data`."""
        self.folder = folder
        self.data = data
        self._slots: list[Slot] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the line of a new session."""
        self._place = Place(trainer.global_rank, trainer.world_size, self.data.micro_batch)
        self._batch = self.data.settings.optimizer_batch
        parent = trainer.strategy.broadcast(str(self.folder.path))
        self._path = Path(parent) / "audit" / f"rank-{trainer.global_rank}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        session = {
            "step": trainer.global_step,
            "world": self._place.world,
            "micro_batch": self._place.micro_batch,
            "unit": self.data.units.unit,
        }
        self._write({"session": session})

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Write and check the optimizer step if it is complete."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        slots, self._slots = self._slots, []
        step = trainer.global_step
        positions, sources, rows = ([slot[n] for slot in slots] for n in range(3))
        ids = {"positions": positions, "sources": sources, "rows": rows}
        self._write({"step": step, "rank": self._place.rank, **ids})
        wanted = self._wanted(step)
        if slots != wanted:
            wrong = next(n for n in range(len(slots) + 1) if slots[n : n + 1] != wanted[n : n + 1])
            raise AuditError(
                f"data.audit: rank {self._place.rank} must train in step {step} on "
                f"{_show(wanted, wrong)}, got {_show(slots, wrong)} (position, source, row). "
                f"The stream has left the plan: please report it with {self._path}."
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Remember the examples of the micro-batch."""
        columns = (batch.positions.tolist(), batch.sources.tolist(), batch.rows.tolist())
        self._slots += zip(*columns, strict=True)

    def _wanted(self, step: int) -> list[Slot]:
        """Read this rank's examples of a step from the plan itself, not from the data stream."""
        begin, end = (step - 1) * self._batch, step * self._batch
        units = self.data.units.at(range(begin, end))
        mine = [
            units[first + offset]
            for first in range(0, self._batch, self._place.step)
            for offset in range(self._place.rank, self._place.step, self._place.world)
        ]
        return [slot for unit in mine for slot in unit]

    def _write(self, line: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _show(slots: list[Slot], index: int) -> str:
    return f"{slots[index]} as example {index + 1}" if index < len(slots) else "nothing more"
