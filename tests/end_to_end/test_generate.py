"""General rows that the base writes itself, from the configuration to the run folder."""

import json
from pathlib import Path

import pytest
import yaml
from messages import says

from tell_lightning.cli import main
from tell_lightning.generation import instructions

ROWS = 10
KEY = "data.general.self"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small task on the microworld's base, whose general rows are its own."""
    folder = tmp_path_factory.mktemp("own")
    train = [{"prompt": f"Count {n}.", "response": "one"} for n in range(4)]
    # The base writes this prompt, too.
    test = [{"prompt": "What is JSON?", "response": "one"}]
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "run": {"dir": str(folder / "runs")},
        "data": {
            "root": str(folder),
            "cache_dir": str(folder / "cache"),
            "tasks": {"count": {"train": "train.jsonl", "test": "test.jsonl", "max_new_tokens": 4}},
            "general": {"self": {"generate": ROWS}},
            "mixture": {"task_share": 0.25, "general_repeat": True},
            "optimizer_batch": 4,
            "micro_batch": 4,
        },
        "model": {"base": "microworld", "lora": {"rank": 2}},
        "trainer": {"max_steps": 2, "log_every_n_steps": 1, "accelerator": "cpu"},
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setitem(instructions.BLOCK, "cpu", 8)


def test_a_run_mixes_in_the_rows_that_the_plan_shows(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ["-c", str(home / "own.yaml")]
    main(["plan", *config, "--show", "3"])
    shown = capsys.readouterr().out
    (folder,) = (home / "cache").glob("instructions-*")
    assert f"self: {ROWS} rows that the base wrote itself" in shown
    assert str(folder / f"rows-{ROWS}.jsonl") in shown
    assert "self: 1 leaks" in shown
    rows = [json.loads(x) for x in (folder / f"train-{ROWS}.jsonl").read_text().splitlines()]
    assert any(f"<|user|>\n{row['prompt']}<|end|>" in shown for row in rows)
    assert "What is JSON?" in {row["prompt"] for row in rows}

    monkeypatch.setattr(instructions, "load_base", lambda *_: pytest.fail("written again"))
    main(["fit", *config])
    (run,) = (home / "runs").iterdir()
    plan = json.loads((run / "plan.json").read_text())
    counts = plan["inputs"]["self"]["counts"]
    assert (counts["read"], counts["leaks"], counts["kept"]) == (ROWS // 2, 1, ROWS // 2 - 1)
    metrics = json.loads((run / "run.json").read_text())["metrics"]
    assert metrics["test"]["after"]["loss_nats_per_token"]["self"] > 0
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["data"]["general"]["self"]["generate"] == ROWS
    assert saved["data"]["general"]["self"]["train"] is None


@pytest.mark.long
def test_a_run_goes_on_and_is_tested_with_the_same_rows(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ["-c", str(home / "own.yaml"), f"--run.dir={tmp_path}"]
    main(["prepare", *config])
    assert f"self: {ROWS} rows that the base wrote itself" in capsys.readouterr().out
    monkeypatch.setattr(instructions, "load_base", lambda *_: pytest.fail("written again"))
    main(["plan", *config, "--measure"])
    assert "Answers may end sooner" in capsys.readouterr().out
    main(["fit", *config])
    (run,) = tmp_path.iterdir()
    main(["test", str(run)])
    main(["fit", "--resume", str(run), "--trainer.max_steps=3"])
    assert json.loads((run / "run.json").read_text())["steps"] == 3


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 2
    return capsys.readouterr().err.removeprefix("error: ")


MISTAKES = [
    (["--data.general.self.train=train.jsonl"], says(KEY, got="both", cure="one of the two")),
    (["--data.general.self.generate=0"], says(f"{KEY}.generate", rule="at least 1", got="0")),
    (["--data.general.self.generate=null"], says(KEY, got="neither")),
    (["--data.general.self.fields.prompt=x"], says(f"{KEY}.fields", got="prompt: x")),
    (["--data.tasks.count.train=none.jsonl"], says("none.jsonl", rule="exist", got="'none.jsonl'")),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_mistakes_are_told_before_the_base_writes(
    options: list[str],
    message: str,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instructions, "write_rows", lambda *_: pytest.fail("rows were written"))
    assert error_of(capsys, "fit", "-c", str(home / "own.yaml"), *options) == message
