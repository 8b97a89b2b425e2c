"""The best adapter and the end by patience, over scores and losses that are given."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tell_lightning.callbacks.evaluation import GenerationEvaluation, Scored
from tell_lightning.callbacks.selection import BestCheckpoint, Patience, described, selected_from
from tell_lightning.metrics.score import Scores

Scorings = list[tuple[float, float]]
"""Dev score and dev loss of each step."""


class Module(pl.LightningModule):
    """One weight; after each step it is scored as `scorings` say."""

    def __init__(self, scorings: Scorings, evaluation: GenerationEvaluation) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.scorings, self.evaluation = scorings, evaluation

    def train_dataloader(self) -> Iterable[float]:
        return [1.0] * len(self.scorings)

    val_dataloader = train_dataloader

    def training_step(self, batch: float, index: int) -> torch.Tensor:
        return self.weight * batch

    def validation_step(self, batch: float, index: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        step = self.trainer.global_step
        score, loss = self.scorings[step - 1]
        found = Scores(values={"exact_match": score}, primary="exact_match")
        self.evaluation.history.append(Scored("dev", step, True, {"task": found}, {"task": loss}))
        self.log("val/score", score)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(
    folder: Path, scorings: Scorings, patience: int = 99
) -> tuple[BestCheckpoint, Patience, GenerationEvaluation, pl.Trainer]:
    evaluation = GenerationEvaluation()
    best, stop = BestCheckpoint(folder, evaluation), Patience(patience, evaluation)
    stop._check_on_train_epoch_end = False
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=len(scorings),
        val_check_interval=1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[stop, best],
    )
    trainer.fit(Module(scorings, evaluation))
    return best, stop, evaluation, trainer


pytestmark = [
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def step_of(best: BestCheckpoint) -> int:
    return int(torch.load(best.best_model_path, weights_only=True)["global_step"])


@pytest.mark.parametrize(
    ("scorings", "kept"),
    [
        ([(0.0, 7.4), (0.0, 5.0), (0.0, 3.0), (0.0, 3.1)], 3),  # tied: the lowest loss
        ([(0.2, 3.0), (0.1, 1.0), (0.2, 2.0)], 3),
        ([(0.2, 3.0), (0.3, 4.0), (0.2, 1.0)], 2),  # a better score wins over any loss
        ([(0.2, 3.0), (0.2, 3.0)], 1),  # nothing is better: the first
        ([(0.2, float("inf")), (0.2, float("inf"))], 1),  # no loss is known
    ],
)
def test_of_equal_scores_the_lower_dev_loss_is_kept(
    scorings: Scorings, kept: int, tmp_path: Path
) -> None:
    best, _, evaluation, _ = trained(tmp_path, scorings)
    assert step_of(best) == kept
    score = scorings[kept - 1][0]
    found = selected_from(evaluation, kept)
    assert found["tied_steps"] == [n for n, each in enumerate(scorings, 1) if each[0] == score]


def test_a_broken_tie_is_told(tmp_path: Path) -> None:
    best, _, evaluation, _ = trained(tmp_path, [(0.0, 7.4), (0.0, 3.0)])
    chosen = {"by": "best dev score", "step": step_of(best)} | selected_from(evaluation, 2)
    for part in ("of step 2", "1, 2", "lowest dev loss", "3.000"):
        assert part in described(chosen)
    assert "loss" not in described({"by": "best dev score", "step": 2, "tied_steps": [2]})


@pytest.mark.parametrize(
    ("scorings", "steps"),
    [
        ([(0.0, 7.0), (0.0, 6.0), (0.0, 5.0), (0.0, 4.0)], 4),  # the loss falls: no stop
        ([(0.3, 7.0), (0.2, 6.0), (0.1, 5.0), (0.0, 4.0)], 4),
        ([(0.0, 4.0), (0.0, 5.0), (0.0, 4.0), (0.0, 3.0)], 3),  # equal is not lower
        ([(0.0, 4.0), (0.1, 5.0), (0.1, 5.0), (0.1, 5.0)], 4),  # out of patience at the last step
        ([(0.0, 4.0), (0.0, 5.0), (0.1, 5.0), (0.1, 5.0), (0.1, 4.5), (0.2, 1.0)], 5),
    ],
)
def test_patience_counts_a_better_loss(
    scorings: Scorings, steps: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        _, stop, _, trainer = trained(tmp_path, scorings, patience=2)
    assert trainer.global_step == steps
    told = [line for line in caplog.messages if line.startswith("Stopped at step")]
    assert len(told) == (steps < len(scorings))
    for line in told:
        assert stop.stopped
        for part in (f"step {steps} of {len(scorings)}", "eval.patience: 2", "null"):
            assert part in line
