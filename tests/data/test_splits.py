"""All text of a run: the embedded world reads clean, mistakes are named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from messages import says

from tell_lightning.data.anchors import Anchor, AnchorError
from tell_lightning.data.formats import Meter, RecordError
from tell_lightning.data.ids import Ids
from tell_lightning.data.leaks import LeakError
from tell_lightning.data.preparation import training_sources
from tell_lightning.data.reading import iterate_records
from tell_lightning.data.records import Fields, Record
from tell_lightning.data.settings import DataSettings, General, Task
from tell_lightning.data.splits import (
    SplitError,
    Splits,
    cache_folder,
    general_example,
    read_splits,
    resolve_root,
)

Write = Callable[..., Path]

GOLDEN_DEV_LINES = (5, 9, 10, 19)
ANCHOR = Anchor(text="Translate this.", response_prefix="Here it is: ")


def pairs(*texts: str) -> list[dict[str, str]]:
    return [{"prompt": text, "response": f"answer to {text}"} for text in texts]


@pytest.fixture
def data(jsonl: Write, tmp_path: Path) -> Callable[..., DataSettings]:
    """Return a function that writes small files and names them in a data section."""

    def make(**changes: Any) -> DataSettings:
        files = {
            "train": pairs("t1", "t2", "t3"),
            "dev": pairs("d1"),
            "test": pairs("e1", "e2"),
            "mixed_in": pairs("g1", "g2", "g3", "g4"),
            "held": pairs("h1"),
        }
        for name, rows in files.items():
            jsonl(*changes.pop(name, rows), name=f"{name}.jsonl")
        task = Task(
            train="train.jsonl",
            dev="dev.jsonl",
            test="test.jsonl",
            anchor=changes.pop("anchor", ANCHOR),
        )
        general = General(train="mixed_in.jsonl", held_out="held.jsonl")
        section = {"tasks": {"t": task}, "general": {"g": general}, "root": str(tmp_path)}
        return DataSettings(**{**section, **changes})

    return make


Data = Callable[..., DataSettings]


def sizes(sources: Splits) -> dict[str, int]:
    """Count the records of every pool that is in memory."""
    return {
        f"{split}/{name}": len(pool.records)
        for split in ("train", "dev", "test", "held_out")
        for name, pool in getattr(sources, split).items()
    }


def general_records(settings: DataSettings, name: str) -> list[Record]:
    """Read the good and unprotected records of a general source."""
    sources = read_splits(settings)
    fields = settings.general[name].fields
    entries = iterate_records(sources.general[name], fields, Ids(), Meter())
    records = [entry for entry in entries if isinstance(entry, Record)]
    return [record for record in records if not sources.protected.holds(record)]


def test_every_pool_is_read_and_general_sources_are_opened(data: Data) -> None:
    sources = read_splits(data())
    assert sizes(sources) == {"train/t": 3, "dev/t": 1, "test/t": 2, "held_out/g": 1}
    assert sources.train["t"].counts == {"read": 3, "bad": 0}
    pools = [*sources.train.values(), *sources.dev.values(), *sources.test.values()]
    opened = [*pools, *sources.held_out.values(), *sources.general.values()]
    assert len({one.sha256 for one in opened}) == 5
    assert len(general_records(data(), "g")) == 4


def test_general_rows_of_any_other_set_are_protected(data: Data) -> None:
    leaks = ["t2", "D1", "Translate this.\n\n e2", "h1"]  # train, dev, test with anchor, held out
    left = general_records(data(mixed_in=pairs("g1", *leaks, "g2")), "g")
    assert [record.turns[0].content for record in left] == ["g1", "g2"]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_held_out_row_in_the_training_rows_names_both_lines(
    split: str, data: Data, tmp_path: Path
) -> None:
    with pytest.raises(LeakError, match=r"\.jsonl:2: ") as caught:
        read_splits(data(**{split: pairs("x1", "  T2 ")}))
    assert str(caught.value) == says(
        f"{tmp_path / split}.jsonl:2", cure=f"{tmp_path}/train.jsonl:2. "
    )


def test_bad_rows_of_a_small_file_stop_or_are_counted(data: Data, tmp_path: Path) -> None:
    rows = [*pairs("h1", "h2"), {"prompt": "h3"}]
    with pytest.raises(RecordError, check=says("held.jsonl:3", rule="'response'")):
        read_splits(data(held=rows))
    skipping = data(held=rows, on_bad_rows="skip", max_bad_share=0.5)
    pool = read_splits(skipping).held_out["g"]
    assert pool.counts == {"read": 3, "bad": 1}
    assert pool.bad[0].startswith(f"{tmp_path}/held.jsonl:3: field 'response'")


def test_only_the_first_rows_of_a_general_source_are_looked_at(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tell_lightning.data.splits.STARTING_ROWS", 2)
    with pytest.raises(RecordError, check=says("mixed_in.jsonl:2", rule="JSON")):
        read_splits(data(mixed_in=[*pairs("m1"), "not JSON"]))
    sources = read_splits(data(mixed_in=[*pairs("m1", "m2"), "not JSON"]))
    *_, entry = iterate_records(sources.general["g"], Fields(), Ids(), Meter())
    assert isinstance(entry, RecordError)
    skipping = data(mixed_in=["not JSON"], on_bad_rows="skip")
    assert set(read_splits(skipping).general) == {"g"}  # counted while it is prepared


def test_each_row_is_checked_for_an_anchor_that_the_data_carry(data: Data, tmp_path: Path) -> None:
    anchor = Anchor(text="Translate this.", response_prefix="Here it is:", present=True)

    def carrying(*texts: str) -> list[dict[str, str]]:
        return [
            {"prompt": f"Translate this.\n\n {text}", "response": f"Here it is: \n\n {text}!"}
            for text in texts
        ]

    files = {name: carrying(f"{name}1", f"{name}2") for name in ("train", "dev", "test")}
    assert len(read_splits(data(**files, anchor=anchor)).train["t"].records) == 2
    for name in files:
        broken = {**files, name: [*carrying("a"), *pairs("b")]}
        with pytest.raises(AnchorError, check=says(f"{name}.jsonl:2", rule=["user", "anchor"])):
            read_splits(data(**broken, anchor=anchor))
    bare = {**carrying("b")[0], "response": "b!"}
    with pytest.raises(AnchorError, check=says("train.jsonl:1", rule="assistant")):
        read_splits(data(**{**files, "train": [bare]}, anchor=anchor))
    # A test row's response is only what is scored by: it may lack the prefix.
    assert len(read_splits(data(**{**files, "test": [bare]}, anchor=anchor)).test["t"].records) == 1


def test_a_row_without_the_anchor_that_it_must_carry_can_be_skipped(data: Data) -> None:
    anchor = Anchor(text="Translate this.", present=True)

    def carrying(*texts: str) -> list[dict[str, str]]:
        return pairs(*(f"Translate this. {text}" for text in texts))

    files = {
        "train": [*carrying(*(f"t{n}" for n in range(20))), *pairs("bare")],
        "dev": carrying("d"),
        "test": carrying("e"),
    }
    train = read_splits(data(**files, anchor=anchor, on_bad_rows="skip")).train["t"]
    assert train.counts == {"read": 21, "bad": 1}
    assert train.bad == (says("train.jsonl:21", rule=["user", "anchor"], got="'bare'"),)


def test_data_that_carry_an_anchor_unasked_are_refused(data: Data) -> None:
    with pytest.raises(AnchorError, match=r"train\.jsonl:1: .*Set anchor\.present: true"):
        read_splits(data(train=pairs("Translate this. Now.")))


def test_a_root_that_is_not_there_is_named(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SplitError, match=r"data\.root") as caught:
        read_splits(data(root="nowhere/at/all"))
    assert str(caught.value) == says("data.root", got="'nowhere/at/all'", cure=str(tmp_path))


@pytest.mark.parametrize(
    "section",
    [
        {"tasks": {"t": Task(train="none.jsonl")}},
        {"general": {"g": General(train="none.jsonl")}},
    ],
    ids=["task", "general"],
)
def test_a_missing_file_is_named(section: dict[str, Any], data: Data) -> None:
    with pytest.raises(RecordError, check=says("none.jsonl")):
        read_splits(data(**section))


def test_nothing_to_read_is_an_error(data: Data) -> None:
    with pytest.raises(SplitError, match="none") as caught:
        read_splits(data(tasks={}, general={}))
    assert str(caught.value) == says("data", got="none", cure=["data.tasks", "data.general"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (General(), says("data.general.self", rule=["train", "generate"], got="neither")),
        (
            General(train="general.jsonl", generate=9),
            says("data.general.self", rule=["train", "generate"], got="both, generate: 9"),
        ),
        (
            General(generate=9, fields=Fields(prompt="query")),
            says("data.general.self.fields", rule="prompt", got="prompt: query", cure="Remove"),
        ),
        (
            General(generate=9),
            says("data.general.self.generate", got="9 to write", cure="generate_general(base, 9)"),
        ),
        (
            General(train="general.jsonl", closings=("Be brief.",)),
            says("data.general.self.closings", rule="generate", got="'Be brief.'", cure="Remove"),
        ),
    ],
    ids=["neither", "both", "fields", "unwritten", "closings"],
)
def test_a_general_source_has_rows_of_one_kind(source: General, message: str, data: Data) -> None:
    with pytest.raises(SplitError, check=message):
        read_splits(data(general={"self": source}))


@pytest.mark.parametrize("name", ["g", "a.b", "a/b", "", "a b"])
def test_names_must_be_distinct_and_plain(name: str, data: Data) -> None:
    with pytest.raises(SplitError, match=r"^data: ") as caught:
        read_splits(data(tasks={name: Task(train="train.jsonl")}))
    assert str(caught.value) == says("data", rule=["'_'", "'-'"], got=f"'{name}'")


def test_a_general_example_is_the_record_as_it_is(data: Data) -> None:
    record = general_records(data(), "g")[0]
    assert general_example(record).turns == record.turns


def test_the_cache_is_where_the_settings_or_the_system_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(DataSettings()) == tmp_path / "xdg" / "tell_lightning"
    assert (tmp_path / "xdg" / "tell_lightning").is_dir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder(DataSettings()) == tmp_path / "home" / ".cache" / "tell_lightning"
    assert cache_folder(DataSettings(cache_dir="~/mine")) == tmp_path / "home" / "mine"


def test_a_tilde_before_a_name_that_is_no_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SplitError, check=says("data.root", rule="folder", got="'~no-such-user'")):
        resolve_root(DataSettings(root="~no-such-user"))
    said = says("data.cache_dir", rule="home", got="'~no-such-user/a'", cure="HOME")
    with pytest.raises(SplitError, check=said):
        cache_folder(DataSettings(cache_dir="~no-such-user/a"))


# Rows of the training file set apart as dev


def apart(data: Data, count: int, **changes: Any) -> DataSettings:
    task = Task(**{"train": "train.jsonl", "dev_from_train": count, **changes})
    return data(train=pairs(*(f"t{n}" for n in range(20))), tasks={"t": task})


def test_dev_is_set_apart_from_the_training_file_by_no_seed(data: Data) -> None:
    sources = read_splits(apart(data, 4, test="test.jsonl"))
    train, dev = sources.train["t"], sources.dev["t"]
    assert [record.id for record in dev.records] == [
        f"train.jsonl:{line}" for line in GOLDEN_DEV_LINES
    ]
    assert train.counts == {"read": 20, "bad": 0, "set_apart": 4}
    lines = [int(r.id.rpartition(":")[2]) for r in train.records]
    assert lines == [line for line in range(1, 21) if line not in GOLDEN_DEV_LINES]
    assert train.sha256 == dev.sha256


def test_a_larger_dev_holds_the_smaller_one(data: Data) -> None:
    small, large = (
        {record.id for record in read_splits(apart(data, count)).dev["t"].records}
        for count in (4, 7)
    )
    assert len(large) == 7
    assert small < large


def test_rows_of_the_dev_part_are_protected(data: Data) -> None:
    settings = apart(data, 4)
    held = read_splits(settings).dev["t"].records[0].turns[0].content
    task = {"tasks": settings.tasks, "train": pairs(*(f"t{n}" for n in range(20)))}
    left = general_records(data(**task, mixed_in=pairs("g1", held)), "g")
    assert [record.turns[0].content for record in left] == ["g1"]


@pytest.mark.parametrize("count", [0, -1, 20, 21])
def test_rows_set_apart_must_leave_some(count: int, data: Data) -> None:
    with pytest.raises(SplitError, match="dev_from_train") as caught:
        read_splits(apart(data, count))
    assert str(caught.value) == says(
        "data.tasks.t.dev_from_train", rule="1", got=f"{count} of 20", cure="dev"
    )


def test_rows_set_apart_need_training_rows_and_no_dev_file(data: Data) -> None:
    with pytest.raises(SplitError, match="got 4 of 0 training rows"):
        read_splits(apart(data, 4, train=None))
    with pytest.raises(SplitError, match="got dev") as caught:
        read_splits(apart(data, 4, dev="dev.jsonl"))
    assert str(caught.value) == says("data.tasks.t.dev_from_train", got="dev")


def test_prepared_rows_with_another_dev_part_are_kept_apart(data: Data) -> None:
    (four, five) = (
        training_sources(settings, read_splits(settings))[0].chosen
        for settings in (apart(data, 4), apart(data, 5))
    )
    assert four != five


# The embedded world and the paper's data


def microworld(root: str) -> DataSettings:
    """Return the data section of the embedded default."""
    anchors = {"translate": ANCHOR, "judge": Anchor(text="Judge this.")}
    return DataSettings(
        root=root,
        tasks={
            name: Task(
                train=f"{name}/train.jsonl",
                dev=f"{name}/dev.jsonl",
                test=f"{name}/test.jsonl",
                anchor=anchor,
            )
            for name, anchor in anchors.items()
        },
        general={
            "instructions": General(
                train="general/train.jsonl",
                held_out="general/held_out.jsonl",
                fields=Fields(prompt="instruction", input="input", response="output", id="id"),
            )
        },
    )


def test_the_embedded_world_reads_clean(tmp_path: Path) -> None:
    settings = microworld("microworld")
    settings = DataSettings(**{**vars(settings), "cache_dir": str(tmp_path)})
    root = resolve_root(settings)
    assert root.parent == tmp_path
    sources = read_splits(settings)
    assert sizes(sources) == {
        "train/translate": 3000,
        "dev/translate": 64,
        "test/translate": 200,
        "train/judge": 3000,
        "dev/judge": 64,
        "test/judge": 200,
        "held_out/instructions": 400,
    }
    pools = [*sources.train.values(), *sources.dev.values(), *sources.test.values()]
    assert all(not pool.bad for pool in pools)
    assert len(general_records(settings, "instructions")) == 20_000


EN_IS = Anchor(
    text="This text is in English and needs to be translated into Icelandic. Please translate only "
    "the text, strictly maintaining the original content order without making any other changes.",
    response_prefix="Sure, here is the Icelandic translation:",
    present=True,
)


def test_the_papers_files_read_with_the_anchor_that_they_carry(
    shared_data: Path, tmp_path: Path
) -> None:
    lines = (shared_data / "general/natural_instructions/natural_instructions_sample.jsonl").open(
        encoding="utf-8"
    )
    with lines:
        rows = [next(lines) for _ in range(500)]
    tests = (shared_data / "tell/test-en-is.jsonl").read_text(encoding="utf-8")
    leak = json.loads(tests.partition("\n")[0])
    text = json.dumps({"instruction": leak["query"], "input": "", "output": "Nei."})
    (tmp_path / "general.jsonl").write_text("".join(rows) + text + "\n", encoding="utf-8")
    settings = DataSettings(
        root=str(shared_data / "tell"),
        tasks={
            "en_is": Task(
                train="dev-en-is.jsonl",
                test="test-en-is.jsonl",
                fields=Fields(prompt="query"),
                anchor=EN_IS,
            )
        },
        general={
            "instructions": General(
                train=str(tmp_path / "general.jsonl"),
                fields=Fields(prompt="instruction", input="input", response="output"),
            )
        },
    )
    sources = read_splits(settings)
    assert len(sources.train["en_is"].records) == 71
    assert len(sources.test["en_is"].records) == 65
    assert len(general_records(settings, "instructions")) == 500  # of 501
    wrong = Task(train="dev-is-en.jsonl", fields=Fields(prompt="query"), anchor=EN_IS)
    with pytest.raises(AnchorError, check=says("dev-is-en.jsonl:1", rule=["user", "anchor"])):
        read_splits(DataSettings(**{**vars(settings), "tasks": {"is_en": wrong}}))


def test_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SplitError) as caught:
        cache_folder(DataSettings(cache_dir=str(tmp_path / "file/cache")))
    assert str(caught.value) == says("data.cache_dir", got=f"'{tmp_path / 'file/cache'}'")


def test_a_user_without_a_home_must_name_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs as a user id of its own."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])
    with pytest.raises(SplitError) as caught:
        cache_folder(DataSettings())
    assert str(caught.value) == says("data.cache_dir", cure="--data.cache_dir=FOLDER")
    assert cache_folder(DataSettings(cache_dir=str(tmp_path / "c"))) == tmp_path / "c"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(DataSettings()) == tmp_path / "tell_lightning"
