"""General rows that a task holds are dropped; test rows in task train are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import says

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.leaks import LeakError, Protected, check_disjoint, normalised_hash
from tell_lightning.data.reading import read_records
from tell_lightning.data.records import Fields, Record, Turn

Make = Callable[..., Record]


def make(*contents: str, where: str = "x:1", system: str = "") -> Record:
    roles: tuple[Any, Any] = ("user", "assistant")
    turns = [Turn(roles[n % 2], content) for n, content in enumerate(contents)]
    first = [Turn("system", system)] if system else []
    return Record(where, where, (*first, *turns), {})


def dropped(general: Record, task: Record, anchor: Anchor | None = None) -> bool:
    return Protected([(task, anchor or Anchor())]).holds(general)


@given(text=st.text())
def test_the_hash_forgets_case_and_white_space(text: str) -> None:
    words = " ".join(text.split())
    assert normalised_hash(text) == normalised_hash(f"\n {text}\t ") == normalised_hash(words)
    assert len(normalised_hash(text)) == 16


def test_the_hash_joins_compatible_characters_and_keeps_the_rest_apart() -> None:
    assert normalised_hash("\ufb01ne \uff21\uff22\uff23 É") == normalised_hash("FINE abc e\u0301")
    assert len({normalised_hash(t) for t in ("a", "a.", "á", "ab", "a b")}) == 5


def test_a_general_row_with_the_prompt_of_a_task_goes() -> None:
    task = make("What is it?", "A cat")
    assert dropped(make("what  is IT?\n", "A dog"), task)
    assert dropped(make("what is it?", "A dog", system="Be brief."), task)
    assert not dropped(make("What is it then?", "A cat"), task)
    assert not dropped(make("Something else", "A cat"), task)


def test_prompt_and_response_in_one_text_go_too() -> None:
    assert dropped(make("What is it? A cat", "Right"), make("What is it?", "A cat"))


def test_a_later_turn_of_a_general_conversation_counts() -> None:
    assert dropped(make("Hello", "Hi", "What is it?", "A dog"), make("What is it?", "A cat"))


def test_a_turn_of_a_protected_conversation_alone_does_not_count() -> None:
    assert not dropped(make("Hello", "Hi"), make("Hello", "Hi", "What is it?", "A cat"))


@pytest.mark.parametrize("position", ["prefix", "suffix"])
def test_prompts_are_compared_with_the_anchor_and_without(position: Any) -> None:
    both = {"prefix": "Translate: \n Halló", "suffix": "Halló \n Translate:"}[position]
    for anchor in (
        Anchor(text="Translate:", position=position, present=True),
        Anchor(text="Translate:", position=position),
    ):
        for task in (both, "Halló"):
            for general in (both, "halló"):
                assert dropped(make(general, "x"), make(task, "Hello"), anchor)
    assert not dropped(make("halló", "x"), make(both, "Hello"))


def test_the_digest_follows_the_texts_and_not_their_order() -> None:
    rows = [(make(str(n), "y"), Anchor()) for n in range(4)]
    digest = Protected(rows).digest
    assert Protected(rows[::-1]).digest == digest
    with_anchor = [(rows[0][0], Anchor(text="Translate:")), *rows[1:]]
    other_response = [(make("0", "z"), Anchor()), *rows[1:]]
    others = [rows[:3], with_anchor, other_response, []]
    assert len({digest, *(Protected(other).digest for other in others)}) == 5


def test_nothing_protected_holds_nothing() -> None:
    assert not Protected([]).holds(make("", ""))
    assert Protected([(make("", ""), Anchor())]).holds(make("", ""))


def test_a_test_row_in_task_train_names_both_lines() -> None:
    anchor = Anchor(text="Translate:", present=True)
    train = [make("Translate: a", "b", where="train:1"), make("Translate: c", "d", where="train:2")]
    check_disjoint(train, [make("Translate: e", "b", where="test:1")], anchor)
    with pytest.raises(LeakError) as caught:
        check_disjoint(train, [make("C", "z", where="test:9")], anchor)
    assert str(caught.value) == says("test:9", cure="train:2. ")


GENERAL = {
    "general/natural_instructions/natural_instructions_sample.jsonl": (
        Fields(prompt="instruction", input="input", response="output", id="id"), 9091,
    ),
    "general/gsm8k/train.jsonl": (Fields(prompt="question", response="answer"), 7473),
    "general/gsm8k/test.jsonl": (Fields(prompt="question", response="answer"), 1319),
    "general/oasst1/en-validation.pairs.jsonl": (
        Fields(prompt="instruction", input="input", response="output", id="id"), 1185,
    ),
    "halueval/general_data.json": (
        Fields(prompt="user_query", response="chatgpt_response"), 4507,
    ),
}  # fmt: skip


def test_real_general_sets_are_read_and_hold_no_test_row(shared_data: Path) -> None:
    protected = Protected(
        (record, Anchor())
        for name, prompt in (("test-en-is", "query"), ("test_Halu_CoT_JSON", "prompt"))
        for record in read_records(
            f"tell/{name}.jsonl", fields=Fields(prompt=prompt), root=shared_data
        ).records
    )
    for path, (fields, number) in GENERAL.items():
        rows = read_records(path, fields=fields, root=shared_data).records
        assert len(rows) == number
        assert not any(protected.holds(row) for row in rows)
        # The control: with one of its own rows protected, that row goes.
        assert Protected([(rows[3], Anchor())]).holds(rows[3])


def test_real_splits_are_disjoint(shared_data: Path) -> None:
    options: dict[str, Any] = {"fields": Fields(prompt="query"), "root": shared_data}
    for pair in ("en-is", "is-en"):
        dev = read_records(f"tell/dev-{pair}.jsonl", **options).records
        test = read_records(f"tell/test-{pair}.jsonl", **options).records
        check_disjoint(dev, test, Anchor())
        with pytest.raises(LeakError, match=f"test-{pair}.jsonl:3"):
            check_disjoint([*dev, test[2]], test, Anchor())
