"""The rows that are answered are the rows whose loss is computed."""

from types import SimpleNamespace
from typing import Any

import pytest

from tell_lightning.callbacks.evaluation import GenerationEvaluation
from tell_lightning.callbacks.settings import SWAPPED_ROWS
from tell_lightning.data.datamodule import TellDataModule
from tell_lightning.data.prepared import first_of_each


class Data:
    """What the callback needs of a data module, and what it told it."""

    seed, test_split, tokenizer, evaluation = 1, "test", None, {"dev": {}, "test": {}}

    def limit_loss_rows(self, limits: dict[str, int | None]) -> None:
        self.limits = limits


@pytest.mark.parametrize(
    ("given", "swapped"), [(None, SWAPPED_ROWS), (7, 7), (10 * SWAPPED_ROWS, SWAPPED_ROWS)]
)
def test_the_loss_has_the_limits_of_the_answers(given: int | None, swapped: int) -> None:
    data = Data()
    trainer: Any = SimpleNamespace(datamodule=data, callbacks=[])
    module: Any = None
    GenerationEvaluation(dev_rows=5, test_rows=given).setup(trainer, module, "test")
    assert data.limits == {
        "dev": 5,
        "test": given,
        "test_without_anchor": swapped,
        "test_with_anchor": swapped,
    }


@pytest.mark.parametrize(("scored", "limit", "rows"), [(300, 64, 64), (20, 64, 20), (None, 9, 9)])
def test_the_loss_may_be_computed_of_fewer_rows(scored: int | None, limit: int, rows: int) -> None:
    data = Data()
    trainer: Any = SimpleNamespace(datamodule=data, callbacks=[])
    evaluation = GenerationEvaluation(dev_rows=5, test_rows=scored, loss_rows=limit)
    evaluation.setup(trainer, trainer, "test")
    assert (data.limits["dev"], data.limits["test"]) == (5, rows)


def test_a_data_module_without_losses_is_left_alone() -> None:
    plain = SimpleNamespace(seed=1, test_split="test", tokenizer=None, evaluation={})
    trainer: Any = SimpleNamespace(datamodule=plain, callbacks=[])
    GenerationEvaluation().setup(trainer, trainer, "test")
    assert hasattr(TellDataModule, "limit_loss_rows")


@pytest.mark.parametrize(("most", "kept"), [(None, "aabab"), (2, "aabb"), (1, "ab")])
def test_the_first_rows_of_each_source_are_kept(most: int | None, kept: str) -> None:
    rows: Any = [(name, number) for number, name in enumerate("aabab")]
    found = first_of_each(rows, most)
    assert "".join(name for name, _ in found) == kept
    assert found == sorted(found, key=lambda row: row[1])
