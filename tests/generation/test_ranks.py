"""Every row once and the same text, on one process or three, whatever the budget of a batch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import score

HERE = Path(__file__).parent
WORLD = 3
EXACT = ("id", "prediction", "new_tokens", "stopped", "prompt_sha256", "prompt_tokens")


@pytest.fixture(scope="module")
def ranks() -> Iterator[Any]:
    """The script beside this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(HERE), *sys.path])
        yield import_module("ranks")
    sys.modules.pop("ranks", None)


@pytest.fixture(scope="module")
def model(ranks: Any) -> Any:
    return ranks.Model()


@pytest.fixture(scope="module")
def one(model: Any) -> list[Prediction]:
    """The answers of one process."""
    return model.answer()


@pytest.fixture(scope="module")
def three(ranks: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three processes got, by the number of rows."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = [
        subprocess.Popen(
            [sys.executable, ranks.__file__, str(rank), str(WORLD), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:  # without the pipe's end a later test finds it open
            process.kill()
            process.wait()
            process.stderr.close()
    return [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in range(WORLD)]


def exact(predictions: list[dict[str, Any]]) -> list[list[Any]]:
    return [[row[name] for name in EXACT] for row in predictions]


def test_the_rows_have_many_different_answers(one: list[Prediction]) -> None:
    assert len({prediction.prediction for prediction in one}) >= 20
    assert len({prediction.new_tokens for prediction in one}) >= 5


@pytest.mark.ddp
@pytest.mark.parametrize("rows", [65, 2])
def test_three_processes_answer_every_row_once_as_one_process_does(
    rows: int, one: list[Prediction], three: list[dict[str, Any]]
) -> None:
    """65 rows leave one process with fewer; of two rows the third process gets none."""
    expected = [asdict(prediction) for prediction in one[:rows]]
    assert sum(prediction["near_ties"] for prediction in expected) == 0
    for found in three:
        assert exact(found[str(rows)]) == exact(expected)
        assert [row["logprob"] for row in found[str(rows)]] == pytest.approx(
            [row["logprob"] for row in expected], abs=1e-4
        )


@pytest.mark.ddp
def test_three_processes_give_the_score_of_one(
    model: Any, one: list[Prediction], three: list[dict[str, Any]]
) -> None:
    ours = score(model.rows.scoring, one, intervals=True)
    for found in three:
        again = [Prediction(**row) for row in found["65"]]
        assert score(model.rows.scoring, again, intervals=True) == ours


@pytest.mark.parametrize("batch_tokens", [1, 300, 1_000_000])
def test_budgets_from_one_row_to_all_give_the_same_answers_and_score(
    batch_tokens: int, model: Any, one: list[Prediction]
) -> None:
    found = model.answer(batch_tokens)
    assert exact([asdict(each) for each in found]) == exact([asdict(each) for each in one])
    assert score(model.rows.scoring, found) == score(model.rows.scoring, one)


def test_prompt_is_named_by_its_token_ids(model: Any, one: list[Prediction]) -> None:
    """The digest of the ids that plain transformers gives for the conversation."""
    record = model.rows.records[0]
    text = model.rows.examples[0].turns[0].content
    ids = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    assert text.endswith(record.turns[0].content)
    written = "[" + ",".join(map(str, ids)) + "]"
    assert one[0].prompt_sha256 == sha256(written.encode()).hexdigest()
    assert one[0].prompt_tokens == len(ids)
    assert len({each.prompt_sha256 for each in one}) == len(one)
