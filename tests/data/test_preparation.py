"""Sources of any size become rows: the same in any chunks, after any death, fully checked."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from messages import says

from tell_lightning.data import preparation as stage
from tell_lightning.data import store
from tell_lightning.data.anchors import Anchor, Example
from tell_lightning.data.formats import RecordError
from tell_lightning.data.preparation import Preparation, training_sources
from tell_lightning.data.records import Fields
from tell_lightning.data.settings import DataSettings, General, Task
from tell_lightning.data.splits import SplitError, read_splits
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder, TokenError, TokenRow

MEND = "Correct or remove the row, or set data.on_bad_rows: skip."
Rows = Sequence[object]


def pairs(letter: str, count: int) -> list[dict[str, str]]:
    return [{"prompt": f"{letter}{n}", "response": "x" * (n % 7 + 1)} for n in range(count)]


class CountingEncoder(Encoder):
    """Counts what it is asked to tokenise, and stops for good where it is asked to."""

    encoded = 0
    most: float = math.inf

    def encode(self, examples: Sequence[Example]) -> list[TokenRow]:
        self.encoded += len(examples)
        while self.encoded > self.most:
            time.sleep(1)
        return super().encode(examples)


class Stage:
    """Prepares a general source of small files."""

    def __init__(self, folder: Path, write: Callable[..., Path], tokenizer: Any) -> None:
        self.folder, self.write = folder, write
        self.encoder = CountingEncoder(tokenizer, Renderer(tokenizer))
        self.put("t", pairs("t", 5))
        self.put("h", [{**row, "name": row["prompt"]} for row in pairs("h", 2)])

    def put(self, name: str, rows: Rows) -> None:
        self.write(*rows, name=f"{name}.jsonl")

    def settings(self, **changes: Any) -> DataSettings:
        general = {"train": "g.jsonl", "held_out": "h.jsonl", **changes.pop("general", {})}
        section: dict[str, Any] = {
            "root": str(self.folder),
            "cache_dir": str(self.folder / "cache"),
            "tasks": {"t": Task(train="t.jsonl", anchor=Anchor(text="Do it."))},
            "general": {"g": General(**general)},
        }
        return DataSettings(**{**section, **changes})

    def folders(self, **changes: Any) -> list[Path]:
        """Return the folders of the task and of the general source."""
        settings = self.settings(**changes)
        made = Preparation(settings, self.encoder)
        return [made.folder(one) for one in training_sources(settings, read_splits(settings))]

    def prepare(self, **changes: Any) -> Path:
        """Prepare the general source; return its folder."""
        settings = self.settings(**changes)
        made = Preparation(settings, self.encoder)
        source = training_sources(settings, read_splits(settings))[-1]
        made.prepare([source])
        return made.folder(source)

    def report(self, **changes: Any) -> dict[str, Any]:
        return store.load(self.prepare(**changes)).report


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer: Callable[[str | None], Any]) -> Any:
    return make_tokenizer(None)


@pytest.fixture
def made(tmp_path: Path, jsonl: Callable[..., Path], tokenizer: Any) -> Stage:
    return Stage(tmp_path, jsonl, tokenizer)


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets the sizes of chunks and batches."""

    def set_sizes(**sizes: int) -> None:
        for name, size in sizes.items():
            assert hasattr(stage, name.upper())
            monkeypatch.setattr(stage, name.upper(), size)

    return set_sizes


Chunks = Callable[..., None]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def columns(folder: Path) -> dict[str, list[Any]]:
    rows = store.load(folder).rows
    return {name: list(rows[name]) for name in rows.column_names}


# What is left out


