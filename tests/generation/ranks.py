"""Translations of the microworld's base, and one process of several that make them."""

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
        self.model: Any = load_base(ModelSettings(base="microworld"))
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


def answer_with_others(rank: int, world: int, folder: Path) -> None:
    """Be a rank: answer 65 rows and then two, and write what it got to `folder/rank.json`."""
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world,
    )
    model = Model()
    found = {size: model.answer(most=size, rank=rank, world=world) for size in SIZES}
    distributed.destroy_process_group()
    rows = {size: [asdict(each) for each in predictions] for size, predictions in found.items()}
    (folder / f"{rank}.json").write_text(json.dumps(rows), encoding="utf-8")
