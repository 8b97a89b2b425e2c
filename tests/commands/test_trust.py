"""Code that somebody else's run names runs only if the user says so."""

import json
from pathlib import Path

import pytest
import yaml
from messages import says

from tell_lightning.cli import main
from tell_lightning.commands.check import check
from tell_lightning.commands.trust import check_trust, model_code, scoring_code, trainer_code
from tell_lightning.data.anchors import Anchor
from tell_lightning.export.anchor_file import AnchorFile, TaskPrompt
from tell_lightning.settings import ConfigError

ROW = '{"id": "1", "prediction": "a", "reference": "a", "task": "t"}\n'


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder whose configuration names a file that leaves a trace when it is run."""
    monkeypatch.chdir(tmp_path)
    code = "open('ran', 'w').close()\nclass Kind: pass\ndef score(*_): return {}\n"
    (tmp_path / "evil.py").write_text(code)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "response": "a"}\n')
    folder = tmp_path / "run"
    (folder / "predictions").mkdir(parents=True)
    (folder / "adapter").mkdir()
    for name in ("test-t-base", "test-t-step-000001"):
        (folder / "predictions" / f"{name}.jsonl").write_text(ROW)
    (folder / "run.json").write_text("{}")
    anchors = AnchorFile("microworld", None, "given", "", {"t": TaskPrompt(Anchor(), 5)}).to_json()
    anchors["tasks"]["t"]["scoring"] = {"kind": "evil.py:Kind"}
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / "adapter" / name).write_text("{}")
    (folder / "adapter" / "anchor.json").write_text(json.dumps(anchors))
    return folder


def write(run: Path, **sections: object) -> None:
    task = {"dev": "rows.jsonl", "test": "rows.jsonl", "scoring": sections.pop("scoring", {})}
    values = {
        "data": {"root": str(run.parent), "tasks": {"t": task}},
        "model": {"base": "microworld", "trust_remote_code": sections.pop("remote", False)},
        "trainer": {"max_steps": 1, **sections},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(values))


COMMANDS = {
    "test": ["test", "run"],
    "validate": ["validate", "run"],
    "predict": ["predict", "--run", "run", "--input", "rows.jsonl"],
    "compare": [
        "compare",
        "run/predictions/test-t-base.jsonl",
        "run/predictions/test-t-step-000001.jsonl",
    ],
    "report": ["report", "run"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_kind_of_a_run_is_named_and_not_run(
    command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(run, scoring={"kind": "evil.py:Kind"})
    with pytest.raises(SystemExit) as stop:
        main(COMMANDS[command])
    assert stop.value.code == 2
    error = capsys.readouterr().err.removeprefix("error: ")
    where = "test-t-base.jsonl" if command == "compare" else "run"
    name = "NAME" if command == "compare" else "t"
    assert error == says(where, got=f"data.tasks.{name}.scoring.kind: evil.py:Kind", cure="--trust")
    assert not (run.parent / "ran").exists()


def test_an_adapter_folder_alone_runs_no_code_that_it_names(run: Path) -> None:
    with pytest.raises(SystemExit):  # its weights are none
        main(["predict", "--adapter", "run/adapter", "--input", "rows.jsonl"])
    assert not (run.parent / "ran").exists()


def test_trust_lets_it_run(run: Path) -> None:
    write(run, scoring={"kind": "evil.py:Kind"})
    with pytest.raises(SystemExit):  # it is no scoring kind
        main([*COMMANDS["compare"], "--trust"])
    assert (run.parent / "ran").exists()


@pytest.mark.parametrize(
    ("sections", "key", "code"),
    [
        (
            {"scoring": {"function": "evil.py:score"}},
            "data.tasks.t.scoring.function",
            "evil.py:sco",
        ),
        ({"callbacks": [{"class_path": "evil.Call"}]}, "trainer.callbacks.0", "evil.Call"),
        (
            {
                "logger": {
                    "class_path": "lightning.pytorch.loggers.CSVLogger",
                    "init_args": {"x": {"class_path": "evil.X"}},
                }
            },
            "trainer.logger.init_args.x",
            "evil.X",
        ),
        ({"remote": True}, "model.trust_remote_code", "microworld"),
    ],
)
def test_every_kind_of_code_is_named(
    sections: dict[str, object],
    key: str,
    code: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(run, **sections)
    with pytest.raises(SystemExit):
        main(COMMANDS["test"])
    error = capsys.readouterr().err.removeprefix("error: ")
    assert f"got {key}: {code}" in error
    assert not (run.parent / "ran").exists()


def test_what_the_user_gives_now_needs_no_word_more(run: Path) -> None:
    write(run, scoring={"kind": "torchmetrics.text.WordErrorRate"})
    saved, typed = ["-c", "run/config.yaml"], ["--data.tasks.t.scoring.function=evil.py:score"]
    values = check([*saved, *typed]).values
    code = scoring_code(values, "kind", "function") | model_code(values) | trainer_code(values)
    assert code == {"data.tasks.t.scoring.function": "evil.py:score"}
    check_trust(run, code, typed)
    mine = run.parent / "mine.yaml"
    mine.write_text("data: {tasks: {t: {scoring: {function: 'evil.py:score'}}}}")
    check_trust(run, code, ["-c", str(mine)])
    with pytest.raises(ConfigError):
        check_trust(run, code, ["--run.name=x"])


def test_a_shipped_configuration_may_be_given_too(run: Path) -> None:
    check_trust(run, {}, ["-c", "microworld"])
    with pytest.raises(ConfigError, match="must be trusted"):
        check_trust(run, {"data.tasks.t.scoring.kind": "evil.py:Kind"}, ["-c", "microworld"])
