"""Rows to answer: files are checked in whole first, lines come one by one, anchors are settled."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from messages import says

from tell_lightning.data.anchors import Anchor, AnchorError
from tell_lightning.data.evaluation_rows import evaluation_example
from tell_lightning.data.formats import RecordError
from tell_lightning.data.prediction_rows import check_rows, read_lines, settle_anchor
from tell_lightning.data.records import Fields, Record, Turn

ANCHOR = Anchor(text="Translate this.", response_prefix="Sure: ")
POSITIONS = ("prefix", "suffix", "system")


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def check(path: str, **options):
    options = {"on_bad_rows": "error", "max_bad_share": 0.5, "examine": lambda _: None} | options
    return check_rows(path, fields=Fields(id=options.pop("id", None)), root=Path(), **options)


def record(*texts: str, id: str = "r") -> Record:
    roles = ("user", "assistant") * len(texts)
    turns = tuple(Turn(role, text) for role, text in zip(roles, texts, strict=False))
    return Record(id, f"d.jsonl:{id}", turns, {})


# Files


def test_a_file_can_be_walked_over_again_and_keeps_no_rows(tmp_path):
    path = write(tmp_path / "d.jsonl", {"prompt": "a"}, {"prompt": "b", "response": "B"})
    rows = check(path)
    assert rows.count == 2
    for _ in range(2):
        assert [(row.id, row.response) for row in rows] == [("d.jsonl:1", None), ("d.jsonl:2", "B")]


def test_every_row_is_examined_before_the_first_is_given(tmp_path):
    def examine(row: Record) -> None:
        if row.turns[0].content == "b":
            raise AnchorError("no")

    path = write(tmp_path / "d.jsonl", {"prompt": "a"}, {"prompt": "b"})
    with pytest.raises(AnchorError):
        check(path, examine=examine)
    rows = check(path, examine=examine, on_bad_rows="skip")
    assert (rows.count, rows.bad, [row.id for row in rows]) == (1, ("no",), ["d.jsonl:1"])


def test_bad_rows_are_an_error_or_left_out_and_named_up_to_a_share(tmp_path):
    path = write(tmp_path / "d.jsonl", {"prompt": "a"}, {"prompt": ""}, {"prompt": "c"})
    with pytest.raises(RecordError, check=says("d.jsonl:2", rule="'prompt'")):
        check(path)
    rows = check(path, on_bad_rows="skip")
    assert (rows.count, [row.id for row in rows]) == (2, ["d.jsonl:1", "d.jsonl:3"])
    assert [line.split(": ")[1][:14] for line in rows.bad] == ["field 'prompt'"]
    with pytest.raises(RecordError, match=r"share of 0 .*, got 1"):
        check(path, on_bad_rows="skip", max_bad_share=0)


def test_an_id_comes_once(tmp_path):
    rows = [{"prompt": "a", "name": "x"}, {"prompt": "b", "name": "x"}]
    path = write(tmp_path / "d.jsonl", *rows)
    with pytest.raises(RecordError, check=says("d.jsonl:2", got="'x'", cure="d.jsonl:1")):
        check(path, id="name")


def test_a_file_that_is_changed_between_check_and_answers_is_named(tmp_path):
    path = write(tmp_path / "d.jsonl", {"prompt": "a"})
    rows = check(path)
    write(tmp_path / "d.jsonl", {"prompt": "a"}, {"prompt": "b"})
    with pytest.raises(RecordError, match="got a change"):
        list(rows)


# Lines


def lines(*given: bytes, **fields) -> list[Record | RecordError]:
    return list(read_lines(given, Fields(**fields), refuse_c))


def refuse_c(row: Record) -> None:
    if row.turns[0].content == "c":
        raise AnchorError("no")


def test_a_line_is_a_prompt_or_a_json_row_and_its_number_its_id():
    found = lines("\ufeffÞetta\r\n".encode(), b"\n", b'{"prompt": "x", "response": "y"}', b"  z ")
    assert [(row.id, row.turns[0].content) for row in found] == [
        ("1", "Þetta"),
        ("3", "x"),
        ("4", "  z "),
    ]
    assert found[1].response == "y"
    (named,) = lines(b'{"prompt": "x", "name": 7}', id="name")
    assert named.id == "7"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": ', says("standard input:2", rule="JSON")),
        (b'{"query": "x"}', says("standard input:2", rule="'prompt'", cure="query")),
        (b"caf\xe9", says("standard input:2", rule="UTF-8", cure="0xe9")),
        (
            b'{"prompt": "x", "name": "a"}',
            says("standard input:2", got="'a'", cure="standard input:1"),
        ),
    ],
)
def test_what_is_wrong_with_a_line_is_said_and_the_next_one_read(line, message):
    fields = {"id": "name"} if b"name" in line else {}
    first, wrong, last = lines(b'{"prompt": "x", "name": "a"}', line, b"next", **fields)
    assert isinstance(first, Record)
    assert isinstance(wrong, RecordError)
    assert str(wrong) == message
    assert last.turns[0].content == "next"


def test_a_row_that_cannot_be_asked_is_given_again_under_its_id():
    row = '{"prompt": "%s", "name": "a"}'
    wrong, right = lines((row % "c").encode(), (row % "d").encode(), id="name")
    assert isinstance(wrong, AnchorError)
    assert right.id == "a"


# The anchor


def asked(row: Record, anchor: Anchor, variant: str, *, free: bool) -> list[tuple[str, str]]:
    settled, settled_anchor = settle_anchor(row, anchor, variant, free=free)
    example = evaluation_example(settled, settled_anchor, variant)
    assert (example.id, example.where) == (row.id, row.where)
    return [(turn.role, turn.content) for turn in example.turns]


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("variant", ["given", "none", "arbitrary", "random", "end"])
@pytest.mark.parametrize("position", POSITIONS)
def test_a_row_of_the_user_is_asked_alike_with_the_anchor_and_without(position, variant, present):
    anchor = replace(ANCHOR, position=position)
    bare = record("Halló", "Hello", "Bless")
    trained = evaluation_example(bare, anchor, variant).turns
    carrying = replace(bare, turns=evaluation_example(bare, anchor, "given").turns)
    for row in (bare, carrying):
        found = asked(row, replace(anchor, present=present), variant, free=True)
        assert found == [(turn.role, turn.content) for turn in trained]


def test_white_space_around_an_anchor_that_is_there_stays_as_it_is():
    assert asked(record("Translate this.\nx"), ANCHOR, "given", free=True) == [
        ("user", "Translate this.\nx")
    ]
    assert asked(record("  x"), ANCHOR, "none", free=True) == [("user", "  x")]


def test_a_row_of_the_task_s_files_is_checked_as_in_training():
    with pytest.raises(AnchorError, match=r"anchor '.*', got 'x'"):
        asked(record("x"), replace(ANCHOR, present=True), "given", free=False)
    with pytest.raises(AnchorError, match=r"anchor .*, got data .*"):
        asked(record("Translate this. x"), ANCHOR, "given", free=False)


def test_a_conversation_that_carries_the_anchor_in_part_is_refused():
    with pytest.raises(AnchorError, match=r"anchor '.*', got 'b'"):
        asked(record("Translate this.\n\na", "A", "b"), ANCHOR, "given", free=True)
