"""A run of which only the base and the data are said: its numbers follow, and stay."""

import json
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import yaml
from tiny_runs import Run
from tiny_world import World

from tell_lightning import TellDataModule, TellModule
from tell_lightning.cli import main
from tell_lightning.commands.check import check
from tell_lightning.model import rate


@pytest.fixture(scope="module")
def options(world: World) -> dict[str, Any]:
    """The tiny world's configuration, without length, rate and batch."""
    config = yaml.safe_load(world.config.read_text(encoding="utf-8"))
    del config["trainer"]["max_steps"], config["model"]["optimizer"], config["eval"]
    del config["data"]["optimizer_batch"], config["data"]["micro_batch"]
    return config


def written(options: dict[str, Any], folder: Path) -> list[str]:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**options, "run": {"dir": str(folder / "runs")}}))
    return ["-c", str(path)]


def test_the_plan_says_what_follows_and_why(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plan", *written(options, tmp_path)])
    out, err = capsys.readouterr()
    assert re.search(
        r"^24 steps: as far as the general rows last without repeats; .+\.$", out, re.M
    )
    assert re.search(r"^lr 0\.?\d*|lr \d\.?\d*e-\d: auto, a Llama of width 32; ", out, re.M)
    assert "note: trainer.max_steps: a run should have 100 updates or more, got 24. " in err


def test_the_run_keeps_the_numbers(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--eval.test=false", "--eval.before=false", "--eval.dev_rows=1"]
    main(["fit", *written(options, tmp_path), *few])
    (folder,) = (tmp_path / "runs").iterdir()
    run = Run(folder)
    value = rate.by_width(32, "llama")
    saved = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert saved["trainer"]["max_steps"] == run.record["steps"] == 24
    assert saved["model"]["optimizer"]["lr"] == value
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    facts = {"value": value, "why": "auto, a Llama of width 32", "warmup_steps": 1}
    assert plan["learning_rate"] == run.record["learning_rate"] == facts
    monkeypatch.setattr(rate, "FACTOR", 0.1)
    assert check(["-c", str(folder / "config.yaml")]).model.optimizer.lr == value
    module = TellModule.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert module.settings.optimizer.lr == value
    more = ["--trainer.max_steps=25", "--data.mixture.general_repeat=true"]
    main(["fit", "--resume", str(folder), *more, *few])
    assert Run(folder).record["learning_rate"] == facts


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
def test_a_module_in_python_finds_its_rate(options: dict[str, Any], tmp_path: Path) -> None:
    base = options["model"]["base"]
    data = TellDataModule(**{**options["data"], "cache_dir": str(tmp_path)}, tokenizer=base, seed=1)
    module = TellModule(base)
    assert module.settings.optimizer.lr == "auto"
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert module.hparams["optimizer"]["lr"] == rate.by_width(32, "llama")
