import json
from pathlib import Path

import pytest

from tell_lightning.tuning.folder import TuneFolder, TuneFolderError, about, digest_of, opened

ABOUT = {"model.base": "abc", "data.optimizer_batch": 4}


def with_a_trial(path: Path) -> None:
    with opened(path, ABOUT) as folder:
        folder.write(seconds=5.0)
    (path / "trials").mkdir()
    (path / "trials" / "0000.json").write_text("{}")


def test_a_folder_is_gone_on_with(tmp_path: Path) -> None:
    with_a_trial(tmp_path)
    before = json.loads((tmp_path / "progress.json").read_text())
    with opened(tmp_path, ABOUT) as folder:
        assert folder.read() == before
    assert before["seconds"] == 5.0
    assert not (tmp_path / ".lock").exists()


def test_a_search_of_something_else_is_refused_with_what_differs(tmp_path: Path) -> None:
    with_a_trial(tmp_path)
    with (
        pytest.raises(TuneFolderError, match=r"whose data\.optimizer_batch is 4, here 8"),
        opened(tmp_path, ABOUT | {"data.optimizer_batch": 8}),
    ):
        pass


def test_a_search_that_nothing_has_come_of_may_become_another(tmp_path: Path) -> None:
    with opened(tmp_path, ABOUT) as folder:
        folder.write(price={"rows": 1})
    (tmp_path / "study.db").write_text("")
    other = ABOUT | {"data.optimizer_batch": 8}
    with opened(tmp_path, other) as folder:
        assert folder.read()["about"] == other
        assert "price" not in folder.read()
    assert not (tmp_path / "study.db").exists()


def test_what_a_search_writes_into_a_deleted_folder_does_not_stop_the_next_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "progress.json").write_text('{"seconds": 3.0}', encoding="utf-8")
    with opened(tmp_path, ABOUT) as folder:
        assert folder.read()["about"] == ABOUT
        assert folder.read()["seconds"] == 0.0


def test_a_folder_is_for_one_process(tmp_path: Path) -> None:
    with (
        opened(tmp_path, ABOUT),
        pytest.raises(TuneFolderError, match="which another process uses"),
        opened(tmp_path, ABOUT),
    ):
        pass


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text("{")
    with pytest.raises(TuneFolderError, match="must be JSON") as caught, opened(tmp_path, ABOUT):
        pass
    assert "\n" not in str(caught.value)


def test_a_study_is_about_settings_and_data_but_not_about_their_places() -> None:
    values = {
        "run": {"name": "a"},
        "data": {"root": "/x", "tasks": {"t": {"train": "a.jsonl", "max_new_tokens": 3}}},
        "tune": {"seeds": 5, "folds": None},
    }
    digests = {"data.tasks.t.train": "0123456789abcdef0123"}
    found = about(values, digests)
    assert found == {
        "data.tasks.t.max_new_tokens": 3,
        "data.tasks.t.train": "0123456789abcdef",
        "tune.folds": None,
    }
    moved = {**values, "data": {**values["data"], "root": "/y"}, "run": {"name": "b"}}
    assert digest_of(about(moved, digests)) == digest_of(found)
    assert digest_of(about(values, {"data.tasks.t.train": "f" * 20})) != digest_of(found)


def test_what_a_killed_process_has_left_is_deleted(tmp_path: Path) -> None:
    folder = TuneFolder(tmp_path)
    (tmp_path / ".work" / "trial-3").mkdir(parents=True)
    with folder.work() as place:
        assert list(place.iterdir()) == []
        (place / "trial-4").mkdir()
    assert list(tmp_path.iterdir()) == []
