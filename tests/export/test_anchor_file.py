"""`anchor.json`: it comes back as it was, and a spoilt one is named."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from messages import says

from tell_lightning.data.anchors import Anchor, AnchorError
from tell_lightning.export.anchor_file import (
    AdapterFolderError,
    AnchorFile,
    TaskPrompt,
    check_weights,
    read_anchor_file,
)
from tell_lightning.metrics.settings import Scoring


def write(folder: Path, data: object) -> None:
    text = json.dumps(data, ensure_ascii=False)
    (folder / "anchor.json").write_text(text, encoding="utf-8")


def test_comes_back_as_it_was(tmp_path: Path, anchors: AnchorFile) -> None:
    write(tmp_path, anchors.to_json())
    assert read_anchor_file(tmp_path) == anchors


def test_how_answers_are_read_comes_back_but_no_code_of_the_users(tmp_path: Path) -> None:
    labels = Scoring(kind="classification", label_key="topic", labels=("no", "Sport"))
    own = Scoring(kind="mine.py:Kind", function="mine.py:lengths", words_field="rare")
    prompts = {
        "labels": TaskPrompt(Anchor(), 8, scoring=labels, force_response_prefix=True),
        "own": TaskPrompt(Anchor(), 8, scoring=own),
    }
    write(tmp_path, AnchorFile("microworld", None, "given", "0123", prompts).to_json())
    tasks = read_anchor_file(tmp_path).tasks
    assert tasks["labels"] == prompts["labels"]
    assert tasks["own"].scoring == Scoring(words_field="rare")
    assert "mine.py" not in (tmp_path / "anchor.json").read_text()


def test_a_folder_of_an_earlier_version_reads_answers_as_text(
    tmp_path: Path, anchors: AnchorFile
) -> None:
    data = anchors.to_json()
    for task in data["tasks"].values():
        del task["scoring"], task["force_response_prefix"]
    write(tmp_path, data)
    assert read_anchor_file(tmp_path) == anchors


def test_a_folder_without_anchor_json(tmp_path: Path) -> None:
    with pytest.raises(AdapterFolderError) as raised:
        read_anchor_file(tmp_path)
    assert str(raised.value) == says(str(tmp_path), rule="anchor.json", got="none")


def test_another_format(tmp_path: Path, anchors: AnchorFile) -> None:
    write(tmp_path, {**anchors.to_json(), "format": 7})
    with pytest.raises(AdapterFolderError) as raised:
        read_anchor_file(tmp_path)
    assert str(raised.value) == says(
        str(tmp_path / "anchor.json"), rule=["format", "1"], got="7", cure="tell_lightning"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"7",
        b'{"format": 1}',
        b'{"format": 1, "tasks": []}',
        b'{"format": 1, "tasks": {"a": 1}}',
    ],
)
def test_a_broken_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "anchor.json").write_bytes(content)
    with pytest.raises(AdapterFolderError) as raised:
        read_anchor_file(tmp_path)
    text = str(raised.value)
    assert text == says(str(tmp_path / "anchor.json"), rule="`fit`")
    assert text.endswith("Export the adapter again.")


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_new_tokens", "many"), ("fields", {"colour": "red"}), ("fields", None)],
)
def test_a_task_that_cannot_be_read(
    tmp_path: Path, anchors: AnchorFile, key: str, value: object
) -> None:
    data = anchors.to_json()
    data["tasks"]["judge"][key] = value
    write(tmp_path, data)
    with pytest.raises(AdapterFolderError, match="must be the file that `fit` wrote"):
        read_anchor_file(tmp_path)


def test_an_anchor_that_was_changed_by_hand(tmp_path: Path, anchors: AnchorFile) -> None:
    data = anchors.to_json()
    data["tasks"]["judge"]["anchor"]["text"] = "Other."
    write(tmp_path, data)
    with pytest.raises(AnchorError, match=r"tasks\.judge\.anchor: the digest must be"):
        read_anchor_file(tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:9] + bytes([b[9] ^ 4]) + b[10:]])
def test_damaged_weights_are_refused(damage, tmp_path: Path, anchors: AnchorFile) -> None:
    content = bytes(range(256))
    known = replace(anchors, weights_sha256=sha256(content).hexdigest())
    (tmp_path / "adapter_config.json").write_text("{}")
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(content)
    check_weights(tmp_path, known)
    path.write_bytes(damage(content))
    with pytest.raises(AdapterFolderError) as raised:
        check_weights(tmp_path, known)
    assert str(raised.value) == says(
        str(path), rule=["SHA-256", known.weights_sha256[:12]], cure=["Copy", "weights_sha256"]
    )
    check_weights(tmp_path, anchors)  # of an earlier version: the digest is not known


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused(
    missing: str, tmp_path: Path, anchors: AnchorFile
) -> None:
    for name in {"adapter_config.json", "adapter_model.safetensors"} - {missing}:
        (tmp_path / name).write_text("{}")
    with pytest.raises(AdapterFolderError) as raised:
        check_weights(tmp_path, anchors)
    assert str(raised.value) == says(str(tmp_path), rule=missing, got="none", cure="Copy")