def test_bad_protected_and_long_rows_are_counted_and_named(made: Stage, chunks: Chunks) -> None:
    chunks(chunk_rows=4, batch_rows=2)
    rows: list[object] = list(pairs("g", 12))
    rows[1], rows[2], rows[6], rows[9] = "?", pairs("T", 3)[2], pairs("h", 1)[0], "!"
    rows[10] = {"prompt": "z" * 300, "response": "y"}
    made.put("g", rows)
    report = made.report(on_bad_rows="skip", max_bad_share=0.2, max_tokens=200)
    assert report["counts"] == {
        **{"read": 12, "bad": 2, "leaks": 2},
        **{"overlong": 1, "truncated": 0, "kept": 7},
    }
    lines = [note.partition("jsonl:")[2].partition(" ")[0] for note in report["left_out"]]
    assert lines == ["2:", "10:", "3:", "7:", "11:"]
    assert report["left_out"][2].endswith("g.jsonl:3: left out, a task or held-out set has it")


def test_no_more_than_a_thousand_rows_left_out_are_named(
    made: Stage, chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks(chunk_rows=4, batch_rows=4, most_notes=3)
    rows = pairs("g", 12)
    made.put("g", ["?", *rows[:3], "?", "?", *rows[3:6], *pairs("h", 2), *rows[6:]])
    report = made.report(on_bad_rows="skip", max_bad_share=0.2)
    assert [note.partition("jsonl:")[2].partition(":")[0] for note in report["left_out"][:-1]] == [
        *("1", "5", "6")
    ]
    assert report["left_out"][-1] == "and 2 more rows"
    assert (report["counts"]["bad"], report["counts"]["leaks"]) == (3, 2)


def test_the_first_bad_row_stops_or_too_many_do_at_the_end(made: Stage, tmp_path: Path) -> None:
    made.put("g", [*pairs("g", 2), {"prompt": "a"}, "?"])
    with pytest.raises(RecordError, check=says("g.jsonl:3", rule="'response'")):
        made.prepare()
    assert made.report(on_bad_rows="skip", max_bad_share=0.5)["counts"]["bad"] == 2
    with pytest.raises(RecordError) as caught:
        made.prepare(on_bad_rows="skip", max_bad_share=0.2)
    message, first, *_ = str(caught.value).splitlines()
    assert message == says("g.jsonl", rule="0.2", got="2 of 4", cure="data.max_bad_share")
    assert first.strip() == says("g.jsonl:3")
    assert not list((tmp_path / "cache").glob(".*"))  # no draft, no lock


def test_a_general_source_of_protected_rows_alone_is_an_error(made: Stage) -> None:
    made.put("g", [*pairs("t", 1), *pairs("h", 1)])
    with pytest.raises(SplitError, match=r"^data\.general\.g: ") as caught:
        made.prepare()
    assert str(caught.value) == says("data.general.g", got="2 rows")


def test_a_source_of_long_rows_alone_is_an_error(made: Stage) -> None:
    made.put("g", [{"prompt": "z" * 99, "response": "y"}] * 2)
    with pytest.raises(TokenError, match="no example is left") as caught:
        made.prepare(max_tokens=50)
    assert str(caught.value) == (
        "data.general.g: no example is left of 2, all were longer than data.max_tokens 50. "
        "Raise data.max_tokens."
    )


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_an_id_given_twice_is_named_with_both_rows(chunk: int, made: Stage, chunks: Chunks) -> None:
    chunks(chunk_rows=chunk, batch_rows=2)
    rows = [{**row, "name": name} for row, name in zip(pairs("g", 6), "abcadb", strict=True)]
    rows[1]["prompt"] = "t1"  # a protected row has an id too
    made.put("g", rows)
    general = {"fields": Fields(id="name")}
    first = says("g.jsonl:4", rule="id", got="'a'", cure=["g.jsonl:1. ", "data.on_bad_rows: skip"])
    with pytest.raises(RecordError, check=first):
        made.prepare(general=general)
    report = made.report(general=general, on_bad_rows="skip", max_bad_share=0.5)
    assert report["counts"]["bad"] == 2
    assert report["counts"]["kept"] == 3
    second = says("g.jsonl:6", rule="id", got="'b'", cure=["g.jsonl:2. ", "data.on_bad_rows: skip"])
    assert report["left_out"][:2] == [first, second]


# Chunks


@pytest.mark.parametrize(
    "sizes",
    [
        {"chunk_rows": 1, "batch_rows": 1},
        {"chunk_rows": 10, "batch_rows": 3},
        {"chunk_rows": 40, "batch_rows": 40},
        {"chunk_tokens": 200},
        {"batch_characters": 20},
    ],
    ids=str,
)
def test_rows_and_report_are_the_same_in_any_chunks(
    sizes: dict[str, int], made: Stage, chunks: Chunks
) -> None:
    made.put("g", [*pairs("g", 25), "?", *pairs("h", 2), *pairs("f", 12)])
    options: dict[str, Any] = {"on_bad_rows": "skip", "max_bad_share": 0.1}
    whole = made.prepare(**options)
    chunks(**sizes)
    cut = made.prepare(**options, cache_dir=str(made.folder / "other"))
    assert len(list(cut.glob("*.arrow"))) == 1 if sizes.get("chunk_rows") == 40 else True
    assert len(list(cut.glob("*.arrow"))) > 1 or sizes.get("chunk_rows", 99) >= 40
    assert columns(cut) == columns(whole)
    for name in (store.LENGTHS, store.REPORT):
        assert contents(cut)[name] == contents(whole)[name]


def test_rows_of_a_task_are_cut_into_chunks_too(made: Stage, chunks: Chunks) -> None:
    made.put("g", pairs("g", 3))
    chunks(chunk_rows=2, batch_rows=1)
    settings = made.settings()
    sources = training_sources(settings, read_splits(settings))
    Preparation(settings, made.encoder).prepare(sources)
    found = store.load(made.folders()[0])
    assert found.rows["id"][:] == [f"t.jsonl:{line}" for line in range(1, 6)]
    assert found.report["counts"]["kept"] == 5


def test_a_killed_process_leaves_its_chunks_and_the_next_goes_on_to_the_same_bytes(
    made: Stage, chunks: Chunks
) -> None:
    chunks(chunk_rows=20, batch_rows=10)
    names = {"fields": Fields(id="name")}
    rows = [{**row, "name": f"{n:03}"} for n, row in enumerate(pairs("g", 190))]
    made.put("g", [*rows[:95], *[{**row, "name": "h"} for row in pairs("h", 1)], *rows[95:]])
    whole = made.prepare(general=names, cache_dir=str(made.folder / "whole"))
    assert made.encoder.encoded == 190
    draft = made.folders(general=names)[-1]
    draft = draft.with_name(f".{draft.name}")

    made.encoder.encoded, made.encoder.most = 0, 100  # five chunks; the 96th row is left out
    target = lambda: made.prepare(general=names)  # noqa: E731
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    while not (draft / "000004.json").exists():
        assert process.is_alive()
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    complete = len(list(draft.glob("*.json")))
    assert complete == 5
    kept = {path.name: path.stat().st_mtime_ns for path in (draft / "ready").iterdir()}

    made.encoder.encoded, made.encoder.most = 0, math.inf
    folder = made.prepare(general=names)
    assert made.encoder.encoded == 191 - 20 * complete
    assert contents(folder) == contents(whole)
    for index in range(complete):  # not written again
        name = f"rows-{index:06}.arrow"
        assert (folder / name).stat().st_mtime_ns == kept[name]
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}


