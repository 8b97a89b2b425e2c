"""Hugging Face data sets: folders of save_to_disk, and the hub without a network."""

import os
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
from messages import Says, says

from tell_lightning.data.formats import RecordError
from tell_lightning.data.reading import DataLocation, RecordSet, read_records
from tell_lightning.data.records import Fields
from tell_lightning.data.tokenizer import BaseModelError, load_tokenizer

ROWS = [{"prompt": f"p{n}", "response": f"r{n}"} for n in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets.disable_progress_bars()
    root = tmp_path_factory.mktemp("hf")
    one = datasets.Dataset.from_list(ROWS)
    one.save_to_disk(root / "one")
    datasets.DatasetDict(train=one, test=one.select([0])).save_to_disk(root / "two")
    (root / "none").mkdir()
    return root


def read(rows: str | DataLocation, root: Path) -> RecordSet:
    return read_records(rows, fields=Fields(), root=root)


def test_a_saved_data_set_is_read_and_has_a_stable_digest(folder: Path) -> None:
    first, again = read("one", folder), read("one", folder)
    assert [(r.id, r.where) for r in first.records] == [
        (f"one:{n}", f"{folder / 'one'}:row {n}") for n in (1, 2, 3)
    ]
    assert [dict(r.row) for r in first.records] == ROWS
    assert first.sha256 == again.sha256


def test_of_several_splits_one_is_chosen(folder: Path) -> None:
    train = read(DataLocation(path="two", split="train"), folder)
    test = read(DataLocation(path="two", split="test"), folder)
    assert (len(train.records), len(test.records)) == (3, 1)
    assert train.sha256 != test.sha256
    assert test.records[0].where == f"{folder / 'two'}/test:row 1"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            DataLocation(path="two"),
            says("two", rule=["split", "train", "test"], got="none"),
        ),
        (
            DataLocation(path="two", split="dev"),
            says("two", rule=["split", "train", "test"], got="'dev'"),
        ),
        (
            DataLocation(path="one", revision="x"),
            says("one", rule="revision", got="'x'"),
        ),
        (
            "none",
            says(
                "none",
                rule="save_to_disk",
                cure=["`Dataset`", "`DatasetDict`"],
            ),
        ),
    ],
)
def test_a_wrong_split_or_folder_is_named(
    folder: Path, rows: str | DataLocation, message: Says
) -> None:
    with pytest.raises(RecordError) as caught:
        read(rows, folder)
    assert str(caught.value) == message


def test_a_hub_set_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(RecordError) as caught:
        read(DataLocation(hub="a/b", revision="0123456789abcdef"), Path())
    assert str(caught.value) == says(
        "a/b@0123456789ab", got="offline", cure=["hub, config, split, revision", "save_to_disk"]
    )


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make the hub one that cannot be reached; return the addresses that are asked."""
    asked: list[str] = []

    class Session:
        def head(self, address: str, timeout: float) -> None:
            asked.append(address)
            raise TimeoutError

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return asked


def test_without_a_network_the_hub_is_asked_once_and_then_only_the_cache(
    unreachable: list[str],
) -> None:
    for _ in range(2):
        with pytest.raises(RecordError, check=says("a/b@0123", cure="network")):
            read(DataLocation(hub="a/b", revision="0123"), Path())
        with pytest.raises(BaseModelError, check=says("model.base", cure="network")):
            load_tokenizer("nobody/nothing")
    assert unreachable == [huggingface_hub.constants.ENDPOINT]
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_hub_rows_are_read_at_their_revision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(*args: Any, **options: Any) -> Any:
        asked.append((args, options))
        return datasets.load_from_disk(str(folder / "two"))[options["split"]]

    monkeypatch.setattr(datasets, "load_dataset", load)
    sets = [
        read(DataLocation(hub="a/b", config="c", split="train", revision=r), Path())
        for r in ("r1", "r2")
    ]
    assert asked[0] == (("a/b", "c"), {"split": "train", "revision": "r1"})
    assert sets[0].records[0].where == "a/b@r1/train:row 1"
    assert sets[0].records[0].id == "b:1"
    assert sets[0].sha256 != sets[1].sha256
