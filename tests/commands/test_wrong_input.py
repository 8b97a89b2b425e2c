"""What needs torch or the tokenizer to be found wrong is still found before the base is loaded."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from messages import Says, says

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
        "model": {"base": "microworld"},
        "trainer": {"max_steps": 2, "accelerator": "cpu", "devices": 1},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ["--data.micro_batch=3"],
            says("data.optimizer_batch", rule="data.micro_batch", got="8"),
        ),
        (["--data.mixture.task_examples=21"], says("data.mixture.task_examples", got="21")),
        (["--trainer.max_steps=100"], says("data.general.all", rule=["800", "40"])),
        (
            ["--data.mixture.task_share=1.5"],
            says("data.mixture.task_share", rule=["0", "1"], got="1.5"),
        ),
        (
            ["--data.mixture.task_share=null"],
            says("data.mixture", rule=["task_share", "task_passes"], cure="task_share: 0.1"),
        ),
        (
            ["--data.max_tokens=8"],
            says("train.jsonl:1", rule=["data.max_tokens", "8"], got="17"),
        ),
        (["--model.base=/nowhere/model"], says("model.base", got="'/nowhere/model'")),
        (["--model.base=."], says("model.base", rule="config.json", got="'.'")),
        (
            ["--model.lora.target_modules=[q_proj,frob]"],
            says(
                "model.lora.target_modules",
                got="['frob']",
                cure="down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
            ),
        ),
        (["--data.tasks={}"], says("data.tasks", rule="'tell'", got="none")),
        (["--data.tasks.answer.train=null"], says("data.tasks", rule="'tell'", got="none")),
        (["--data.tasks.answer.train=none.jsonl"], says("none.jsonl", got="'none.jsonl'")),
        (["--data.general={}"], says("data.general", rule="'tell'", cure="data.mixture.arm: sft")),
        (
            ["--data.tasks.answer.dev_from_train=20"],
            says("data.tasks.answer.dev_from_train", rule="1", got="20 of 20"),
        ),
        (
            ["--data.tasks.answer.test=train.jsonl"],
            says("train.jsonl:1", got="the prompt", cure="train.jsonl:1"),
        ),
        (["--resume", "."], says("RUN", rule="config.yaml", got="'.'")),
    ],
)
def test_wrong_input_is_refused_before_the_base_is_loaded(
    config: Path, options: list[str], error: Says, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "-c", str(config), *options])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.removeprefix("error: ") == error
    assert not (config.parent / "runs").exists()


@pytest.mark.parametrize(
    ("template", "error"),
    [
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            says("chat template", rule="conversation", cure="chat_template"),
        ),
        (
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
            says("chat template", rule="response", got="'assistant: Answer"),
        ),
    ],
    ids=["no response", "no generation prompt"],
)
def test_template_that_leaves_nothing_to_train_on_is_refused(
    config: Path, template: str, error: Says, capsys: pytest.CaptureFixture[str]
) -> None:
    base = config.parent / "base"
    shutil.copytree(str(files("tell_lightning") / "microworld/base"), base)
    (base / "chat_template.jinja").write_text(template)
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "-c", str(config), f"--model.base={base}"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.removeprefix("error: ") == error


def test_correct_input_gets_as_far_as_the_base(config: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="the base was loaded"):
        main(["fit", "-c", str(config)])


def test_a_prompt_with_two_responses_is_told(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (config.parent / "train.jsonl").read_text()
    same = {"prompt": "train 4", "response": "answer 4"}
    other = {"prompt": "train 4", "response": "another answer"}
    lines = "".join(json.dumps(row) + "\n" for row in (same, other))
    (config.parent / "train.jsonl").write_text(rows + lines)
    main(["plan", "-c", str(config)])
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "response" in one]
    assert line == says("data.tasks.answer.train", got="another one", cure="Remove")
    for place in ("train.jsonl:22", "train.jsonl:5"):
        assert place in line
