"""The few-shot prompt: the drawn task examples stand before every prompt."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from messages import says
from tiny_tokenizers import chat_template, family_tokenizer

from tell_lightning.data import evaluation_rows
from tell_lightning.data.anchors import Anchor
from tell_lightning.data.limits import Limits
from tell_lightning.data.prepared import PreparedData
from tell_lightning.data.records import Fields
from tell_lightning.data.settings import DataSettings, General, Mixture, Task
from tell_lightning.data.tokenizer import load_tokenizer
from tell_lightning.data.tokens import TokenError

TRAIN = [f"number {n}?" for n in "abcdefgh"]
TEST = ["number x?", "number yy?"]
PAIR = Fields()
"""Prompt and response."""
Made = Callable[..., PreparedData]


def row(prompt: str) -> dict[str, Any]:
    """A row as prompt and response, with a system text, and as a conversation of two responses."""
    response = f"It is {prompt[7:8]}."
    texts = [("user", prompt), ("assistant", response), ("user", "So?"), ("assistant", "Yes.")]
    return {
        "prompt": prompt,
        "response": response,
        "system": f"Talk of {prompt}",
        "messages": [{"role": role, "content": text} for role, text in texts],
    }


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """The function that opens the data of a task with four drawn examples."""

    def write(name: str, prompts: Sequence[str]) -> str:
        (tmp_path / name).write_text("".join(f"{json.dumps(row(p))}\n" for p in prompts))
        return name

    def make(
        positions: int = 4096,
        held_out: bool = True,
        template: str = "smollm2",
        train: Sequence[str] = TRAIN,
        file: str = "train.jsonl",
        task_examples: int | None = 4,
        fields: Fields = PAIR,
        forced: bool = False,
        seed: int = 1,
        **anchor: Any,
    ) -> PreparedData:
        base = tmp_path / "base"
        family_tokenizer(chat_template(template)).save_pretrained(str(base))
        config = {"model_type": "llama", "max_position_embeddings": positions, "vocab_size": 400}
        (base / "config.json").write_text(json.dumps(config))
        task = Task(
            train=write(file, train),
            dev=write("dev.jsonl", ["number w?"]),
            test=write("test.jsonl", TEST),
            fields=fields,
            max_new_tokens=8,
            force_response_prefix=forced,
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
            mixture=Mixture(task_examples=task_examples),
            cache_dir=str(tmp_path / "cache"),
        )
        data = PreparedData(settings, load_tokenizer(str(base)), seed=seed)
        data.prepare()
        data.open()
        return data

    return make


def texts(data: PreparedData, split: str = "test") -> list[str]:
    rows = data.evaluation[split]["t"]
    return [data.encoder.tokenizer.decode(list(ids)) for ids in rows.prompts]


def drawn(data: PreparedData) -> set[str]:
    """The drawn prompts."""
    return {TRAIN[int(row_id.rpartition(":")[2]) - 1] for row_id in data.drawn_ids["t"]}


def shown(data: PreparedData) -> list[str]:
    """The training prompts before the first test prompt, in the order of the text."""
    text = texts(data)[0]
    return sorted((prompt for prompt in TRAIN if prompt in text), key=text.index)


def in_order(text: str, parts: list[str]) -> bool:
    places = [text.find(part) for part in parts]
    return -1 not in places and places == sorted(places)


@pytest.mark.parametrize("template", ["smollm2", "qwen3", "mistral_v3"])
def test_every_prompt_begins_with_the_drawn_examples_and_ends_as_before(
    made: Made, template: str
) -> None:
    data = made(template=template)
    rows, before = data.evaluation["test"]["t"], texts(data)
    assert data.add_shots(["test"]) == {"t": 4}
    assert {*shown(data)} == drawn(data)
    turns = [
        part for prompt in shown(data) for part in (f"Name it.\n\n{prompt}", f"It is {prompt[7]}.")
    ]
    for text, plain in zip(texts(data), before, strict=True):
        assert in_order(text, turns)
        assert text.count("Name it.") == 5
        assert text.endswith(plain[plain.index("Name it.") :])
    assert not any(prompt in text for text in texts(data) for prompt in {*TRAIN} - drawn(data))
    after = data.evaluation["test"]["t"]
    assert (after.records, after.references) == (rows.records, rows.references)


def test_a_system_anchor_stands_once_at_the_beginning(made: Made) -> None:
    data = made(position="system")
    data.add_shots(["test"])
    for text in texts(data):
        assert text.count("Name it.") == 1
        assert in_order(text, ["Name it.", *shown(data)])


def test_system_texts_of_examples_are_left_out_and_that_of_the_row_stays(made: Made) -> None:
    data = made(fields=Fields(system="system"))
    data.add_shots(["test"])
    for text, own in zip(texts(data), TEST, strict=True):
        assert text.count("Talk of") == 1
        assert in_order(text, [f"Talk of {own}", *shown(data)])


def test_the_order_follows_from_the_texts_and_the_seed_and_not_from_the_file(made: Made) -> None:
    orders = []
    for train, seed in ((TRAIN, 1), (TRAIN[::-1], 1), (TRAIN, 2)):
        data = made(train=train, seed=seed, task_examples=None)
        assert data.add_shots(["test"]) == {"t": 8}
        orders.append(shown(data))
    assert orders[0] == orders[1]
    assert orders[0] not in (TRAIN, TRAIN[::-1], orders[2])


def test_rows_that_were_prepared_under_another_name_are_found(made: Made) -> None:
    made(file="before.jsonl")
    data = made(file="after.jsonl")
    assert data.add_shots(["test"]) == {"t": 4}
    assert {*shown(data)} == drawn(data)


def test_of_a_conversation_whose_responses_are_rows_of_their_own_the_whole_is_shown(
    made: Made,
) -> None:
    data = made(template="qwen3", fields=Fields(messages="messages"))
    conversations = {row_id.rpartition("/")[0] for row_id in data.drawn_ids["t"]}
    assert all(name.startswith("train.jsonl:") for name in conversations)
    assert data.add_shots(["test"]) == {"t": len(conversations)}
    assert all(text.count("Yes.") == len(conversations) for text in texts(data))


def test_only_the_prompts_of_the_splits_that_are_scored_get_examples(made: Made) -> None:
    data = made()
    (dev,), test = texts(data, "dev"), texts(data)
    assert data.add_shots(["dev"]) == {"t": 4}
    assert texts(data) == test
    assert texts(data, "dev")[0].count("Name it.") == dev.count("Name it.") + 4


def test_a_beginning_that_answers_are_forced_to_have_stays_forced(made: Made) -> None:
    for forced, prefix in ((True, ""), (False, "Answer: ")):
        data = made(forced=forced, response_prefix="Answer: ")
        data.add_shots(["test"])
        assert data.evaluation["test"]["t"].response_prefix == prefix
        for text in texts(data):
            assert text.endswith("Answer:") == forced
            assert text.count("Answer:") == 4 + forced


def test_as_many_examples_as_fit_into_the_positions(made: Made) -> None:
    data = made()
    data.add_shots(["test"])
    whole = max(len(ids) for ids in data.evaluation["test"]["t"].prompts)
    assert made(positions=whole + 8).add_shots(["test"]) == {"t": 4}
    fewer = made(positions=whole + 7)
    assert fewer.add_shots(["test"]) == {"t": 3}
    assert shown(fewer) == shown(data)[:3]


@pytest.mark.parametrize("positions", [4096, None])
def test_a_base_with_more_positions_gets_a_prompt_of_a_limited_length(
    made: Made, monkeypatch: pytest.MonkeyPatch, positions: int | None
) -> None:
    data = made()
    data.add_shots(["test"])
    whole = max(len(ids) for ids in data.evaluation["test"]["t"].prompts)
    for most, number in ((whole + 8, 4), (whole + 7, 3)):
        monkeypatch.setattr(evaluation_rows, "MOST_TOKENS", most)
        again = made()
        monkeypatch.setattr(again.encoder, "limits", Limits(positions=positions))
        assert again.add_shots(["test"]) == {"t": number}


def test_without_examples_the_prompts_are_as_they_were(made: Made) -> None:
    data = made()
    rows = data.evaluation["test"]["t"]
    found, number = evaluation_rows.with_shots(data.encoder, rows, [])
    assert (found.prompts, number) == (rows.prompts, 0)


def test_no_room_for_one_example_is_named(made: Made) -> None:
    data = made()
    plain = max(len(ids) for ids in data.evaluation["test"]["t"].prompts)
    with pytest.raises(TokenError) as caught:
        made(positions=plain + 9).add_shots(["test"])
    assert str(caught.value) == says(
        "test.jsonl:2", rule=f"{plain + 9}", cure="a base with more positions"
    )


def test_the_loss_of_task_rows_is_left_out_where_others_have_one(made: Made) -> None:
    data = made()
    data.add_shots(["test"])
    assert [name for name, _ in data.loss_rows["test"]] == ["g"]


def test_without_others_the_loss_is_that_of_the_last_response(made: Made) -> None:
    data = made(held_out=False)
    data.add_shots(["test"])
    for text, (name, row) in zip(texts(data), data.loss_rows["test"], strict=True):
        supervised = [i for i, flag in zip(*row, strict=True) if flag]
        said = data.encoder.tokenizer.decode(supervised)
        assert (name, said.startswith("It is ")) == ("t", True)
        assert data.encoder.tokenizer.decode(row.input_ids).startswith(text)
        assert len(supervised) < 30
