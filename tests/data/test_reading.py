"""Every rule that a row must keep, and the text of every error."""

import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from messages import Parts, Says, says

from tell_lightning.data.formats import RecordError
from tell_lightning.data.reading import DataLocation, read_records
from tell_lightning.data.records import (
    Fields,
    Turn,
    other_columns,
    record_from_line,
    record_from_row,
)

MEND = "data.on_bad_rows: skip"
Writer = Callable[..., Path]


def read(path: Path, **options: Any) -> Any:
    options.setdefault("fields", Fields())
    return read_records(str(path), root=Path(), **options)


def expect(message: Says, path: Path, **options: Any) -> None:
    with pytest.raises(RecordError) as caught:
        read(path, **options)
    assert str(caught.value) == message


def test_instruction_and_input_become_one_user_turn(jsonl: Writer) -> None:
    rows = [{"instruction": "Add", "input": i, "output": "3"} for i in ("1 2", "", None)]
    fields = Fields(prompt="instruction", input="input", response="output")
    records = read(jsonl(*rows), fields=fields).records
    assert [r.turns[0].content for r in records] == ["Add\n\n1 2", "Add", "Add"]
    assert records[0].response == "3"
    assert records[0].prompt_turns == (Turn("user", "Add\n\n1 2"),)
    assert records[0].row["input"] == "1 2"


def test_messages_become_the_turns(jsonl: Writer) -> None:
    roles = ("system", "user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": f"text {n}"} for n, role in enumerate(roles)]
    path = jsonl({"chat": messages, "name": 7})
    (record,) = read(path, fields=Fields(messages="chat", id="name")).records
    assert [(t.role, t.content) for t in record.turns] == [
        (role, f"text {n}") for n, role in enumerate(roles)
    ]
    assert record.id == "7"


def test_sharegpt_messages_and_parts_of_text_become_the_turns(jsonl: Writer) -> None:
    sharegpt = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "What is 2 + 2?"},
        {"from": "gpt", "value": "4"},
    ]
    parts = [
        {"role": "user", "content": [{"type": "text", "text": t} for t in ("What ", "is it?")]},
        {"role": "assistant", "content": "It."},
    ]
    path = jsonl({"chat": sharegpt}, {"chat": parts})
    first, second = read(path, fields=Fields(messages="chat")).records
    assert [(t.role, t.content) for t in first.turns] == [
        ("system", "Be brief."),
        ("user", "What is 2 + 2?"),
        ("assistant", "4"),
    ]
    assert [t.content for t in second.turns] == ["What is it?", "It."]


def test_values_that_are_no_text_are_written_as_json_if_the_fields_say_so(jsonl: Writer) -> None:
    path = jsonl(
        {"prompt": "Book", "input": {"to": "Akureyri"}, "response": {"city": "Ísafjörður", "n": 2}},
        {"prompt": "Count", "input": None, "response": 3},
        {"prompt": "Say", "input": "", "response": "text"},
    )
    records = read(path, fields=Fields(input="input", as_json=True)).records
    assert [r.response for r in records] == ['{"city": "Ísafjörður", "n": 2}', "3", "text"]
    assert records[0].turns[0].content == 'Book\n\n{"to": "Akureyri"}'


def test_a_system_field_comes_first_where_it_is_not_empty(jsonl: Writer) -> None:
    path = jsonl(*({"s": s, "prompt": "p", "response": "r"} for s in ("Be brief.", "")))
    roles = [[t.role for t in r.turns] for r in read(path, fields=Fields(system="s")).records]
    assert roles == [["system", "user", "assistant"], ["user", "assistant"]]


