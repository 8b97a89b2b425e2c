"""Predictions made from bare texts, and the paper's own files where they exist."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tell_lightning.callbacks.folder import write_jsonl
from tell_lightning.commands.compare import read_predictions
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import saved_row
from tell_lightning.metrics.settings import Scoring

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tell"


@pytest.fixture(scope="session")
def read_tell() -> Callable[[str], list[dict[str, str]]]:
    """Read one of the paper's files; skips where they are missing."""

    def read(name: str) -> list[dict[str, str]]:
        path = DATA / name
        if not path.exists():
            pytest.skip("Requires: shared/data")
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]

    return read


@pytest.fixture(scope="session")
def predict() -> Callable[..., list[Prediction]]:
    """Pair answers with references; `rows` are the raw fields."""

    def build(
        answers: Sequence[str],
        references: Sequence[str | None],
        rows: Sequence[dict[str, object]] | None = None,
        **fields: object,
    ) -> list[Prediction]:
        shared = {"stopped": True, "prefix_found": None, "new_tokens": 3} | fields
        triples = zip(answers, references, rows or [{}] * len(answers), strict=True)
        return [
            Prediction(id=f"r{i}", prediction=answer, reference=reference, row=row, **shared)
            for i, (answer, reference, row) in enumerate(triples)
        ]

    return build


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[list[Prediction], Scoring], list[Prediction]]:
    """Write predictions as an evaluation does, and read them as `compare` does."""

    def again(predictions: list[Prediction], scoring: Scoring) -> list[Prediction]:
        path = tmp_path / "predictions.jsonl"
        write_jsonl(path, (saved_row(each, scoring) for each in predictions))
        return read_predictions(path)

    return again
