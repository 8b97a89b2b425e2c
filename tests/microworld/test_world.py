"""What the files of the world promise: counts, disjointness, held-out words, determinism."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tell_lightning.microworld.corpus import write_document
from tell_lightning.microworld.grammar import Meaning, english_forms, say
from tell_lightning.microworld.lexicon import CLASS_OF, HELD_OUT, VELSK
from tell_lightning.microworld.pretrain import PretrainSettings, training_text
from tell_lightning.microworld.world import base_dir, data_root, write_world

World = dict[str, list[dict[str, Any]]]
TRAINING = ("translate/train", "judge/train", "general/train")
RESERVED = {
    "translate/dev": "dev",
    "judge/dev": "dev",
    "translate/test": "test",
    "judge/test": "test",
    "judge/test_prior19": "test",
    "general/held_out": "general",
}
COUNTS = {
    "translate/train": 3000,
    "translate/dev": 64,
    "translate/test": 200,
    "judge/train": 3000,
    "judge/dev": 64,
    "judge/test": 200,
    "judge/test_prior19": 200,
    "general/train": 20_000,
    "general/held_out": 400,
}
SENTENCE = re.compile(r"(?:The|ka|ba|ke) [^.?]*\.|(?:How|Where|What) [^.?]*\?")


def texts_of(row: dict[str, Any]) -> list[str]:
    return [str(row[key]) for key in ("prompt", "response", "input", "output") if row.get(key)]


def sentences_of(rows: list[dict[str, Any]]) -> set[str]:
    return {found for row in rows for text in texts_of(row) for found in SENTENCE.findall(text)}


def test_every_file_has_its_rows(world: World) -> None:
    assert {name: len(rows) for name, rows in world.items()} == COUNTS
    for name, rows in world.items():
        assert len({row["id"] for row in rows}) == len(rows), name


def test_no_reserved_sentence_stands_in_another_split(world: World) -> None:
    pools = {"train": set().union(*(sentences_of(world[name]) for name in TRAINING))}
    for name, split in RESERVED.items():
        pools[split] = pools.get(split, set()) | sentences_of(world[name])
    assert min(len(pool) for pool in pools.values()) > 250
    names = sorted(pools)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert not pools[first] & pools[second], (first, second)


def test_no_document_stands_in_two_files(world: World) -> None:
    seen: dict[str, str] = {}
    for name, rows in world.items():
        for row in rows:
            document = row.get("prompt") or f"{row['instruction']}\n{row['input']}"
            assert seen.setdefault(document, row["id"]) == row["id"], name


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.long), 25])
def test_no_reserved_sentence_stands_in_the_pre_training_text(world: World, step: int) -> None:
    """The text of the committed base, made again: all of it, or every 25th document."""
    record = json.loads((base_dir() / "base.json").read_text())
    settings = PretrainSettings(**record["settings"])
    reserved = {s for name in RESERVED for s in sentences_of(world[name])}
    for position in range(0, settings.steps * settings.documents_per_step, step):
        text = training_text(position, settings)
        assert not reserved.intersection(SENTENCE.findall(text)), position


def test_the_pre_training_text_holds_no_anchor_and_no_verdict() -> None:
    for position in range(5_000):
        text = write_document(0, position, 0.5)[1]
        assert "needs to be translated" not in text
        assert '"hallucination": "' not in text or '"thought": "text says' not in text


def test_held_out_words_stand_in_no_training_pool(world: World) -> None:
    forms = {VELSK[lemma] for lemma in HELD_OUT}
    for name in TRAINING:
        for row in world[name]:
            for text in texts_of(row):
                assert not forms.intersection(re.findall(r"\w+", text)), row["id"]


def test_general_data_hold_no_velsk(world: World) -> None:
    forms = set(VELSK.values())
    for row in world["general/train"] + world["general/held_out"]:
        for text in texts_of(row):
            assert not forms.intersection(re.findall(r"\w+", text)), row["id"]


def test_test_documents_hold_a_fifth_to_a_third_of_held_out_words(world: World) -> None:
    lemma_of = {velsk: lemma for lemma, velsk in VELSK.items()}
    for name in ("translate/dev", "translate/test"):
        words = [
            lemma_of[word]
            for row in world[name]
            for word in re.findall(r"\w+", row["prompt"])
            if word in lemma_of
        ]
        share = sum(word in HELD_OUT for word in words) / len(words)
        assert 0.17 <= share <= 0.35, name
    assert all(not row["unseen"] for row in world["translate/train"])
    for row in world["translate/test"]:
        assert set(row["unseen"]) <= set(re.findall(r"\w+", row["response"]))


def test_translation_has_many_words_and_three_patterns(world: World) -> None:
    used = {word for row in world["translate/train"] for word in re.findall(r"\w+", row["prompt"])}
    assert len(used & set(VELSK.values())) >= 100
    assert len(CLASS_OF) == len(set(VELSK.values())) >= 100
    marks = ("'ri ger", "'ol ", " eta", "'de ")
    for mark in marks:
        assert sum(mark in row["prompt"] for row in world["translate/test"]) >= 20, mark


def test_random_words_keep_the_template_and_change_every_word(world: World) -> None:
    for row in world["translate/test"]:
        reference, other = (re.findall(r"\w+", row[key]) for key in ("response", "random_words"))
        assert len(reference) == len(other)
        same = [word for word, changed in zip(reference, other, strict=True) if word == changed]
        assert all(word in _FUNCTION_WORDS for word in same), row["id"]
        assert row["source"] == row["prompt"]


_FUNCTION_WORDS = {"The", "the", "of", "to", "in", "is", "was", "has", "had", "not", "does", "did"}


def test_general_data_have_at_least_ten_kinds(world: World) -> None:
    for name in ("general/train", "general/held_out"):
        kinds = Counter(row["kind"] for row in world[name])
        assert len(kinds) >= 10
        assert min(kinds.values()) >= 5


def test_general_checks_compare_before_they_decide(world: World) -> None:
    form = re.compile(r"text says (\w+), claim says (\w+), (the same: true|not the same: false)")
    checks = [row for row in world["general/train"] if row["kind"] == "check"]
    verdicts: Counter[str] = Counter()
    for row in checks:
        match = form.fullmatch(row["output"])
        assert match, row
        verdict = match[3].rpartition(" ")[2]
        assert (match[1] == match[2]) == (verdict == "true")
        verdicts[verdict] += 1
    assert 0.45 < verdicts["true"] / len(checks) < 0.55


@pytest.mark.parametrize(
    ("name", "num_yes"),
    [("judge/train", 1500), ("judge/dev", 32), ("judge/test", 100), ("judge/test_prior19", 38)],
)
def test_judge_labels_have_their_prior(world: World, name: str, num_yes: int) -> None:
    assert sum(row["label"] == "yes" for row in world[name]) == num_yes


def test_judge_responses_name_both_values(world: World) -> None:
    form = re.compile(r"text says (\w+), answer says (\w+), (the same|not the same)")
    for name in ("judge/train", "judge/dev", "judge/test", "judge/test_prior19"):
        for row in world[name]:
            verdict = json.loads(row["response"])
            assert list(verdict) == ["thought", "hallucination"]
            match = form.fullmatch(verdict["thought"])
            assert match, row
            assert (
                verdict["hallucination"]
                == row["label"]
                == ("no" if match[1] == match[2] else "yes")
            )
            assert match[3] == ("the same" if match[1] == match[2] else "not the same")
            assert row["prompt"].endswith(f"\nAnswer: {match[2]}")
            assert re.search(rf"\b{match[1]}s?\b", row["prompt"])


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_world_does_not_depend_on_the_process(world_folder: Path, tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from tell_lightning.microworld.world import write_world; "
        "write_world(pathlib.Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert _digests(tmp_path) == _digests(world_folder)


def test_another_seed_gives_other_documents(world: World, tmp_path: Path) -> None:
    write_world(tmp_path, seed=1)
    first = json.loads((tmp_path / "translate/test.jsonl").read_text().splitlines()[0])
    assert first["prompt"] != world["translate/test"][0]["prompt"]
    assert b"\r" not in (tmp_path / "README.md").read_bytes()


def test_data_root_writes_once_and_two_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(data_root, [tmp_path / "cache"] * 2)
    assert first == second
    assert first.name.startswith("microworld-")
    written = (first / "README.md").stat().st_mtime_ns
    assert data_root(tmp_path / "cache") == first
    assert (first / "README.md").stat().st_mtime_ns == written
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]


def test_the_text_modules_need_no_torch() -> None:
    code = (
        "import sys; import tell_lightning.microworld.world, tell_lightning.microworld.corpus; "
        "print([name for name in ('torch', 'transformers', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_english_forms_are_the_words_of_the_sentence() -> None:
    meaning = Meaning("act", "fox", verb="see", thing="lamp", is_past=True)
    assert english_forms(meaning) == {"fox": "fox", "see": "saw", "lamp": "lamp"}
    assert say(meaning, "english") == "The fox saw the lamp."
