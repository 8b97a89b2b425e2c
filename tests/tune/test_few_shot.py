"""The few-shot prompt: the task's rows as earlier turns, as many as fit, scored as other rows."""

import json

import pytest
from tiny_tokenizers import character_tokenizer

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.evaluation_rows import evaluation_example
from tell_lightning.data.limits import Limits
from tell_lightning.data.records import Record, Turn
from tell_lightning.data.settings import DataSettings, Task
from tell_lightning.data.splits import read_splits
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder
from tell_lightning.experiment.overlays import merged
from tell_lightning.settings import as_settings, plain
from tell_lightning.tuning.few_shot import conversation, few_shot, fitting

ANCHOR = Anchor(text="Turn it.", response_prefix="Turned: ")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = character_tokenizer()
    return Encoder(tokenizer, Renderer(tokenizer))


def record(n: int, system: str = "") -> Record:
    turns = (Turn("user", f"ask {n}"), Turn("assistant", f"{n} ksa"))
    start = (Turn("system", system),) if system else ()
    return Record(f"r{n}", f"d.jsonl:{n}", (*start, *turns), {"prompt": f"ask {n}", "n": n})


def test_examples_stand_before_the_row_and_the_system_text_of_the_row_before_them():
    found = conversation([record(1, system="old"), record(2)], record(3, system="own"))
    roles = [turn.role for turn in found]
    assert roles == ["system", *["user", "assistant"] * 3]
    assert [found[0].content, found[1].content, found[-2].content] == ["own", "ask 1", "ask 3"]


@pytest.mark.parametrize("room", [60, 200, 500, 5000])
def test_as_many_examples_as_fit_and_not_one_more(encoder, room, monkeypatch):
    monkeypatch.setattr(encoder, "limits", Limits(positions=room))
    examples = [record(n) for n in range(10)]
    asked = [record(77), record(7777777)]
    found = fitting(encoder, examples, asked, ANCHOR, answer=20)

    def longest(count: int) -> int:
        whole = [Record(each.id, "", conversation(examples[:count], each), {}) for each in asked]
        told = [evaluation_example(each, ANCHOR, "given") for each in whole]
        return max(map(len, encoder.prompt_ids(told))) + 20

    assert found == 0 or longest(found) <= room
    assert found == 10 or longest(found + 1) > room
    assert (room == 5000) == (found == 10)


def test_the_written_rows_have_the_ids_columns_and_references_of_the_rows(encoder, tmp_path):
    for name, numbers in (("train", range(6)), ("dev", range(6, 9))):
        rows = [{"q": f"ask {n}", "a": f"{n} ksa", "n": n} for n in numbers]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    task = Task(
        train="train.jsonl",
        dev="dev.jsonl",
        test="absent.jsonl",
        fields={"prompt": "q", "response": "a"},  # type: ignore[arg-type]
        anchor=ANCHOR,
    )
    data = as_settings(DataSettings, plain(DataSettings(root=str(tmp_path), tasks={"t": task})), "")
    made = as_settings(DataSettings, merged(plain(data), {"tasks": {"t": {"test": None}}}), "data")
    found = few_shot(made, encoder, tmp_path / "few", split="dev")
    assert found.examples == {"t": 6}
    own = as_settings(DataSettings, merged(plain(data), found.overlay["data"]), "data")
    before, after = (read_splits(each).dev["t"].records for each in (made, own))
    assert [each.id for each in before] == [each.id for each in after]
    assert [each.response for each in before] == [each.response for each in after]
    assert [each.row["n"] for each in after] == [6, 7, 8]
    (prompt, *_) = [evaluation_example(each, own.tasks["t"].anchor, "given") for each in after]
    text = encoder.renderer.prompt_text(prompt)
    assert text.count("Turn it.") == 7
    assert text.count("Turned: ") == 6
    assert "6 ksa" not in text