@pytest.mark.parametrize(
    ("row", "fields", "rule", "got", "cure"),
    [
        ("{'prompt'", Fields(), "JSON", "\"{'prompt'\"", [MEND, "line 1 column 2 (char 1)"]),
        ("", Fields(), "JSON", "''", MEND),
        ("[1]", Fields(), "object", "[1]", MEND),
        (
            '{"prompt": "p", "response": "old", "response": "new"}',
            Fields(),
            "once",
            "'response' twice in [('prompt', 'p'), ('response', 'old')",
            MEND,
        ),
        (
            '{"m": [{"role": "user", "content": "q", "role": "assistant"}]}',
            Fields(messages="m"),
            "once",
            "'role' twice",
            MEND,
        ),
        (
            {"query": "q", "response": "r"},
            Fields(),
            "'prompt'",
            "the fields ['query', 'response']",
            "fields",
        ),
        ({"prompt": " \n", "response": "r"}, Fields(), "'prompt'", "' \\n'", MEND),
        ({"prompt": "p", "response": 3}, Fields(), "'response'", "3", ["fields.as_json", MEND]),
        (
            {"prompt": "p", "response": ""},
            Fields(as_json=True),
            "'response'",
            "''",
            MEND,
        ),
        (
            {"m": [{"from": "bing", "value": "x"}]},
            Fields(messages="m"),
            ["m[0]", "from", "human", "gpt"],
            "'bing'",
            MEND,
        ),
        (
            {"m": [{"role": "tool", "content": "22 degrees"}]},
            Fields(messages="m"),
            "m[0]",
            "a tool's of role 'tool'",
            "as text",
        ),
        (
            {"m": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
            Fields(messages="m"),
            "m[0]",
            "a tool's of role 'assistant'",
            "as text",
        ),
        (
            {"m": [{"from": "observation", "value": "{}"}]},
            Fields(messages="m"),
            "m[0]",
            "a tool's of role 'observation'",
            "as text",
        ),
        (
            {"m": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            Fields(messages="m"),
            ["m[0]", "type: text"],
            "{'type': 'image_url'",
            MEND,
        ),
        (
            {"prompt": "p", "response": list(range(99))},
            Fields(),
            "'response'",
            f"{repr(list(range(99)))[:77]}...",
            MEND,
        ),
        (
            {"prompt": "p", "response": "r\ud800"},
            Fields(),
            ["'response'", "Unicode"],
            "the lone surrogate '\\ud800'",
            MEND,
        ),
        ({"m": "hi"}, Fields(messages="m"), "'m'", "'hi'", MEND),
        ({"m": ["hi"]}, Fields(messages="m"), ["m[0]", "{role, content}"], "'hi'", MEND),
        (
            {"m": [{"role": "human", "content": "x"}]},
            Fields(messages="m"),
            ["m[0]", "system", "user", "assistant"],
            "'human'",
            MEND,
        ),
        (
            {"m": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]},
            Fields(messages="m"),
            ["user", "assistant", "system"],
            "'user, user'",
            MEND,
        ),
        (
            {"m": [{"role": "system", "content": "x"}]},
            Fields(messages="m"),
            ["user", "assistant", "system"],
            "'system'",
            MEND,
        ),
        (
            {"m": [{"role": "user", "content": "x"}]},
            Fields(messages="m"),
            "assistant",
            "'user'",
            MEND,
        ),
        ({"prompt": "p", "response": "r", "id": None}, Fields(id="id"), "'id'", "None", MEND),
    ],
)
def test_a_bad_row_is_named_with_its_line_rule_and_value(
    jsonl: Writer, row: object, fields: Fields, rule: Parts, got: str, cure: Parts
) -> None:
    good: dict[str, object] = {"prompt": "p", "response": "r", "id": "one"}
    good[fields.messages or "unused"] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"},
    ]
    path = jsonl(good, row, {**good, "id": "two"})
    message = says(f"{path}:2", rule=rule, got=got, cure=cure)
    expect(message, path, fields=fields)
    # The same row, left out and listed.
    read_back = read(path, fields=fields, on_bad_rows="skip", max_bad_share=0.5)
    assert len(read_back.records) == 2
    (bad,) = read_back.bad
    assert bad == message


def test_ids_are_given_once(jsonl: Writer) -> None:
    path = jsonl(*[{"prompt": "p", "response": "r", "id": "a"}] * 2)
    expect(
        says(f"{path}:2", rule="id", got="'a'", cure=[f"{path}:1. ", MEND]),
        path,
        fields=Fields(id="id"),
    )


def test_skipping_stops_above_the_limit(jsonl: Writer) -> None:
    path = jsonl(*[{"prompt": "p", "response": "r"}] * 97, *["?"] * 3)
    assert len(read(path, on_bad_rows="skip", max_bad_share=0.03).bad) == 3
    with pytest.raises(RecordError) as caught:
        read(path, on_bad_rows="skip", max_bad_share=0.02)
    message, first, *_ = str(caught.value).splitlines()
    assert message == says(str(path), rule="0.02", got="3 of 100", cure="data.max_bad_share")
    assert first.strip() == says(f"{path}:98", rule="JSON", got="'?'")


