"""Prepared tokens on disk: named by content, never stale, safe to prepare twice at once."""

import fcntl
import json
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning import files
from tell_lightning.data import store
from tell_lightning.errors import TellError

Make = Callable[[str | None], Any]

PARTS: dict[str, object] = {
    "file": "ab12",
    "fields": {"prompt": "query", "response": None},
    "max_tokens": 512,
    "variant": "given",
}
fixed = settings(derandomize=True, max_examples=60)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


COLUMNS: dict[str, list[Any]] = {
    "input_ids": [[1, 2, 3], [4, 5], [6, 7, 8, 9]],
    "supervised": [[False, True, True], [False, True], [False, False, False, True]],
    "id": ["é", "b", "c"],
    "where": ["f:1", "f:2", "f:4"],
}
REPORT = {"counts": {"kept": 3}, "left_out": ["línu 7"]}


def build(draft: store.Draft) -> dict[str, Any]:
    """Add two chunks of rows and one without any."""
    for rows in (slice(0, 2), slice(0, 0), slice(2, 3)):
        batch = store.record_batch({name: values[rows] for name, values in COLUMNS.items()})
        draft.add([batch], {"rows": len(batch)})
    return REPORT


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_the_key_is_frozen() -> None:
    # Another key makes every cache and every running job's state void: raise SCHEMA knowingly.
    assert store.SCHEMA == "tokens-v5"
    assert store.content_key(PARTS) == "9c3f79d2b5ff8a4c73f22531686c05b1"


@fixed
@given(st.dictionaries(st.text(), values), st.randoms())
def test_the_order_of_the_parts_does_not_change_the_key(parts: dict[str, Any], random: Any) -> None:
    names = list(parts)
    random.shuffle(names)
    assert store.content_key({name: parts[name] for name in names}) == store.content_key(parts)


@fixed
@given(st.sampled_from(sorted(PARTS)), values)
def test_the_key_changes_when_and_only_when_a_part_does(name: str, value: Any) -> None:
    changed = {**PARTS, name: value}
    same = json.dumps(changed, sort_keys=True) == json.dumps(PARTS, sort_keys=True)
    assert (store.content_key(changed) == store.content_key(PARTS)) == same
    assert store.content_key({**PARTS, "more": value}) != store.content_key(PARTS)


def test_rows_lengths_and_report_are_read_back(tmp_path: Path) -> None:
    store.prepare(tmp_path / "deep" / "tokens-1", build)
    rows, lengths, report = store.load(tmp_path / "deep" / "tokens-1")
    assert {name: list(rows[name]) for name in rows.column_names} == COLUMNS
    assert lengths.tokens.tolist() == [3, 2, 4]
    assert lengths.label_tokens.tolist() == [2, 1, 1]
    assert report == REPORT
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tokens-1"]


@settings(derandomize=True, max_examples=15)
@given(st.lists(st.lists(st.lists(st.booleans(), max_size=4), max_size=5), min_size=1, max_size=5))
def test_lengths_are_those_of_the_rows_in_any_chunks(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[list[list[bool]]]
) -> None:
    flags = [row for chunk in chunks for row in chunk]
    folder = tmp_path_factory.mktemp("chunks") / "tokens-1"

    def of_flags(draft: store.Draft) -> dict[str, Any]:
        for chunk in chunks:
            names = ["x"] * len(chunk)
            ids = [[7] * len(row) for row in chunk]
            columns = {"input_ids": ids, "supervised": chunk, "id": names, "where": names}
            draft.add([store.record_batch(columns)], {})
        return {}

    store.prepare(folder, of_flags)
    rows, lengths, _ = store.load(folder)
    assert list(rows["supervised"]) == flags
    assert lengths.tokens.tolist() == [len(row) for row in flags]
    assert lengths.label_tokens.tolist() == [sum(row) for row in flags]


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    def never(draft: store.Draft) -> dict[str, Any]:
        raise AssertionError("built again")

    store.prepare(tmp_path / "tokens-1", build)
    store.prepare(tmp_path / "tokens-1", never)
    assert len(store.load(tmp_path / "tokens-1").rows) == 3


def test_rows_are_mapped_from_disk_and_travel_to_workers_as_paths(tmp_path: Path) -> None:
    columns = {name: values[:1] * 20_000 for name, values in COLUMNS.items()}

    def large(draft: store.Draft) -> dict[str, Any]:
        draft.add([store.record_batch(columns)], {})
        return {}

    store.prepare(tmp_path / "tokens-1", large)
    rows = store.load(tmp_path / "tokens-1").rows
    assert len(pickle.dumps(rows)) < 5_000
    assert pickle.loads(pickle.dumps(rows))[19_999]["input_ids"] == [1, 2, 3]


def test_a_mistake_in_the_data_leaves_nothing_behind(tmp_path: Path) -> None:
    def fails(draft: store.Draft) -> dict[str, Any]:
        build(draft)
        raise TellError("a bad row")

    with pytest.raises(TellError, match="a bad row"):
        store.prepare(tmp_path / "tokens-1", fails)
    assert list(tmp_path.iterdir()) == []


