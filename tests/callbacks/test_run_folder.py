"""A run's folder: a name of its own, files whole or not there."""

import hashlib
import json
import time
from pathlib import Path

import pytest
from messages import says

from tell_lightning.callbacks import run_record
from tell_lightning.callbacks.folder import (
    RunFolder,
    RunFolderError,
    claim,
    current_neural_scores,
    existing_folder,
    held,
    new_folder,
    write_json,
    write_jsonl,
)
from tell_lightning.callbacks.run_record import RunRecord


def test_second_run_of_the_same_second_gets_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20260102-030405")
    first = new_folder(str(tmp_path), "name")
    at_once = new_folder(str(tmp_path), "name")
    assert claim(first)
    assert not claim(at_once)
    second = new_folder(str(tmp_path), "name")
    assert claim(second)
    assert first.path.name == "20260102-030405-name"
    assert second.path.name == "20260102-030405-name-2"


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\n"])
def test_name_that_is_no_part_of_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunFolderError, match=r"^run\.name: must be made of letters, digits"):
        new_folder(str(tmp_path), name)


def test_folder_without_a_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"^RUN: must be the folder of a run"):
        existing_folder(str(tmp_path))
    (tmp_path / "config.yaml").write_text("{}")
    assert existing_folder(str(tmp_path)).adapter == tmp_path / "adapter"


def test_files_are_whole_and_leave_no_draft(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"þ": 1})
    write_jsonl(tmp_path / "b/c.jsonl", [{"x": 1}, {"x": "é"}])
    write_jsonl(tmp_path / "half.jsonl", [{"x": "a\ud83d"}])
    assert json.loads((tmp_path / "half.jsonl").read_text(encoding="utf-8")) == {"x": "a\ud83d"}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"bad": object()})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"þ": 1}
    assert (tmp_path / "b/c.jsonl").read_text(encoding="utf-8") == '{"x": 1}\n{"x": "é"}\n'
    assert {path.name for path in tmp_path.rglob("*")} == {"a.json", "b", "c.jsonl", "half.jsonl"}


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for parent, reason in (("file", "Not a directory"), ("link", "File exists")):
        with pytest.raises(RunFolderError) as caught:
            claim(new_folder(str(tmp_path / parent), "name"))
        assert str(caught.value) == says("run.dir", got=f"'{tmp_path / parent}'", cure=reason)


def test_folder_that_another_process_uses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    folder = existing_folder(str(tmp_path))
    refused = pytest.raises(RunFolderError, check=says("RUN", got=f"'{tmp_path}'"))
    with held(folder), refused, held(folder):
        raise AssertionError
    with held(folder):
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


def test_a_neural_score_of_a_file_that_was_written_anew_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.predictions.mkdir(parents=True)
    elsewhere = tmp_path / "mine.jsonl"
    names = ("same.jsonl", "anew.jsonl", "gone.jsonl", str(elsewhere))
    for name in names:
        (folder.predictions / name).write_text(name)
    neural = {
        Path(name).stem: {
            "comet": {
                "score": 0.5,
                "file": name,
                "predictions_sha256": hashlib.sha256(name.encode()).hexdigest(),
            }
        }
        for name in names
    }
    metrics = {"test": {}, "neural": neural}
    (folder.predictions / "anew.jsonl").write_text("another answer")
    (folder.predictions / "gone.jsonl").unlink()
    # Of an earlier file of this name.
    neural["same"]["bleurt"] = {**neural["anew"]["comet"], "file": "same.jsonl"}
    kept = {"same": {"comet": neural["same"]["comet"]}, "mine": neural["mine"]}
    assert current_neural_scores(folder, metrics) == kept
    elsewhere.unlink()
    assert current_neural_scores(folder, metrics) == kept
    elsewhere.write_text("another answer")
    assert list(current_neural_scores(folder, metrics)) == ["same"]
    assert current_neural_scores(folder, {"neural": None}) == {}


def test_resumes_are_numbered_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    assert folder.latest_config == folder.config
    clock = iter([2_000_000_000.0, 1_000_000_000.0, 9.0])
    monkeypatch.setattr(time, "time", lambda: next(clock))
    for number in range(1, 12):  # 10 is after 9
        folder.draft_config.write_text(f"{number}")
        folder.keep_config()
        assert folder.latest_config.read_text() == f"{number}"
    folder.keep_config()  # nothing to keep
    assert folder.latest_config.name == "config.resume-11.yaml"


def test_resumes_of_a_run_of_an_earlier_version_go_on_from_its_numbers(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "config.resume-1700000000.yaml").write_text("old")
    assert folder.latest_config.read_text() == "old"
    folder.draft_config.write_text("new")
    folder.keep_config()
    assert folder.latest_config.read_text() == "new"


def test_the_end_of_a_run_is_recorded_even_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = RunRecord(RunFolder(tmp_path))
    record.write()
    monkeypatch.setattr(run_record, "write_json", _full)
    record.write_end("failed", "No space left on device")
    found = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (found["status"], found["name"]) == ("failed", tmp_path.name)


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")
