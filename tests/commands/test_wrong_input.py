"""What needs torch or the tokenizer to be found wrong is still found before the base is loaded."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from tell_lightning.cli import main


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small correct data on the embedded base, whose weights must not be asked for."""

    def refuse(*_: object) -> None:
        pytest.fail("the base was loaded")

    monkeypatch.setattr("tell_lightning.model.module.load_base", refuse)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for name, count in (("train", 20), ("test", 5), ("general", 100)):
        rows = [{"prompt": f"{name} {n}", "response": f"answer {n}"} for n in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    task = {"train": "train.jsonl", "test": "test.jsonl", "anchor": {"text": "Answer."}}
    data = {
        "root": str(tmp_path),
        "cache_dir": str(tmp_path / "cache"),
        "tasks": {"answer": task},
        "general": {"all": {"train": "general.jsonl"}},
        "mixture": {"task_share": 0.5, "task_examples": 10},
        "optimizer_batch": 8,
        "micro_batch": 4,
    }
    path = tmp_path / "config.yaml"
    settings = {
        "run": {"dir": str(tmp_path / "runs")},
        "data": data,
        "trainer": {"max_steps": 2, "accelerator": "cpu", "devices": 1},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--data.micro_batch=3"], "data.optimizer_batch: must be a multiple of data.micro_batch"),
        (["--data.mixture.task_examples=21"], "data.mixture.task_examples: "),
        (["--trainer.max_steps=100"], "data.general.all: 800 training examples, which is 40"),
        (["--data.mixture.task_share=1.5"], "data.mixture.task_share: must lie between 0 and 1"),
        (["--data.mixture.task_share=null"], "data.mixture: needs task_share, task_passes or both"),
        (
            ["--data.max_tokens=8"],
            "train.jsonl:1: an example must fit data.max_tokens 8, got 17 tokens.",
        ),
        (["--model.base=/nowhere/model"], "model.base: no such folder, got '/nowhere/model'"),
        (["--model.base=."], "model.base: a model folder holds config.json, got '.' without it"),
        (
            ["--model.lora.target_modules=[q_proj,frob]"],
            "model.lora.target_modules: every name must be a linear layer of the base model, got "
            "['frob']. Choose from: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
        ),
        (["--data.tasks={}"], "data.tasks: arm 'tell' trains on tasks, got none"),
        (["--data.tasks.answer.train=null"], "data.tasks: arm 'tell' trains on tasks, got none"),
        (["--data.tasks.answer.train=none.jsonl"], "none.jsonl: the file or folder must exist, "),
        (["--data.general={}"], "data.general: arm 'tell' "),
        (
            ["--data.tasks.answer.dev_from_train=20"],
            "data.tasks.answer.dev_from_train: must be at least 1 and leave a row to train on, "
            "got 20 of 20",
        ),
        (
            ["--data.tasks.answer.test=train.jsonl"],
            "train.jsonl:1: a held-out row must not be among the task's training rows, got the "
            "prompt of",
        ),
        (["--resume", "."], "RUN: must be the folder of a run, with config.yaml in it, got '.'"),
    ],
)
def test_wrong_input_is_refused_before_the_base_is_loaded(
    config: Path, options: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "-c", str(config), *options])
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines
    assert error in lines[0]
    assert ", got " in lines[0]
    assert not (config.parent / "runs").exists()


@pytest.mark.parametrize(
    ("template", "error"),
    [
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            "chat template: the chat template must render the conversation, got: no assistant text "
            "in the result. Give the tokenizer another chat_template",
        ),
        (
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
            "chat template: the chat template must write the response unchanged behind the "
            "generation prompt, got 'assistant: Answer",
        ),
    ],
    ids=["no response", "no generation prompt"],
)
def test_template_that_leaves_nothing_to_train_on_is_refused(
    config: Path, template: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = config.parent / "base"
    shutil.copytree(str(files("tell_lightning") / "microworld/base"), base)
    (base / "chat_template.jinja").write_text(template)
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "-c", str(config), f"--model.base={base}"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {error}")


def test_correct_input_gets_as_far_as_the_base(config: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="the base was loaded"):
        main(["fit", "-c", str(config)])
