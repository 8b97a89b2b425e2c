"""Output that is not UTF-8, and streams that the shell has closed."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from messages import says

from tell_lightning.cli import main


def output(encoding: str, arguments: list[str], patch: pytest.MonkeyPatch) -> str:
    """Run a command whose standard output has an encoding."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    with patch.context() as inner:
        inner.setattr(sys, "stdout", stream)
        main(arguments)
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.fixture
def config(tmp_path: Path) -> str:
    row = {"prompt": "Ғылым 😀 ⟦x⟧", "response": "é ғ"}
    (tmp_path / "данные.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    values = {
        "data": {
            "root": str(tmp_path),
            "tasks": {"задача": {"train": "данные.jsonl"}},
            "mixture": {"arm": "sft"},
            "optimizer_batch": 1,
            "micro_batch": 1,
        },
        "model": {"base": "microworld"},
        "trainer": {"max_steps": 1},
    }
    path = tmp_path / "моя.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_plan_is_shown_in_any_encoding(
    encoding: str, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = output(encoding, ["plan", "-c", config, "--show", "1"], monkeypatch)
    assert "[[train " in text
    assert "\\u0492" in text


def test_jsonl_in_another_encoding_is_read_as_the_same_text(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["plan", "-c", config, "--positions", "0:1", "--format", "jsonl"]
    found = [json.loads(output(name, arguments, monkeypatch)) for name in ("ascii", "utf-8")]
    assert found[0] == found[1]
    assert found[0]["source"] == "задача"
    escaped = "\U0001f600é".encode("ascii", "tell_lightning.escaped").decode()
    assert json.loads(f'"{escaped}"') == "\U0001f600é"


def process(redirect: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a shell that closes a stream."""
    line = f'"$0" -m tell_lightning "$@" {redirect}'
    command = ["bash", "-c", line, sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("redirect", "arguments", "code"),
    [
        (">&-", ["help", "task_share"], 0),
        ("<&-", ["help", "task_share"], 0),
        ("2>&-", ["help", "no_such_key"], 2),
        ("<&- >&- 2>&-", ["--version"], 0),
        ("| head -n 1; exit ${PIPESTATUS[0]}", ["help"], 0),
    ],
)
def test_a_stream_that_is_closed_ends_no_command_in_a_traceback(
    redirect: str, arguments: list[str], code: int
) -> None:
    done = process(redirect, *arguments)
    assert done.returncode == code
    assert done.stderr == ""
    if code:
        assert done.stdout == ""


def test_a_word_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--run.dir=/tmp/x\udcff"])
    assert stop.value.code == 2
    error = capsys.readouterr().err.removeprefix("error: ")
    assert error == says("command line", rule="UTF-8", got="'--run.dir=/tmp/x\\udcff'")
