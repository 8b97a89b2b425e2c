"""What `make real` runs: hand-written letters, and SmolLM2, for which a tiny Llama stands in."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from tiny_models import save_llama
from tiny_runs import Run

from tell_lightning.cli import main
from tell_lightning.data.settings import DataSettings
from tell_lightning.data.splits import cache_folder
from tell_lightning.smollm2.base import folder_in

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/real.yaml"
FOLDER = ROOT / "configs/real"
SIZES = {"train": 20, "dev": 40, "test": 100}
VALUES = {
    "problem": {"broken", "late", "missing", "wrong", "billing", "question"},
    "wish": {"refund", "replacement", "repair", "delivery", "explanation", "cancellation"},
    "urgency": {"low", "normal", "high"},
}


def read(name: str) -> list[dict[str, object]]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


LETTERS = {split: read(split) for split in SIZES}


def words(text: object) -> set[str]:
    return set(re.findall(r"\w+", str(text).lower()))


def likeness(one: set[str], other: set[str]) -> float:
    """Jaccard: words in both over words in either."""
    return len(one & other) / len(one | other)


@pytest.fixture
def smollm2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Llama in the place where SmolLM2 is looked for first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    folder = folder_in(cache_folder(DataSettings()))
    rows = [*(row for rows in LETTERS.values() for row in rows), *read("general")]
    return save_llama(folder, [json.dumps(row) for row in rows], vocab_size=6000)


# The rows


@pytest.mark.parametrize("split", SIZES)
def test_every_letter_has_its_line_of_the_form(split: str) -> None:
    rows = LETTERS[split]
    assert [row["id"] for row in rows] == [f"{split}-{n}" for n in range(1, SIZES[split] + 1)]
    for row in rows:
        ticket = row["response"]
        assert list(ticket) == ["product", *VALUES]
        assert ticket["product"] in row["prompt"].lower()
        assert 20 <= len(row["prompt"].split()) <= 90
        for name, allowed in VALUES.items():
            assert ticket[name] in allowed


@pytest.mark.parametrize("name", VALUES)
def test_every_value_is_trained_and_none_is_most_of_the_test(name: str) -> None:
    counts = {split: Counter(row["response"][name] for row in LETTERS[split]) for split in SIZES}
    assert all(set(counted) == VALUES[name] for counted in counts.values())
    assert min(counts["train"].values()) >= 2
    assert max(counts["test"].values()) <= 50


def test_no_two_letters_are_alike() -> None:
    rows = [row for rows in LETTERS.values() for row in rows]
    products = Counter(row["response"]["product"] for row in rows)
    assert set(products.values()) == {1}
    letters = [words(row["prompt"]) for row in rows]
    assert max(likeness(*pair) for pair in combinations(letters, 2)) < 0.3


def test_no_general_row_is_or_resembles_a_letter() -> None:
    letters = [words(row["prompt"]) for rows in LETTERS.values() for row in rows]
    general, held_out = read("general"), read("general_held_out")
    assert len({row["prompt"] for row in [*general, *held_out]}) == len(general) + len(held_out)
    for row in [*general, *held_out]:
        text = words(row["prompt"])
        assert max(likeness(text, letter) for letter in letters) < 0.3


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000


# The configuration


def test_the_plan_takes_every_letter_and_every_general_row(
    smollm2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plan", "-c", str(CONFIG)])
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    (task,) = [line for line in table if line[:2] == ["tickets", "task"]]
    (general,) = [line for line in table if line[:2] == ["own_words", "general"]]
    assert task[2] == "20"
    assert general[2] == str(len(read("general")))


@pytest.mark.long
def test_a_run_scores_base_adapter_and_anchor_off(smollm2: Path, tmp_path: Path) -> None:
    main(
        [
            *("fit", "-c", str(CONFIG), f"--run.dir={tmp_path / 'runs'}"),
            *("--trainer.max_steps=2", "--trainer.log_every_n_steps=1", "--eval.every_steps=2"),
            *("--data.tasks.tickets.max_new_tokens=4", "--eval.probe=false"),
            *("--trainer.accelerator=cpu", "--trainer.devices=1"),
        ]
    )
    (folder,) = (tmp_path / "runs").iterdir()
    run = Run(folder)
    assert run.record["status"] == "completed"
    assert run.record["base"]["name"] == "smollm2"
    assert set(run.record["metrics"]["test"]) >= {"before", "after"}
    assert json.loads((folder / "adapter/anchor.json").read_text())["base"] == "smollm2"