def test_one_bad_row_of_a_small_file_can_be_skipped_by_default(jsonl: Writer) -> None:
    good = [{"prompt": "p", "response": "r"}] * 40
    assert len(read(jsonl("?", *good), on_bad_rows="skip").bad) == 1
    with pytest.raises(RecordError, match="got 2 of 42"):
        read(jsonl("?", *good, "?"), on_bad_rows="skip")
    with pytest.raises(RecordError, match="got 1 of 41"):
        read(jsonl("?", *good), on_bad_rows="skip", max_bad_share=0)


@pytest.mark.parametrize("share", [0.001, 1.0])
def test_skipping_every_row_is_an_error(jsonl: Writer, share: float) -> None:
    with pytest.raises(RecordError, match=r"got 1 of 1\."):
        read(jsonl("?"), on_bad_rows="skip", max_bad_share=share)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("no.jsonl", says("no.jsonl", got="'no.jsonl'", cure="data.root")),
        (DataLocation(), says("rows", rule=["path", "hub"], got="neither")),
        (
            DataLocation(path="a", hub="b/c"),
            says("rows", rule=["path", "hub"], got="path 'a' and hub 'b/c'"),
        ),
        (DataLocation(hub="b/c"), says("b/c", rule="revision", got="none", cure="revision")),
        (DataLocation(path="a.jsonl", split="train"), says("a.jsonl", rule="split", got="'train'")),
    ],
)
def test_where_rows_come_from_is_checked(
    tmp_path: Path, rows: str | DataLocation, message: Says
) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(RecordError) as caught:
        read_records(rows, fields=Fields(), root=tmp_path)
    assert str(caught.value) == message


def test_training_needs_a_response_field(jsonl: Writer) -> None:
    expect(
        says("fields.response", got="null"),
        jsonl({"prompt": "p"}),
        fields=Fields(response=None),
    )


def test_rows_to_predict_may_lack_the_response_and_keep_it_when_there(jsonl: Writer) -> None:
    path = jsonl({"prompt": "p"}, {"prompt": "p", "response": ""}, {"prompt": "p", "response": "r"})
    responses = [r.response for r in read(path, need_response=False).records]
    assert responses == [None, None, "r"]
    with pytest.raises(RecordError, match="got 7"):
        record_from_row(
            {"prompt": "p", "response": 7}, fields=Fields(), where="x", id="x", need_response=False
        )


def test_a_line_to_predict_is_json_or_the_prompt_itself() -> None:
    fields = Fields(prompt="query")
    options: dict[str, Any] = {"fields": fields, "where": "-:1", "id": "-:1"}
    assert record_from_line("Hvað er þetta?\n", **options).turns[0].content == "Hvað er þetta?\n"
    assert record_from_line('{"query": "q"}', **options).turns == (Turn("user", "q"),)
    with pytest.raises(RecordError, check=says("-:1", rule="JSON")):
        record_from_line('{"query"', **options)
    twice = '{"prompt": "p", "prompt": "q"}'
    with pytest.raises(RecordError, check=says("-:1", rule="once", got="'prompt' twice")):
        record_from_line(twice, **options)
    with pytest.raises(RecordError, check=says("-:1", rule="'query'")):
        record_from_line(" ", **options)


def test_columns_that_no_field_names_are_json_values() -> None:
    row = {
        "query": "q",
        "response": "r",
        "sent": date(2026, 1, 2),
        "score": float("nan"),
        "image": {"bytes": b"x", "path": "a.png"},
        "tags": ["a", 1, None],
    }
    assert other_columns(row, Fields(prompt="query")) == {
        "sent": "2026-01-02",
        "score": None,
        "image": {"bytes": None, "path": "a.png"},
        "tags": ["a", 1, None],
    }


def test_reading_imports_nothing_heavy(jsonl: Writer) -> None:
    path = jsonl({"prompt": "p", "response": "r"})
    code = (
        "import sys; from pathlib import Path; import tell_lightning.data.leaks, "
        "tell_lightning.data.templates; from tell_lightning.data.reading import *; "
        f"read_records({str(path)!r}, fields=Fields(), root=Path()); "
        "heavy = {'torch', 'transformers', 'lightning', 'datasets', 'pyarrow', "
        "'jinja2'}; sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
