"""Translations of the microworld's base, and one process of several that make them.

`python tests/generation/ranks.py RANK WORLD FOLDER` answers 65 rows and then two, with the other
ranks, and writes what this rank got to `FOLDER/RANK.json`.
"""

import json
import random
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.evaluation_rows import EvaluationRows, build
from tell_lightning.data.records import Record, Turn
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokenizer import load_tokenizer
from tell_lightning.data.tokens import Encoder
from tell_lightning.generation.answer import answer_rows
from tell_lightning.generation.batched import Budget
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.settings import Scoring
from tell_lightning.microworld.tasks import TRANSLATE_ANCHOR, translate_row
from tell_lightning.model.base import load_base
from tell_lightning.model.settings import ModelSettings

SIZES = (65, 2)


class Model:
    """The base with its rows."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.model: Any = load_base(ModelSettings())
        self.tokenizer = load_tokenizer("microworld")
        self.rows = self._rows()

    def _rows(self) -> EvaluationRows:
        source = random.Random(5)
        records = []
        for number in range(max(SIZES)):
            row = translate_row(str(number), source, "test", with_unseen=True)
            turns = (Turn("user", str(row["prompt"])), Turn("assistant", str(row["response"])))
            records.append(Record(str(number), f"rows:{number}", turns, row))
        return build(
            Encoder(self.tokenizer, Renderer(self.tokenizer)),
            records,
            task="translate",
            anchor=Anchor(text=TRANSLATE_ANCHOR.strip()),
            variant="given",
            scoring=Scoring(kind="translation"),
            max_new_tokens=40,
        )

    def answer(self, tokens: int = 2000, **options: Any) -> list[Prediction]:
        """Answer the rows as evaluation does."""
        return answer_rows(self.model, self.tokenizer, self.rows, budget=Budget(tokens), **options)


def main(rank: int, world: int, folder: Path) -> None:
    """Be one of the ranks."""
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=110),
    )
    model = Model()
    found = {size: model.answer(most=size, rank=rank, world=world) for size in SIZES}
    distributed.destroy_process_group()
    rows = {size: [asdict(each) for each in predictions] for size, predictions in found.items()}
    (folder / f"{rank}.json").write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
