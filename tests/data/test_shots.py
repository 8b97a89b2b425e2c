"""The few-shot baseline: the drawn task examples stand before every prompt."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from messages import says
from tiny_tokenizers import chat_template, family_tokenizer

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.prepared import PreparedData
from tell_lightning.data.settings import DataSettings, General, Mixture, Task
from tell_lightning.data.tokenizer import load_tokenizer
from tell_lightning.data.tokens import TokenError

TRAIN = [f"number {n}?" for n in "abcdefgh"]
Made = Callable[..., PreparedData]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """The function that opens the data of a task with four drawn examples."""

    def write(name: str, prompts: list[str]) -> str:
        rows = [json.dumps({"prompt": p, "response": f"It is {p[7:8]}."}) for p in prompts]
        (tmp_path / name).write_text("\n".join(rows) + "\n")
        return name

    def make(
        positions: int = 4096, held_out: bool = True, template: str = "smollm2", **anchor: Any
    ) -> PreparedData:
        base = tmp_path / "base"
        family_tokenizer(chat_template(template)).save_pretrained(str(base))
        config = {"model_type": "llama", "max_position_embeddings": positions, "vocab_size": 400}
        (base / "config.json").write_text(json.dumps(config))
        test = write("test.jsonl", ["number x?", "number yy?"])
        task = Task(
            train=write("train.jsonl", TRAIN),
            test=test,
            max_new_tokens=8,
            anchor=Anchor(text="Name it.", **anchor),
        )
        general = General(
            train=write("general.jsonl", [f"what {n}?" for n in range(40)]),
            held_out=write("held_out.jsonl", ["why?"]) if held_out else None,
        )
        settings = DataSettings(
            root=str(tmp_path),
            tasks={"t": task},
            general={"g": general},
            mixture=Mixture(task_examples=4),
            cache_dir=str(tmp_path / "cache"),
        )
        data = PreparedData(settings, load_tokenizer(str(base)), seed=1)
        data.prepare()
        data.open()
        return data

    return make


def texts(data: PreparedData) -> list[str]:
    rows = data.evaluation["test"]["t"]
    return [data.encoder.tokenizer.decode(list(ids)) for ids in rows.prompts]


def drawn(data: PreparedData) -> list[str]:
    """The drawn prompts, in the order of the draw."""
    return [TRAIN[int(row_id.rpartition(":")[2]) - 1] for row_id in data.drawn_ids["t"]]


def in_order(text: str, parts: list[str]) -> bool:
    places = [text.find(part) for part in parts]
    return -1 not in places and places == sorted(places)


@pytest.mark.parametrize("template", ["smollm2", "qwen3", "mistral_v3"])
def test_every_prompt_begins_with_the_drawn_examples_and_ends_as_before(
    made: Made, template: str
) -> None:
    data = made(template=template)
    before = texts(data)
    assert data.add_shots() == {"t": 4}
    turns = [
        part for prompt in drawn(data) for part in (f"Name it.\n\n{prompt}", f"It is {prompt[7]}.")
    ]
    for text, plain in zip(texts(data), before, strict=True):
        assert in_order(text, turns)
        assert text.count("Name it.") == 5
        assert text.endswith(plain[plain.index("Name it.") :])
    assert not any(prompt in text for text in texts(data) for prompt in {*TRAIN} - {*drawn(data)})


def test_a_system_anchor_stands_once_at_the_beginning(made: Made) -> None:
    data = made(position="system")
    data.add_shots()
    for text in texts(data):
        assert text.count("Name it.") == 1
        assert in_order(text, ["Name it.", *drawn(data)])


def test_as_many_examples_as_fit_into_the_positions(made: Made) -> None:
    data = made()
    data.add_shots()
    whole = max(len(ids) for ids in data.evaluation["test"]["t"].prompts)
    assert made(positions=whole + 8).add_shots() == {"t": 4}
    fewer = made(positions=whole + 7)
    assert fewer.add_shots() == {"t": 3}
    first, *_, last = drawn(fewer)
    assert all(first in text and last not in text for text in texts(fewer))


def test_no_room_for_one_example_is_named(made: Made) -> None:
    data = made()
    plain = max(len(ids) for ids in data.evaluation["test"]["t"].prompts)
    with pytest.raises(TokenError) as caught:
        made(positions=plain + 9).add_shots()
    assert str(caught.value) == says(
        "test.jsonl:2", rule=f"{plain + 9}", cure="a base with more positions"
    )


def test_the_loss_of_task_rows_is_left_out_where_others_have_one(made: Made) -> None:
    data = made()
    data.add_shots()
    assert [name for name, _ in data.loss_rows["test"]] == ["g"]


def test_without_others_the_loss_is_that_of_the_last_response(made: Made) -> None:
    data = made(held_out=False)
    data.add_shots()
    for text, (name, row) in zip(texts(data), data.loss_rows["test"], strict=True):
        supervised = [i for i, flag in zip(*row, strict=True) if flag]
        said = data.encoder.tokenizer.decode(supervised)
        assert (name, said.startswith("It is ")) == ("t", True)
        assert data.encoder.tokenizer.decode(row.input_ids).startswith(text)
        assert len(supervised) < 30
