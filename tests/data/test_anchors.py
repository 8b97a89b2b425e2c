"""Adding, checking and taking off anchors, on made-up rows and on the real ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import Says, says

from tell_lightning.data.anchors import (
    Anchor,
    AnchorError,
    Position,
    anchor_digest,
    anchor_from_json,
    anchor_record,
    anchor_to_json,
    reference_text,
    strip_anchor,
    strip_response_prefix,
)
from tell_lightning.data.reading import read_records
from tell_lightning.data.records import Fields, Record, Turn

ICELANDIC = Anchor(
    text="This text is in English and needs to be translated into Icelandic. Please translate only "
    "the text, strictly maintaining the original content order without making any other changes.",
    response_prefix="Sure, here is the Icelandic translation:",
    present=True,
)
ENGLISH = Anchor(
    text="This text is in Icelandic and needs to be translated into English. Please translate only "
    "the text, strictly maintaining the original content order without making any other changes.",
    response_prefix="Sure, here is the English translation:",
    present=True,
)
HALU = Anchor(text="Role and Goal: You are an advanced AI designed to analyze", present=True)
REAL = {
    "dev-en-is": ICELANDIC,
    "test-en-is": ICELANDIC,
    "dev-is-en": ENGLISH,
    "test-is-en": ENGLISH,
    "test_Halu_CoT_JSON": HALU,
}


def record(*contents: str, system: str | None = None) -> Record:
    roles: tuple[Any, Any] = ("user", "assistant")
    turns = [Turn(roles[n % 2], content) for n, content in enumerate(contents)]
    first = [Turn("system", system)] if system is not None else []
    return Record("7", "d.jsonl:7", (*first, *turns), {"k": 1})


def contents(of: Any) -> list[str]:
    return [turn.content for turn in of.turns]


def test_no_anchor_leaves_the_record_as_it_is() -> None:
    one = record("p", "r", system="s")
    for anchored in (True, False):
        example = anchor_record(one, Anchor(), anchored=anchored)
        assert (example.id, example.where, example.turns, example.row) == (
            one.id, one.where, one.turns, one.row,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("position", "wanted"),
    [
        ("prefix", ["A\n\np1", "X: r1", "A\n\np2", "X: r2"]),
        ("suffix", ["p1\n\nA", "X: r1", "p2\n\nA", "X: r2"]),
        ("system", ["A", "p1", "X: r1", "p2", "X: r2"]),
    ],
)
def test_the_anchor_goes_on_every_turn(position: Position, wanted: list[str]) -> None:
    anchor = Anchor(text="A", position=position, response_prefix="X: ")
    one = record("p1", "r1", "p2", "r2")
    assert contents(anchor_record(one, anchor, anchored=True)) == wanted
    assert contents(anchor_record(one, anchor, anchored=False)) == contents(one)


def test_a_system_anchor_joins_the_system_text_that_is_there() -> None:
    anchor = Anchor(text="A", position="system", separator=" | ")
    example = anchor_record(record("p", "r", system="s"), anchor, anchored=True)
    assert contents(example) == ["A | s", "p", "r"]


def test_an_empty_response_prefix_leaves_responses_alone() -> None:
    assert contents(anchor_record(record("p", "no"), Anchor(text="A"), anchored=True))[1] == "no"


def test_a_record_to_predict_needs_no_response() -> None:
    anchor = Anchor(text="A", response_prefix="X: ")
    assert contents(anchor_record(record("p"), anchor, anchored=True)) == ["A\n\np"]


@pytest.mark.parametrize("position", ["prefix", "suffix", "system"])
@given(
    text=st.text(min_size=1).filter(str.strip),
    response=st.text(min_size=1).filter(str.strip),
    gap=st.sampled_from(["", " ", "\n\n "]),
)
def test_what_was_added_is_found_and_taken_off_again(
    position: Position, text: str, response: str, gap: str
) -> None:
    anchor = Anchor(text="§A§", position=position, response_prefix="§X§" + gap)
    one = record(text, response)
    done = anchor_record(one, anchor, anchored=True)
    present = replace(anchor, present=True)
    assert anchor_record(done, present, anchored=True) == done
    bare = anchor_record(done, present, anchored=False)
    assert [c.strip() for c in contents(bare)] == [text.strip(), response.strip()]
    assert reference_text(done, anchor) == response.strip()


@pytest.mark.parametrize("separator", ["\n\n ", "\n\n", " ", ""])
def test_any_white_space_may_follow_an_anchor_in_the_data(separator: str) -> None:
    anchor = Anchor(text="A:", response_prefix="X: \n", present=True)
    one = record(f"A:{separator}p", f"X:{separator}r")
    assert contents(anchor_record(one, anchor, anchored=True)) == contents(one)
    assert contents(anchor_record(one, anchor, anchored=False)) == ["p", "r"]


PRESENT = Anchor(text="A", response_prefix="X:", present=True)


@pytest.mark.parametrize(
    ("one", "anchor", "message"),
    [
        (
            record("A p", "X: r", "p2", "X: r"),
            PRESENT,
            says("d.jsonl:7", rule=["user", "'A'"], got="'p2'", cure="anchor.present: false"),
        ),
        (
            record("A p", "X: r"),
            replace(PRESENT, position="suffix"),
            says("d.jsonl:7", rule=["user", "'A'"], got="'A p'", cure="anchor.present: false"),
        ),
        (
            record("A p", "X: r"),
            replace(PRESENT, position="system"),
            says("d.jsonl:7", rule=["system", "'A'"], got="''", cure="anchor.present: false"),
        ),
        (
            record("A p", "r"),
            PRESENT,
            says("d.jsonl:7", rule=["assistant", "'X:'"], got="'r'", cure="anchor.present: false"),
        ),
        (
            record("A p", "r"),
            Anchor(text="A"),
            says("d.jsonl:7", rule=["user", "anchor"], cure=["'A p'", "anchor.present: true"]),
        ),
        (
            record("p", "X: r"),
            Anchor(response_prefix="X: "),
            says(
                "d.jsonl:7",
                rule=["assistant", "response prefix"],
                cure=["'X: r'", "anchor.present: true"],
            ),
        ),
    ],
)
def test_a_row_that_breaks_the_rule_is_named(one: Record, anchor: Anchor, message: Says) -> None:
    with pytest.raises(AnchorError) as caught:
        anchor_record(one, anchor, anchored=True)
    assert str(caught.value) == message


def test_nothing_but_the_anchor_is_an_error() -> None:
    with pytest.raises(AnchorError) as caught:
        anchor_record(record("A ", "X: r"), PRESENT, anchored=False)
    assert str(caught.value) == says("d.jsonl:7", rule=["user", "anchor"], got="'A '")


def test_a_reference_may_lack_the_response_prefix() -> None:
    one = record("A p", "r")
    assert reference_text(one, PRESENT) == "r"
    assert reference_text(record("A p"), PRESENT) is None
    example = anchor_record(one, PRESENT, anchored=True, check_reference=False)
    assert contents(example) == ["A p", "r"]


def test_prompts_and_responses_lose_the_anchor_where_it_is_there() -> None:
    anchor = Anchor(text="A", response_prefix="X: \n\n ")
    assert [strip_anchor(text, anchor) for text in ("A  p", "p")] == ["p", "p"]
    assert strip_anchor("p A", replace(anchor, position="suffix")) == "p"
    assert strip_anchor("A p", replace(anchor, position="system")) == "A p"
    assert [strip_response_prefix(t, anchor) for t in (" X:\nr\n", "r ", "X:")] == ["r", "r", ""]


def test_the_digest_names_what_the_model_sees() -> None:
    anchor = Anchor(text="A")
    assert anchor_digest(anchor) == anchor_digest(replace(anchor, present=True))
    others = [
        replace(anchor, text="B"),
        replace(anchor, position="suffix"),
        replace(anchor, response_prefix="X"),
        replace(anchor, separator=" "),
    ]
    assert len({anchor_digest(a) for a in [anchor, *others]}) == 5


@pytest.mark.parametrize("anchor", [Anchor(), ICELANDIC, Anchor(text="þ", position="system")])
def test_an_anchor_survives_its_file(anchor: Anchor) -> None:
    data = json.loads(json.dumps(anchor_to_json(anchor)))
    assert anchor_from_json(data, where="anchor.json") == anchor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"colour": 1},
            says(
                "anchor.json",
                rule=["text, position, response_prefix, present, separator", "digest"],
                got="{",
            ),
        ),
        ({"present": "yes"}, says("anchor.json", rule=["present", "true or false"], got="{")),
        ({"position": "top"}, says("anchor.json", rule="digest", got="'", cure="its run")),
        ({"text": "B"}, says("anchor.json", rule="digest", got="'", cure="its run")),
    ],
)
def test_a_damaged_anchor_file_is_named(change: dict[str, object], message: Says) -> None:
    with pytest.raises(AnchorError) as caught:
        anchor_from_json({**anchor_to_json(Anchor(text="A")), **change}, where="anchor.json")
    assert str(caught.value) == message
    with pytest.raises(AnchorError, match=r"got \[\]\. Copy"):
        anchor_from_json([], where="anchor.json")


@pytest.mark.parametrize("name", REAL)
def test_every_real_row_carries_its_anchor_and_loses_it(shared_data: Path, name: str) -> None:
    fields = Fields(prompt="prompt" if "Halu" in name else "query")
    rows = read_records(f"tell/{name}.jsonl", fields=fields, root=shared_data)
    counts = dict(zip(REAL, (71, 65, 56, 47, 1506), strict=True))
    assert len(rows.records) == counts[name]
    anchor = REAL[name]
    for one in rows.records:
        kept = anchor_record(one, anchor, anchored=True)
        assert kept.turns == one.turns
        prompt, response = contents(anchor_record(one, anchor, anchored=False))
        assert one.turns[0].content.startswith(anchor.text)
        assert one.turns[0].content.endswith(prompt)
        assert anchor.text not in prompt
        assert prompt == prompt.lstrip()
        assert response == response.lstrip()
        assert not response.startswith("Sure, here is")
        assert reference_text(one, anchor) == response.strip()


def test_a_real_file_under_the_other_direction_s_anchor_is_refused(shared_data: Path) -> None:
    rows = read_records("tell/dev-en-is.jsonl", fields=Fields(prompt="query"), root=shared_data)
    with pytest.raises(AnchorError, check=says("dev-en-is.jsonl:1", rule=["user", "anchor"])):
        anchor_record(rows.records[0], ENGLISH, anchored=True)