def test_any_other_failure_leaves_the_complete_chunks_to_the_next(tmp_path: Path) -> None:
    store.prepare(tmp_path / "whole" / "tokens-1", build)

    def stops(draft: store.Draft) -> dict[str, Any]:
        batch = store.record_batch({name: values[:2] for name, values in COLUMNS.items()})
        draft.add([batch], {"rows": 2}, np.ones((2, 1), dtype=np.uint64))
        (draft.ready / "rows-000001.arrow").write_bytes(b"half of a")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        store.prepare(tmp_path / "tokens-1", stops)
    assert not (tmp_path / "tokens-1").exists()

    def goes_on(draft: store.Draft) -> dict[str, Any]:
        assert list(draft.facts()) == [{"rows": 2}]
        assert [table.tolist() for table in draft.ids()] == [[[1], [1]]]
        assert [path.name for path in draft.ready.iterdir()] == ["rows-000000.arrow"]
        for rows in (slice(0, 0), slice(2, 3)):
            batch = store.record_batch({name: values[rows] for name, values in COLUMNS.items()})
            draft.add([batch], {})
        return REPORT

    store.prepare(tmp_path / "tokens-1", goes_on)
    assert contents(tmp_path / "tokens-1") == contents(tmp_path / "whole" / "tokens-1")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "tokens-1"}


def test_what_a_finished_draft_left_is_not_taken_for_rows(tmp_path: Path) -> None:
    """A process may die between the last two moves, and the user remove the folder."""
    stale = tmp_path / ".tokens-1"
    stale.mkdir()
    (stale / "000000.json").write_text("{}")
    store.prepare(tmp_path / "tokens-1", lambda draft: build(draft) | {"chunks": draft.chunks})
    found = store.load(tmp_path / "tokens-1")
    assert (len(found.rows), found.report["chunks"]) == (3, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens-1"]


def test_who_waits_for_another_process_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    store.prepare(tmp_path / "tokens-0", build)
    assert capsys.readouterr().err == ""
    other = (tmp_path / ".tokens-1.lock").open("w")
    fcntl.flock(other, fcntl.LOCK_EX)
    timer = threading.Timer(0.5, other.close)
    timer.start()
    store.prepare(tmp_path / "tokens-1", build)
    timer.join()
    says = "waiting for another process that prepares the same source\n"
    assert capsys.readouterr().err == says


def _prepare_together(folder: Path, barrier: Any, built: Any, done: Any) -> None:
    def slowly(draft: store.Draft) -> dict[str, Any]:
        built.put(os.getpid())
        time.sleep(0.5)  # the other is here by now, and waits
        return build(draft)

    barrier.wait()
    store.prepare(folder, slowly)
    done.put(len(store.load(folder).rows))


def test_of_two_processes_one_prepares_and_the_other_finds_the_result(tmp_path: Path) -> None:
    store.prepare(tmp_path / "warm" / "tokens-0", build)  # imports datasets once
    context = multiprocessing.get_context("fork")
    barrier, built, done = context.Barrier(2), context.Queue(), context.Queue()
    folder = tmp_path / "cache" / "tokens-1"
    processes = [
        context.Process(target=_prepare_together, args=(folder, barrier, built, done))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    assert [done.get() for _ in processes] == [3, 3]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert built.get() in {process.pid for process in processes}
    assert built.empty()
    assert [path.name for path in folder.parent.iterdir()] == ["tokens-1"]
    assert store.load(folder).report == REPORT


def _die_with_the_lock(folder: Path) -> None:
    def dies(draft: store.Draft) -> dict[str, Any]:
        build(draft)
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    store.prepare(folder, dies)


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    store.prepare(tmp_path / "warm" / "tokens-0", build)
    process = multiprocessing.get_context("fork").Process(
        target=_die_with_the_lock, args=(tmp_path / "tokens-1",)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / ".tokens-1.lock").exists()
    store.prepare(tmp_path / "tokens-1", lambda draft: {"chunks": draft.chunks})
    assert store.load(tmp_path / "tokens-1").report == {"chunks": 3}
    assert {path.name for path in tmp_path.iterdir()} == {"warm", "tokens-1"}


# Tokenizers


def test_a_tokenizer_has_the_same_digest_wherever_it_is_loaded_from(
    make_tokenizer: Make, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    made = make_tokenizer("{{ messages }}")
    made.save_pretrained(tmp_path / "here")
    made.save_pretrained(tmp_path / "there")
    loaded = [AutoTokenizer.from_pretrained(tmp_path / name) for name in ("here", "there")]
    assert len({store.tokenizer_digest(one) for one in loaded}) == 1
    # Use does not change it.
    before = store.tokenizer_digest(loaded[0])
    loaded[0](["some text", "more"], add_special_tokens=False, padding=False)
    assert store.tokenizer_digest(loaded[0]) == before


def test_the_digest_of_a_tokenizer_covers_template_and_vocabulary(make_tokenizer: Make) -> None:
    larger = make_tokenizer("{{ messages }}")
    larger.add_tokens(["tovi"])
    other_end = make_tokenizer("{{ messages }}")
    other_end.eos_token = "<|im_end|>"
    made = [
        make_tokenizer("{{ messages }}"),
        make_tokenizer("{{  messages }}"),
        make_tokenizer(None),
    ]
    digests = {store.tokenizer_digest(one) for one in (*made, larger, other_end)}
    assert len(digests) == 5
    assert store.tokenizer_digest(make_tokenizer("{{ messages }}")) in digests
