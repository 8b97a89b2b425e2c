"""Files whole or not there; one process at a time."""

import os
from errno import EACCES, EDQUOT, ENOSPC
from itertools import pairwise
from pathlib import Path

import pytest
from messages import says

from tell_lightning.files import full_disk, locked, read_yaml, write_whole


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


@pytest.mark.parametrize(
    ("text", "line", "key", "first"),
    [
        ("model: {base: a}\nrun: {}\nmodel: {base: b}\n", 3, "model", 1),
        ("data:\n  tasks:\n    tax: {test: x}\n    tax: {test: y}\n", 4, "tax", 3),
        ("rows:\n- {prompt: a}\n- {prompt: b,\n   'prompt': c}\n", 4, "prompt", 3),
        ("one: &one {a: 1}\ntwo:\n  <<: *one\n  b: 1\n  <<: *one\n", 5, "<<", 3),
    ],
)
def test_a_key_of_yaml_that_stands_twice_is_named_with_both_lines(
    tmp_path: Path, text: str, line: int, key: str, first: int
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(LookupError) as error:
        read_yaml(path, LookupError)
    assert error.value.args[0] == says(
        f"a.yaml:{line}", rule="once", got=f"'{key}' again, first in line {first}", cure="Merge"
    )


def test_equal_keys_of_different_mappings_and_merged_keys_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "one: &one {a: 1, b: 1}\ntwo: {<<: *one, b: 2}\nthree: {<<: *one}\n1: x\n'1': y\n"
    )
    one = {"a": 1, "b": 1}
    wanted = {"one": one, "two": {"a": 1, "b": 2}, "three": one, 1: "x", "1": "y"}
    assert read_yaml(path, LookupError) == wanted


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ("one: 1\nday: 2026-13-01\n", ":2", "month must be in 1..12"),
        ("one:\n- " + "9" * 5000, ":2", "Exceeds the limit"),
        ("one: &one [*one]", "", "a value that is nested too deeply, or holds itself"),
        ("[" * 3000, "", "a value that is nested too deeply"),
    ],
)
def test_a_value_that_yaml_allows_and_python_cannot_make_is_named(
    tmp_path: Path, text: str, line: str, got: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(LookupError) as error:
        read_yaml(path, LookupError)
    assert error.value.args[0] == says(f"a.yaml{line}", rule="YAML", got=got)


def chained(*errors: BaseException) -> BaseException:
    """Errors that a library has made of each other, the last of them."""
    for earlier, later in pairwise(errors):
        later.__context__ = earlier
    return errors[-1]


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(ENOSPC, os.strerror(ENOSPC)), True),
        (chained(OSError(EDQUOT, "quota"), RuntimeError("unexpected pos 704 vs 598")), True),
        (RuntimeError(f"I/O error: {os.strerror(ENOSPC)} (os error 28)"), True),  # safetensors
        (chained(OSError(EACCES, "denied"), RuntimeError("no")), False),
        (ValueError("disk"), False),
    ],
)
def test_a_full_disk_is_known_through_any_chain_of_errors(error: Exception, found: bool) -> None:
    assert (full_disk(error) is not None) == found
