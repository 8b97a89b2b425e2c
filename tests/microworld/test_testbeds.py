"""What the files of the testbeds promise: counts, disjointness, the dial of the parts, excerpts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tell_lightning.microworld import testbeds
from tell_lightning.microworld.functions import FUNCTIONS, PARTS
from tell_lightning.microworld.lexicon import HELD_OUT, VELSK
from tell_lightning.microworld.world import data_root, write_testbeds

World = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("testbeds")
    write_testbeds(folder)
    return {
        str(path.relative_to(folder).with_suffix("")): [
            json.loads(line) for line in path.read_text("utf-8").splitlines()
        ]
        for path in sorted(folder.rglob("*.jsonl"))
    }


def prompts(rows: list[dict[str, Any]]) -> set[str]:
    return {str(row.get("prompt") or f"{row['instruction']}\n{row['input']}") for row in rows}


def test_every_file_has_its_rows_and_none_twice(world: World) -> None:
    wanted = {name: count for name, count, _ in testbeds.files()}
    wanted |= {name: count for name, _, count in testbeds.excerpts()}
    assert {name: len(rows) for name, rows in world.items()} == wanted
    for name, rows in world.items():
        assert len(prompts(rows)) == len(rows), name


@pytest.mark.parametrize("task", ["translate", "judge", "compose"])
def test_dev_and_test_rows_stand_in_no_training_file(world: World, task: str) -> None:
    training = prompts(world[f"{task}/train"])
    tests = [name for name in world if name.startswith(task) and not name.endswith("train")]
    assert len(tests) >= 2
    for name in tests:
        assert not prompts(world[name]) & training, name
    general = {row["input"] for name in world if name.startswith("general/") for row in world[name]}
    assert task == "compose" or not prompts(world[f"{task}/test"]) & general


def test_the_dial_says_which_parts_the_general_rows_hold(world: World) -> None:
    parts = {
        name: {kind for kind in PARTS if any(row["kind"] == kind for row in world[name])}
        for name in (f"functions/{dial}" for dial in ("parts_none", "parts_half", "parts_all"))
    }
    assert [*parts.values()] == [set(), {PARTS[0]}, set(PARTS)]
    for name in ("parts_none", "parts_half"):
        missing = set(PARTS) - parts[f"functions/{name}"]
        text = json.dumps(world[f"functions/{name}"])
        assert not any(part in text for part in missing), name
    kinds = Counter(row["kind"] for row in world["functions/parts_and_pairs"])
    # More than the 0.3 that are drawn: of short lists under one name there are few without repeats.
    assert 0.4 < kinds["pair"] / sum(kinds.values()) < 0.55


def test_no_general_row_asks_for_what_the_task_asks_for(world: World) -> None:
    both = {f"{a} and {b}" for a in PARTS for b in PARTS if a != b}
    for name, rows in world.items():
        if name.startswith("functions/"):
            assert not any(pair in row["instruction"] for row in rows for pair in both), name


def test_answers_of_the_composed_task_are_those_of_its_parts(world: World) -> None:
    for row in world["compose/test"]:
        words = row["prompt"].split()
        first, second = row["response"].split("; ")
        assert first.split() == FUNCTIONS[PARTS[0]](words)
        assert second.split() == FUNCTIONS[PARTS[1]](words)
        assert len(words) in {2, 3}


def test_excerpts_are_the_first_rows(world: World) -> None:
    for name, of, count in testbeds.excerpts():
        assert world[name] == world[of][:count]


def test_kinds_are_left_out_where_the_name_says_so(world: World) -> None:
    def kinds(name: str) -> set[str]:
        return {row["kind"] for row in world[f"general/{name}"]}

    assert kinds("train") - kinds("without_translation") == {"norn_to_english", "english_to_norn"}
    assert kinds("train") - kinds("without_checking") == {"check"}
    assert kinds("irrelevant") == {"irrelevant"}


def test_training_documents_hold_no_held_out_word_and_judged_rows_their_prior(world: World) -> None:
    held_out = {VELSK[lemma] for lemma in HELD_OUT}

    def words(name: str) -> set[str]:
        text = " ".join(row["prompt"] for row in world[name])
        return {word.split("'")[0].strip(".") for word in text.split()}

    assert not words("translate/train") & held_out
    assert words("translate/test") & held_out
    shares = {
        name: sum(row["label"] == "yes" for row in world[name]) / len(world[name])
        for name in ("judge/test", "judge/test_prior19")
    }
    assert shares["judge/test"] == 0.5
    assert abs(shares["judge/test_prior19"] - 0.19) < 0.01


def test_the_folder_of_the_testbeds_is_another_one_than_the_default_worlds(tmp_path: Path) -> None:
    folder = data_root(tmp_path, "testbeds")
    assert folder.name.startswith("testbeds-")
    assert (folder / "compose/train.jsonl").is_file()
    assert not (folder / "README.md").exists()
