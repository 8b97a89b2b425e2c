"""SIGTERM ends a run with 143 wherever it arrives; end_to_end has real runs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tell_lightning.callbacks.checkpoints import LastCheckpoint
from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.termination import Terminated, Termination


class Module(pl.LightningModule):
    """One weight; the process gets SIGTERM at the moment that has a name."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.moment = moment
        self.steps = 0

    def at(self, moment: str) -> None:
        if moment == self.moment:
            os.kill(os.getpid(), signal.SIGTERM)

    def train_dataloader(self) -> list[int]:
        self.at("loading")
        return [1] * 4

    def test_dataloader(self) -> list[int]:
        self.at("loading")
        return [1]

    def training_step(self, batch: int, index: int) -> torch.Tensor:
        self.steps += 1
        self.at(f"step {self.steps}")
        return self.weight * batch

    def test_step(self, batch: int, index: int) -> None:
        self.at("testing")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def trainer(folder: Path) -> pl.Trainer:
    termination = Termination()
    return pl.Trainer(
        accelerator="cpu",
        max_steps=4,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[termination, LastCheckpoint(RunFolder(folder), 100, termination)],
    )


# https://github.com/Lightning-AI/pytorch-lightning/issues/21326
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.parametrize(
    ("moment", "saved"), [("loading", None), ("step 1", 1), ("step 3", 3), ("step 4", 4)]
)
def test_training_ends_after_the_step_and_is_saved(
    moment: str, saved: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints/last.ckpt"
    module = Module(moment)
    with pytest.raises(Terminated) as ended:
        trainer(tmp_path).fit(module)
    assert ended.value.code == 143
    assert module.steps == (saved or 0)
    assert path.is_file() == (saved is not None)
    if saved is not None:
        assert torch.load(path, weights_only=True)["global_step"] == saved


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.parametrize("moment", ["loading", "testing"])
def test_scoring_ends_at_once(moment: str, tmp_path: Path) -> None:
    with pytest.raises(Terminated) as ended:
        trainer(tmp_path).test(Module(moment), verbose=False)
    assert ended.value.code == 143


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_without_the_signal_a_run_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints/last.ckpt"
    trainer(tmp_path).fit(Module("never"))
    assert torch.load(path, weights_only=True)["global_step"] == 4