def test_ids_of_a_killed_process_are_remembered(
    made: Stage, chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tell_lightning.data.splits.STARTING_ROWS", 5)
    chunks(chunk_rows=2, batch_rows=2)
    names = {"fields": Fields(id="name")}
    made.put("g", [{**row, "name": n} for row, n in zip(pairs("g", 6), "abcdea", strict=True)])

    class Stopped(Exception):
        pass

    def stop(examples: Sequence[Example]) -> list[TokenRow]:
        if made.encoder.encoded == 2:
            raise Stopped
        return CountingEncoder.encode(made.encoder, examples)

    made.encoder.encode = stop  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        made.prepare(general=names)
    del made.encoder.encode  # type: ignore[method-assign]
    with pytest.raises(RecordError, match=r"g\.jsonl:6: .* got 'a' as in .*g\.jsonl:1\."):
        made.prepare(general=names)
    assert made.encoder.encoded == 4  # it did go on


def test_memory_does_not_grow_with_the_rows(made: Stage, chunks: Chunks) -> None:
    chunks(chunk_rows=200, batch_rows=50)
    peaks = []
    for count in (400, 400, 400, 1600, 1600):  # the first also fills caches
        made.put("g", pairs(f"g{count}-{len(peaks)}-" + "x" * 60, count))
        tracemalloc.start()
        made.prepare(max_tokens=200)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The rows alone would be three times as much. How many batches wait for each other at the peak
    # depends on what else the machine does, so the lower one of two peaks counts.
    assert min(peaks[3:]) < 1.3 * min(peaks[1:3])


PEAK = """
import resource, sys
from tell_lightning.cli import main
main(["prepare", "-c", sys.argv[1]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.long
def test_a_large_source_takes_little_more_memory_than_a_small_one(tmp_path: Path) -> None:
    """In a process of its own: memory outside Python counts, too."""
    peaks = []
    for name, count in (("small", 20_000), ("large", 80_000)):
        rows = ({"prompt": f"Write {n}.", "response": f"It is {n}.", "n": n} for n in range(count))
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        config = {
            "data": {
                "root": str(tmp_path),
                "cache_dir": str(tmp_path / "cache"),
                "general": {name: {"train": f"{name}.jsonl", "fields": {"id": "n"}}},
            },
            "model": {"base": "microworld"},
        }
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        command = [sys.executable, "-c", PEAK, str(tmp_path / "config.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]) * 1024)
    assert peaks[0] < 800e6
    assert peaks[1] - peaks[0] < 40e6  # the rows alone, as records, take 60 MB


# Keys


def test_the_key_covers_everything_that_decides_the_rows(made: Stage, tokenizer: Any) -> None:
    made.put("g", pairs("g", 9))
    base = made.folders()[-1]
    task = {"train": "t.jsonl", "anchor": Anchor(text="Do it.")}
    changes: list[dict[str, Any]] = [
        {"on_bad_rows": "skip"},
        {"max_bad_share": 0.01},
        {"max_tokens": 900},
        {"general": {"overlong": "truncate_prompt"}},
        {"general": {"fields": Fields(prompt="response")}},
        {"general": {"held_out": None}},
        {"tasks": {"t": Task(**{**task, "anchor": Anchor(text="Do that.")})}},
        {"tasks": {"t": Task(**task, fields=Fields(prompt="response"))}},
        {"tasks": {"t": Task(**task, test="h.jsonl")}, "general": {"held_out": "t.jsonl"}},
        {"tasks": {}},
    ]
    folders = [base, *(made.folders(**change)[-1] for change in changes)]
    for name in "gth":
        made.put(name, [*pairs(name, 2), {"prompt": f"new {name}", "response": "y"}])
        folders.append(made.folders()[-1])
    assert len(set(folders)) == len(folders)


def test_the_key_leaves_out_what_decides_no_row(made: Stage) -> None:
    made.put("g", pairs("g", 9))
    base = made.folders()[-1]
    made.put("t", pairs("t", 5)[::-1])
    assert made.folders()[-1] == base  # the same rows are protected
    split = {"train": "t.jsonl", "anchor": Anchor(text="Do it."), "dev_from_train": 2}
    assert made.folders(tasks={"t": Task(**split)})[-1] == base
    assert made.folders(num_workers=2, micro_batch=4)[-1] == base


def test_the_digest_in_the_report_follows_the_rows_that_are_left(made: Stage) -> None:
    made.put("g", pairs("g", 9))
    base = made.report()
    made.put("h", pairs("j", 4))
    other = made.report()  # prepared anew, to the same rows
    assert other == base
    made.put("h", pairs("g", 1))
    assert made.report()["parts"] != base["parts"]
    assert made.report(max_tokens=900)["parts"] != base["parts"]
    assert json.loads(json.dumps(base)) == base
