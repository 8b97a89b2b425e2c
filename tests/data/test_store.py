"""Prepared tokens on disk: named by content, never stale, safe to prepare twice at once."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data import store

Make = Callable[[str | None], Any]
Built = tuple[dict[str, list[Any]], dict[str, Any]]

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


def build() -> Built:
    columns: dict[str, list[Any]] = {
        "input_ids": [[1, 2, 3], [4, 5]],
        "supervised": [[False, True, True], [False, True]],
        "id": ["é", "b"],
    }
    return columns, {"counts": {"kept": 2}, "left_out": ["línu 7"]}


def test_the_key_is_frozen() -> None:
    # Another key makes every cache and every running job's state void: raise SCHEMA knowingly.
    assert store.SCHEMA == "tokens-v1"
    assert store.content_key(PARTS) == "656e94e89433e1ae21cfa782cb69bedb"


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


def test_rows_and_report_are_read_back(tmp_path: Path) -> None:
    store.prepare(tmp_path / "deep" / "tokens-1", build)
    rows, report = store.load(tmp_path / "deep" / "tokens-1")
    columns, wanted = build()
    assert {name: list(rows[name]) for name in rows.column_names} == columns
    assert report == wanted
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tokens-1"]


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    def never() -> Built:
        raise AssertionError("built again")

    store.prepare(tmp_path / "tokens-1", build)
    store.prepare(tmp_path / "tokens-1", never)
    assert len(store.load(tmp_path / "tokens-1")[0]) == 2


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Built:
        raise ValueError("a bad row")

    with pytest.raises(ValueError, match="a bad row"):
        store.prepare(tmp_path / "tokens-1", fails)

    def full(source: object, target: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        store.prepare(tmp_path / "tokens-1", build)
    assert list(tmp_path.iterdir()) == []


def _prepare_together(folder: Path, barrier: Any, done: Any) -> None:
    def meet() -> Built:
        barrier.wait(60)  # neither has written: both will
        return build()

    store.prepare(folder, meet)
    done.put(len(store.load(folder)[0]))


def test_two_processes_may_prepare_the_same_at_once(tmp_path: Path) -> None:
    store.prepare(tmp_path / "warm" / "tokens-0", build)  # imports datasets once
    context = multiprocessing.get_context("fork")
    barrier, done = context.Barrier(2), context.Queue()
    folder = tmp_path / "cache" / "tokens-1"
    processes = [
        context.Process(target=_prepare_together, args=(folder, barrier, done)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    assert [done.get(timeout=60) for _ in processes] == [2, 2]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in folder.parent.iterdir()] == ["tokens-1"]
    assert store.load(folder)[1] == build()[1]


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
