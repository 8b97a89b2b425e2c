"""Files whole or not there; one process at a time."""

from pathlib import Path

import pytest

from tell_lightning.files import locked, write_whole


def test_a_file_that_cannot_be_written_leaves_no_draft(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", b"content")
    with pytest.raises(NotADirectoryError):
        write_whole(tmp_path / "file/page.html", b"content")
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "file"}
    write_whole(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_lock_keeps_others_out_until_its_end_whatever_that_is(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    refused = pytest.raises(LookupError, match="mine")
    with locked(lock, LookupError("unused")), refused, locked(lock, LookupError("mine")):
        raise AssertionError
    with pytest.raises(KeyboardInterrupt), locked(lock, LookupError("unused")):
        raise KeyboardInterrupt
    assert not lock.exists()
