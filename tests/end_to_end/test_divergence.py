"""A training whose numbers are infinite or NaN stops, and every file stays strict JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import says
from tiny_runs import Fits, Run, refused

from tell_lightning.cli import main
from tell_lightning.model.module import DivergedError, TellModule

SHORT = ("--eval.test=false", "--eval.before=false", "--eval.dev_rows=1", "--eval.every_steps=1")
CURE = ["model.optimizer.lr", "trainer.gradient_clip_val"]


def strict(text: str) -> Any:
    """Read JSON as everyone else does: NaN and Infinity are none of it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def check_files(folder: Path) -> None:
    files = [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]
    assert folder / "run.json" in files
    for path in files:
        if "wandb" not in path.parts:
            for text in path.read_text("utf-8").splitlines() if path.suffix == ".jsonl" else [""]:
                strict(text or path.read_text("utf-8"))


def test_a_step_that_makes_infinite_adapters_ends_the_run_and_the_last_checkpoint_stays(
    fit: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(*SHORT, "--trainer.max_steps=2", "--run.checkpoint_every_steps=1")
    before = (run.folder / "checkpoints/last.ckpt").read_bytes()
    resume = ("fit", "--resume", str(run.folder), "--trainer.max_steps=4")
    wild = ("--model.optimizer.lr=1e30", "--trainer.gradient_clip_val=null")
    error = refused(capsys, *resume, *wild)
    assert error == says("training", got="adapters that are no numbers at step 3", cure=CURE)
    assert (run.folder / "checkpoints/last.ckpt").read_bytes() == before
    assert run.record["status"] == "failed"
    assert "DivergedError" in run.record["error"]
    check_files(run.folder)
    main([*resume])  # the configuration of the failed session was not kept
    assert (run.record["status"], run.record["steps"]) == ("completed", 4)


class Poisoned(TellModule):
    """A module whose loss or gradient is no number at the third step."""

    what = "loss"

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        third = self.trainer.global_step == 2
        if third and self.what == "loss":
            return loss * torch.nan
        if third:
            loss.register_hook(lambda gradient: gradient * torch.inf)
        return loss


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_the_optimizer_never_takes_a_step_that_is_no_number(
    what: str, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning.pytorch as pl
    import yaml

    from tell_lightning import TellDataModule

    monkeypatch.setattr(Poisoned, "what", what)
    config = yaml.safe_load(world.config.read_text())
    data = TellDataModule(**config["data"], tokenizer=str(world.base))
    module = Poisoned(str(world.base), lora={"rank": 2})
    trainer = pl.Trainer(
        max_steps=5,
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    with pytest.raises(DivergedError) as raised:
        trainer.fit(module, datamodule=data)
    assert str(raised.value) == says("training", got="", cure=["step 3", *CURE])
    assert trainer.global_step == 2
    assert all(bool(p.isfinite().all()) for p in module.parameters())


def test_scores_that_are_no_numbers_are_null_in_every_file(fit: Fits, tmp_path: Path) -> None:
    """A base that computes no numbers: nothing is trained, and everything is scored."""
    from safetensors.torch import load_file, save_file
    from tiny_world import make_world

    world = make_world(tmp_path)
    weights = load_file(world.base / "model.safetensors")
    name = next(key for key in weights if "norm" in key)
    weights[name] = weights[name] * torch.nan
    save_file(weights, world.base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SystemExit):
        Fits(world)("--trainer.max_steps=1", "--eval.test_rows=2", "--eval.dev_rows=2")
    (folder,) = (world.folder / "runs").iterdir()
    check_files(folder)
    losses = Run(folder).record["metrics"]["test"]["before"]["loss_nats_per_token"]
    assert None in losses.values()
    main(["report", str(folder), "--output", str(tmp_path / "page.html")])
