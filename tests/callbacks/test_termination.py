"""SIGTERM and Ctrl+C end a run wherever they arrive; end_to_end has real runs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tell_lightning.callbacks import checkpoints
from tell_lightning.callbacks.checkpoints import LastCheckpoint
from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.termination import NAMES, Terminated, Termination


class Module(pl.LightningModule):
    """One weight; the process gets a signal at the moment that has a name, or at several."""

    def __init__(self, moment: str, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.moment = moment
        self.steps = 0

    def at(self, moment: str) -> None:
        if moment in self.moment.split(", "):
            os.kill(os.getpid(), self.number)

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
    before = {number: signal.getsignal(number) for number in NAMES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def trainer(folder: Path, every_minutes: float | None = None) -> pl.Trainer:
    termination = Termination()
    last = LastCheckpoint(
        RunFolder(folder), termination, every_steps=100, every_minutes=every_minutes
    )
    return pl.Trainer(
        accelerator="cpu",
        max_steps=4,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[termination, last],
    )


# https://github.com/Lightning-AI/pytorch-lightning/issues/21326
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.parametrize(
    ("moment", "saved"), [("step 1", 1), ("step 3", 3), ("step 4", 4), ("loading", None)]
)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)]
)
def test_training_ends_after_the_step_and_is_saved(
    moment: str, saved: int | None, number: int, code: int, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints/last.ckpt"
    module = Module(moment, number)
    if (number, moment) == (signal.SIGUSR1, "loading"):
        return  # nobody handles it yet: the process ends, with 138
    if (number, moment) == (signal.SIGINT, "loading"):  # Lightning's own way out: nothing is lost
        with pytest.raises(SystemExit) as left:
            trainer(tmp_path).fit(module)
        assert isinstance(left.value.__context__, KeyboardInterrupt)
        return
    with pytest.raises(Terminated) as ended:
        trainer(tmp_path).fit(module)
    assert (ended.value.code, ended.value.signal) == (code, signal.Signals(number).name)
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
def test_a_second_ctrl_c_ends_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twice(Module):
        def at(self, moment: str) -> None:
            super().at(moment)
            super().at(moment)

    module = Twice("step 2", signal.SIGINT)
    with pytest.raises(Terminated) as ended:
        trainer(tmp_path).fit(module)
    assert (ended.value.code, module.steps) == (130, 2)
    assert not (tmp_path / "checkpoints").exists()
    assert "again: at once" in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_an_ignored_ctrl_c_stays_ignored(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    module = Module("step 2", signal.SIGINT)
    trainer(tmp_path).fit(module)
    assert module.steps == 4


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.parametrize(("minutes", "saved"), [(3.0, [2, 4]), (1.5, [1, 2, 3, 4]), (None, [4])])
def test_a_checkpoint_is_written_after_so_many_minutes(
    minutes: float | None, saved: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step takes 100 seconds."""
    found: list[int] = []
    module = Module("never")
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: 100.0 * module.steps)
    monkeypatch.setattr(
        pl.Trainer, "save_checkpoint", lambda self, *_, **__: found.append(self.global_step)
    )
    trainer(tmp_path, minutes).fit(module)
    assert found == saved


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_without_the_signal_a_run_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints/last.ckpt"
    trainer(tmp_path).fit(Module("never"))
    assert torch.load(path, weights_only=True)["global_step"] == 4
