"""`prepare` tokenises what `fit` will train on, and says what came of each source."""

import json
import re
from pathlib import Path

import pytest
import yaml
from messages import says

from tell_lightning.cli import main
from tell_lightning.data import store


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Small data on the embedded base."""
    rows = {"train": 4, "general": 9}
    for name, count in rows.items():
        pairs = [{"prompt": f"{name} {n}", "response": "yes"} for n in range(count)]
        pairs += [{"prompt": "train 1", "response": "no"}] * (name == "general")
        text = "".join(json.dumps(row) + "\n" for row in pairs)
        (tmp_path / f"{name}.jsonl").write_text(text)
    data = {
        "root": str(tmp_path),
        "cache_dir": str(tmp_path / "cache"),
        "tasks": {"answer": {"train": "train.jsonl", "anchor": {"text": "Answer."}}},
        "general": {"all": {"train": "general.jsonl"}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"data": data, "model": {"base": "microworld"}}))
    return path


def test_each_source_is_prepared_once_and_gets_a_line(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("the base was loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    main(["prepare", "-c", str(config)])
    shown = capsys.readouterr()
    assert shown.err == ""
    first, second = shown.out.splitlines()
    line = r"{}: {} rows, (\d+) tokens, (\S+); left out: {}"
    assert re.fullmatch(line.format("answer", 4, "nothing"), first)
    found = re.fullmatch(line.format("all", 9, "1 leaks"), second)
    assert found is not None
    lengths = store.load(Path(found[2])).lengths
    assert int(found[1]) == lengths.tokens.sum() > 9 * 5
    main(["prepare", "-c", str(config)])
    assert capsys.readouterr().out == shown.out


def test_a_bad_row_of_a_general_source_is_named(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (config.parent / "general.jsonl").open("a") as file:
        file.write("?\n")
    for command in ("prepare", "plan"):
        with pytest.raises(SystemExit) as exit_:
            main([command, "-c", str(config), "--trainer.max_steps=5"])
        assert exit_.value.code == 2
        error = capsys.readouterr().err.removeprefix("error: ")
        assert error == says("general.jsonl:11", rule="JSON", got="'?'")
