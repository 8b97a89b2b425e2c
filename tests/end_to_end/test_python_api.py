"""The parts work from Python with a plain Trainer, and give what the command line gives."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import python_api
import torch
import wandb
import yaml
from tiny_runs import environment
from tiny_world import World

import tell_lightning
from tell_lightning import (
    Batch,
    GenerationEvaluation,
    Item,
    LoraSettings,
    Task,
    TellDataModule,
    TellModule,
    collate,
)
from tell_lightning.callbacks.evaluation import EvaluationError
from tell_lightning.cli import main
from tell_lightning.generation.answer import answer_rows
from tell_lightning.generation.batched import Budget
from tell_lightning.model.settings import ModelSettings
from tell_lightning.settings import ConfigError

STEPS, ROWS = python_api.STEPS, python_api.ROWS
OPTIONS = [
    f"--trainer.max_steps={STEPS}",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    f"--eval.every_steps={STEPS}",
    f"--eval.dev_rows={ROWS}",
    f"--eval.test_rows={ROWS}",
    "--eval.before=false",
    "--eval.anchor_check=false",
]


def adapter_digest(folder: Path) -> str:
    return sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def command_line(folder: Path, *options: str) -> Path:
    """Run `fit` on the embedded default in a process of its own; return the run's folder."""
    command = [sys.executable, "-m", "tell_lightning", "fit", *OPTIONS, *options]
    done = subprocess.run(
        [*command, f"--run.dir={folder / 'runs'}"],
        env=environment(Path.home()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    return run


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder of the command line."""
    return command_line(tmp_path_factory.mktemp("command"))


@pytest.fixture(scope="module")
def by_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """The folder of the same run from Python, and its Trainer, module and data module."""
    folder = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        trained = python_api.train(folder)
        wandb.finish()  # otherwise other tests of this process would go on with this run of W&B
        wandb.teardown()
        yield folder, trained


# Lightning says so of any short run.
few_batches = pytest.mark.filterwarnings("ignore:The number of training batches")
# W&B warns of an argument that Lightning passes.
pytestmark = [few_batches, pytest.mark.filterwarnings("ignore:.*anonymous.*")]


def test_the_adapter_is_that_of_the_command_line_bit_for_bit(
    by_command: Path, by_python: tuple[Path, Any]
) -> None:
    folder, (trainer, _, _) = by_python
    assert adapter_digest(folder / "adapter") == adapter_digest(by_command / "adapter")
    scores = json.loads((by_command / "run.json").read_text())["metrics"]["test"]["after"]
    for task, values in scores["tasks"].items():
        for name, value in values["values"].items():
            logged = float(trainer.callback_metrics[f"test/{task}/{name}"])
            assert logged == pytest.approx(value, rel=1e-6), (task, name)
        ours = folder / f"predictions/test-{task}-step-{STEPS:06d}.jsonl"
        theirs = by_command / "predictions" / ours.name
        assert ours.read_text() == theirs.read_text()


def test_every_logger_has_the_numbers(by_python: tuple[Path, Any]) -> None:
    folder, _ = by_python
    with (folder / "csv/lightning_logs/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {name for row in rows for name, value in row.items() if value}
    wanted = {"train/loss", "train/loss/translate", "val/score", "val/translate/bleu"}
    assert wanted | {"val/loss/instructions", "test/judge/balanced_accuracy"} <= names
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert list((folder / "tensorboard").rglob("events.out.tfevents.*"))
    hparams = (folder / "csv/lightning_logs/version_0/hparams.yaml").read_text()
    assert "base: microworld" in hparams
    assert "task_share: 0.2" in hparams


def test_a_loaded_checkpoint_answers_as_predict_does(
    by_command: Path, by_python: tuple[Path, Any], tmp_path: Path
) -> None:
    _, (_, trained, data) = by_python
    loaded = TellModule.load_from_checkpoint(by_command / "checkpoints/best.ckpt")
    assert loaded.settings == trained.settings
    assert (loaded.seed, loaded.trained_steps) == (42, STEPS)
    for name, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    rows = data.evaluation["test"]["translate"]
    budget = Budget(16384)
    answers = answer_rows(loaded.model, data.tokenizer, rows, budget=budget, most=ROWS)
    prompts = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"prompt": r.turns[0].content}) for r in rows.records[:ROWS]]
    prompts.write_text("\n".join(lines))
    output = tmp_path / "answers.jsonl"
    options = ["--task", "translate", "--input", str(prompts), "--output", str(output)]
    main(["predict", "--run", str(by_command), *options])
    predicted = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["prediction"] for line in predicted] == [each.prediction for each in answers]
    assert len({line["prediction"] for line in predicted}) > 1


@pytest.mark.long
@pytest.mark.ddp
def test_two_processes_give_every_row_once_and_the_adapter_of_the_command_line(
    tmp_path: Path,
) -> None:
    script = [sys.executable, python_api.__file__, str(tmp_path), "2"]
    env = environment(Path.home(), WANDB_MODE="offline", WANDB_SILENT="true")
    done = subprocess.run(script, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = command_line(tmp_path, "--trainer.devices=2", "--trainer.strategy=ddp")
    assert adapter_digest(tmp_path / "adapter") == adapter_digest(run / "adapter")
    for ours in (tmp_path / "predictions").iterdir():
        assert ours.read_text() == (run / "predictions" / ours.name).read_text()
        ids = [json.loads(line)["id"] for line in ours.read_text().splitlines()]
        assert len(ids) == len(set(ids)) == ROWS


# Parts


def plain_trainer(**options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", devices=1, enable_checkpointing=False, **quiet, **options)


@pytest.fixture
def tiny(world: World) -> dict[str, Any]:
    """Base, data and mixture of the tiny world."""
    config = yaml.safe_load(world.config.read_text())
    return {"data": config["data"], "base": config["model"]["base"]}


class MyLoader:
    """A loader as somebody else may write one."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def test_batches_of_somebody_else_are_trained_on(tiny: dict[str, Any]) -> None:
    names = ("mine", "yours")
    items = [Item([5, 6, 7, 8], [False, False, True, True], n % 2, n, n) for n in range(6)]
    batches = MyLoader([collate([[item] for item in items[n : n + 2]], names) for n in (0, 2, 4)])
    module = TellModule(tiny["base"], lora={"rank": 2})
    trainer = plain_trainer(max_epochs=2, log_every_n_steps=1)
    trainer.fit(module, train_dataloaders=batches, val_dataloaders=batches)
    assert trainer.global_step == 6
    assert {"train/loss/mine", "train/loss/yours"} <= set(trainer.callback_metrics)
    assert module.trained_steps == 6


def test_generation_without_rows_to_generate_for_is_refused(tiny: dict[str, Any]) -> None:
    trainer = plain_trainer(max_steps=1, callbacks=[GenerationEvaluation()])
    with pytest.raises(EvaluationError, match=r"^GenerationEvaluation: .* got NoneType\. Pass"):
        trainer.validate(TellModule(tiny["base"]), dataloaders=MyLoader([]))


def test_a_limit_on_validation_and_on_nothing_else(tiny: dict[str, Any]) -> None:
    evaluation = GenerationEvaluation(dev_rows=2)
    data = TellDataModule(**tiny["data"], tokenizer=tiny["base"])
    trainer = plain_trainer(max_epochs=1, limit_val_batches=1, callbacks=[evaluation])
    trainer.fit(TellModule(tiny["base"]), datamodule=data)
    (scored,) = evaluation.history
    assert scored.split == "dev"
    assert scored.adapter
    assert {task: scores.values["rows"] for task, scores in scored.tasks.items()} == {
        "turn": 2.0,
        "verdict": 2.0,
    }
    assert scored.losses


def test_test_from_a_checkpoint_has_its_adapter_and_keeps_its_history(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    data = TellDataModule(**tiny["data"], tokenizer=tiny["base"])
    trained = TellModule(tiny["base"], optimizer={"lr": 0.1})
    evaluation = GenerationEvaluation()
    trainer = plain_trainer(max_steps=2, callbacks=[evaluation])
    trainer.fit(trained, datamodule=data)
    trainer.save_checkpoint(tmp_path / "2.ckpt")
    module, again = TellModule(tiny["base"]), GenerationEvaluation()
    tester = plain_trainer(callbacks=[again])
    tester.test(module, datamodule=data, ckpt_path=tmp_path / "2.ckpt", verbose=False)
    assert [scored.split for scored in again.history] == ["dev", "test"]
    assert again.history[0] == evaluation.history[0]
    assert module.trained_steps == 2
    for name, value in trained.state_dict().items():
        assert torch.equal(module.state_dict()[name], value)


def test_settings_may_be_dictionaries_and_mistakes_are_named(tiny: dict[str, Any]) -> None:
    made = TellModule(tiny["base"], lora={"rank": 3}, optimizer={"lr": 0.1})
    assert made.settings.lora == LoraSettings(rank=3)
    with pytest.raises(ConfigError, match=r"^model\.lora\.rnk: .* Did you mean 'rank'\?"):
        TellModule(tiny["base"], lora={"rnk": 3})
    with pytest.raises(
        ConfigError, match=r"^model\.optimizer\.lr: must be float or .*auto.*, got fast"
    ):
        TellModule(tiny["base"], optimizer={"lr": "fast"})
    with pytest.raises(ConfigError, match=r"^eval\.dev_rows: must be at least 1, got 0"):
        GenerationEvaluation(dev_rows=0)


def test_the_constructor_of_the_module_takes_what_the_section_has() -> None:
    made = signature(TellModule.__init__).parameters
    section = {field.name: field.default for field in fields(ModelSettings)}
    assert set(made) - {"self", "seed", "adapter"} == set(section)
    for name in set(section) - {"base"}:
        assert made[name].default == section[name], name


def test_every_public_name_is_there_and_documented() -> None:
    for name in tell_lightning.__all__:
        found = getattr(tell_lightning, name)
        assert name == "__version__" or found.__doc__, name
    assert Task is tell_lightning.Task
    with pytest.raises(AttributeError, match="no attribute 'Tusk'"):
        _ = tell_lightning.Tusk


def test_what_the_environment_needs_is_left_alone() -> None:
    """Importing the parts sets no variable and changes no global state of torch."""
    before = "import os, torch; before = dict(os.environ), torch.get_default_dtype()"
    after = "assert (dict(os.environ), torch.get_default_dtype()) == before"
    code = f"{before}; from tell_lightning import TellDataModule, TellModule; {after}"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
