"""Folds: by the text of the rows, repeats together, alike in size, and written unchanged."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from messages import says

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.leaks import check_disjoint
from tell_lightning.data.reading import read_records
from tell_lightning.data.records import Fields, Record, Turn
from tell_lightning.data.settings import DataSettings, Mixture, Task
from tell_lightning.data.splits import read_splits
from tell_lightning.experiment.overlays import merged
from tell_lightning.settings import as_settings, plain
from tell_lightning.tuning.folds import FoldError, make_folds, plan_folds, write_folds

WORDS = ["amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath", "inlet", "jetty"]


def record(prompt: str, response: str = "yes", id: str = "") -> Record:
    turns = (Turn("user", prompt), Turn("assistant", response))
    return Record(id or prompt, "d.jsonl:1", turns, {"prompt": prompt, "response": response})


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows whose prompts share no more than chance has it."""
    draws = random.Random(seed)
    return [
        {
            "prompt": f"{' '.join(draws.sample(WORDS, 3))} {n}{n}",
            "response": f"{n}",
            "mark": f"m{n}",
        }
        for n in range(count)
    ]


def data_of(folder, train: int, dev: int = 0, **task) -> DataSettings:
    made = rows(train + dev)
    for name, part in (("train", made[:train]), ("dev", made[train:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    given = Task(train="train.jsonl", dev="dev.jsonl" if dev else None, **task)
    return DataSettings(root=str(folder), tasks={"say": given})


def with_overlay(data: DataSettings, overlay) -> DataSettings:
    return as_settings(DataSettings, merged(plain(data), overlay["data"]), "data")


def test_folds_follow_from_the_texts_and_the_seed_not_from_the_order_of_the_rows():
    records = [record(row["prompt"], row["response"]) for row in rows(23)]
    found, _ = make_folds(records, Anchor(), 5, 1)
    again, _ = make_folds(records[::-1], Anchor(), 5, 1)
    other, _ = make_folds(records, Anchor(), 5, 2)
    assert found == again[::-1]
    assert found != other


@pytest.mark.parametrize("count", [5, 9, 23, 101])
def test_folds_are_alike_in_size(count):
    records = [record(row["prompt"], row["response"]) for row in rows(count)]
    sizes = Counter(make_folds(records, Anchor(), 5, 0)[0])
    assert sum(sizes.values()) == count
    assert len(sizes) == 5
    assert max(sizes.values()) - min(sizes.values()) <= 1


def test_labels_are_spread_over_the_folds():
    records = [record(row["prompt"], "ab"[n % 4 == 0]) for n, row in enumerate(rows(40))]
    found = Counter(
        (fold, each.response)
        for each, fold in zip(records, make_folds(records, Anchor(), 5, 3)[0], strict=True)
    )
    assert {found[fold, "b"] for fold in range(5)} == {2}
    assert {found[fold, "a"] for fold in range(5)} == {6}


def test_near_repeats_are_in_one_fold_with_and_without_the_anchor():
    anchor = Anchor(text="Say what the following words mean, please, and be brief.")
    records = [record(row["prompt"]) for row in rows(20)]
    near = [
        record("the small house by the old red river"),
        record("The small house by the old, red river!"),
        record("The small house by the old red bridge"),
        record(f"{anchor.text}\n\nthe small house by the old red river"),
    ]
    for seed in range(5):
        found, note = make_folds([*records, *near], anchor, 5, seed)
        assert len(set(found[20:])) == 1
        assert not note
    # Two rows that only share the anchor are not alike.
    apart = [record(f"{anchor.text} {row['prompt']}") for row in rows(20)]
    assert len(set(make_folds(apart, anchor, 5, 0)[0])) == 5


def test_rows_that_are_all_alike_are_divided_but_for_equal_prompts():
    alike = [record(f"count up from one to {n} in steps of one and then stop") for n in range(20)]
    equal = [record("Count up from one to 7 in steps of  one and then stop", id="again")]
    found, note = make_folds([*alike, *equal], Anchor(), 5, 0)
    assert len(set(found)) == 5
    assert found[20] == found[7]
    assert note == "21 rows repeat each other nearly; only equal prompts are in one fold"


def test_fewer_prompts_than_folds_are_refused():
    with pytest.raises(
        FoldError,
        check=says("tune.folds", rule="different prompts of a task, 4", got="5", cure="add rows"),
    ):
        make_folds([record(f"{word} {n}") for n in range(2) for word in WORDS[:2]], Anchor(), 5, 0)


@pytest.mark.parametrize(
    ("train", "dev", "folds", "kind", "why"),
    [
        (30, 0, None, "folds", "5 folds of the 30 task rows: there is no dev set"),
        (150, 0, None, "folds", "there is no dev set"),
        (30, 30, None, "folds", "with 60 rows, fewer than 100, a dev set chooses by chance"),
        (60, 40, None, "dev", "with 100 rows to train and choose by, 100 or more"),
        (60, 40, 3, "folds", "tune.folds is 3"),
    ],
)
def test_a_dev_set_is_used_where_there_are_a_hundred_rows(tmp_path, train, dev, folds, kind, why):
    found = plan_folds(data_of(tmp_path, train, dev), 0, folds)
    assert found.kind == kind
    assert why in found.line
    assert found.rows["say"] == (dev if kind == "dev" else train + dev)


def test_the_parts_of_a_dev_set_are_by_the_ids_of_its_rows(tmp_path):
    data = data_of(tmp_path, 80, 40)
    parts = plan_folds(data, 0).parts["say"]
    assert set(parts) == {each.id for each in read_splits(data).dev["say"].records}
    assert set(Counter(parts.values()).values()) == {8}


def test_written_folds_hold_each_row_once_unchanged_and_are_read_by_the_same_fields(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "question,answer,extra\n"
        + "".join(f'"{row["prompt"]}, ""so""\n it",{row["response"]},{n}\n'
                  for n, row in enumerate(rows(12))),
        encoding="utf-8",
    )  # fmt: skip
    fields = Fields(prompt="question", response="answer")
    data = DataSettings(
        root=str(tmp_path),
        tasks={"say": Task(train={"path": "t.csv"}, fields=fields)},  # type: ignore[arg-type]
    )
    data = as_settings(DataSettings, plain(data), "data")
    before = read_records("t.csv", fields=fields, root=tmp_path).records
    folds = plan_folds(data, 0)
    written = write_folds(folds, data, tmp_path / "folds")
    answered = []
    for overlay in written.overlays:
        own = with_overlay(data, overlay)
        splits = read_splits(own)
        train, dev = splits.train["say"].records, splits.dev["say"].records
        assert len(train) + len(dev) == 12
        check_disjoint(train, dev, Anchor())
        answered += [(each.turns, each.row) for each in dev]
    assert sorted(answered, key=str) == sorted(((r.turns, r.row) for r in before), key=str)
    whole = read_splits(with_overlay(data, written.whole))
    assert [r.turns for r in whole.train["say"].records] == [r.turns for r in before]
    assert not whole.dev


def test_task_examples_are_drawn_once_as_fit_draws_them(tmp_path):
    data = replace(data_of(tmp_path, 40), mixture=Mixture(task_examples=10))
    found = plan_folds(data, 7)
    assert found.rows == {"say": 10}
    drawn = {each.id for each, _ in found.divided["say"]}
    more = plan_folds(replace(data, mixture=Mixture(task_examples=20)), 7)
    assert drawn < {each.id for each, _ in more.divided["say"]}
    assert drawn != {each.id for each, _ in plan_folds(data, 8).divided["say"]}
    overlay = write_folds(found, data, tmp_path / "folds").overlays[0]
    assert overlay["data"]["mixture"] == {"task_examples": None}


def test_fewer_than_five_rows_and_too_many_folds_are_refused(tmp_path):
    few = says("data.tasks.say", rule="needs 5 task rows or more", got="4", cure="fit")
    with pytest.raises(FoldError, check=few):
        plan_folds(data_of(tmp_path, 4), 0)
    with pytest.raises(
        FoldError, check=says("tune.folds", rule="2 to 6", got="7", cure="Leave it out")
    ):
        plan_folds(data_of(tmp_path, 6), 0, 7)


def test_a_row_that_json_would_change_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    days = pyarrow.array(range(6), pyarrow.int32()).cast(pyarrow.date32())
    table = pyarrow.table({"prompt": [row["prompt"] for row in rows(6)], "response": days})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    task = Task(train="d.parquet", fields=Fields(as_json=True))
    data = DataSettings(root=str(tmp_path), tasks={"say": task})
    changed = says("d.parquet:row 1", rule="as a line of JSON", cure="as text")
    with pytest.raises(FoldError, check=changed):
        write_folds(plan_folds(data, 0), data, tmp_path / "folds")
