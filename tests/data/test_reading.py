"""Every rule that a row must keep, and the text of every error."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tell_lightning.data.formats import RecordError
from tell_lightning.data.reading import DataLocation, read_records
from tell_lightning.data.records import Fields, Turn, record_from_line, record_from_row

MEND = "Correct or remove the row, or set data.on_bad_rows: skip."
Writer = Callable[..., Path]


def read(path: Path, **options: Any) -> Any:
    options.setdefault("fields", Fields())
    return read_records(str(path), root=Path(), **options)


def expect(message: str, path: Path, **options: Any) -> None:
    """The error is this text, word for word."""
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


def test_a_system_field_comes_first_where_it_is_not_empty(jsonl: Writer) -> None:
    path = jsonl(*({"s": s, "prompt": "p", "response": "r"} for s in ("Be brief.", "")))
    roles = [[t.role for t in r.turns] for r in read(path, fields=Fields(system="s")).records]
    assert roles == [["system", "user", "assistant"], ["user", "assistant"]]


@pytest.mark.parametrize(
    ("row", "fields", "rule"),
    [
        ("{'prompt'", Fields(), "a line must be valid JSON, got \"{'prompt'\": Expecting property "
         f"name enclosed in double quotes: line 1 column 2 (char 1). {MEND}"),
        ("", Fields(), f"a line must be valid JSON, got '': Expecting value: line 1 column 1 "
         f"(char 0). {MEND}"),
        ("[1]", Fields(), f"a row must be an object with fields, got [1]. {MEND}"),
        ({"query": "q", "response": "r"}, Fields(), "field 'prompt' must be there, got the fields "
         "['query', 'response']. Set fields to the names that the rows have, or correct the row."),
        ({"prompt": " \n", "response": "r"}, Fields(),
         f"field 'prompt' must be a non-empty string, got ' \\n'. {MEND}"),
        ({"prompt": "p", "response": 3}, Fields(),
         f"field 'response' must be a non-empty string, got 3. {MEND}"),
        ({"prompt": "p", "response": list(range(99))}, Fields(),
         "field 'response' must be a non-empty string, got "
         f"{repr(list(range(99)))[:77]}.... {MEND}"),
        ({"prompt": "p", "response": "r\ud800"}, Fields(),
         f"field 'response' must be Unicode text, got the lone surrogate '\\ud800'. {MEND}"),
        ({"m": "hi"}, Fields(messages="m"),
         f"field 'm' must be a list of messages, got 'hi'. {MEND}"),
        ({"m": ["hi"]}, Fields(messages="m"), f"m[0] must be {{role, content}}, got 'hi'. {MEND}"),
        ({"m": [{"role": "human", "content": "x"}]}, Fields(messages="m"),
         f"m[0]: role must be system, user or assistant, got 'human'. {MEND}"),
        ({"m": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]},
         Fields(messages="m"), "turns must alternate user, assistant after at most one system "
         f"turn, got 'user, user'. {MEND}"),
        ({"m": [{"role": "system", "content": "x"}]}, Fields(messages="m"),
         f"turns must alternate user, assistant after at most one system turn, got 'system'. "
         f"{MEND}"),
        ({"m": [{"role": "user", "content": "x"}]}, Fields(messages="m"),
         f"a conversation must end in an assistant turn, got 'user'. {MEND}"),
        ({"prompt": "p", "response": "r", "id": None}, Fields(id="id"),
         f"field 'id' must be a non-empty string, got None. {MEND}"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_line_rule_and_value(
    jsonl: Writer, row: object, fields: Fields, rule: str
) -> None:
    good: dict[str, object] = {"prompt": "p", "response": "r", "id": "one"}
    good[fields.messages or "unused"] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"},
    ]
    path = jsonl(good, row, {**good, "id": "two"})
    expect(f"{path}:2: {rule}", path, fields=fields)
    # The same row, left out and listed.
    read_back = read(path, fields=fields, on_bad_rows="skip", max_bad_share=0.5)
    assert len(read_back.records) == 2
    assert read_back.bad == (f"{path}:2: {rule}",)


def test_ids_are_given_once(jsonl: Writer) -> None:
    path = jsonl(*[{"prompt": "p", "response": "r", "id": "a"}] * 2)
    expect(
        f"{path}:2: an id must be given once, got 'a' as in {path}:1. {MEND}",
        path,
        fields=Fields(id="id"),
    )


def test_skipping_stops_above_the_limit(jsonl: Writer) -> None:
    path = jsonl(*[{"prompt": "p", "response": "r"}] * 97, *["?"] * 3)
    assert len(read(path, on_bad_rows="skip", max_bad_share=0.03).bad) == 3
    with pytest.raises(RecordError) as caught:
        read(path, on_bad_rows="skip", max_bad_share=0.029)
    assert str(caught.value).startswith(
        f"{path}: at most a share of 0.029 of the rows may be bad, got 3 of 100. Correct them or "
        f"raise data.max_bad_share. The first: \n  {path}:98: a line must be valid JSON, got '?'"
    )


@pytest.mark.parametrize("share", [0.001, 1.0])
def test_skipping_every_row_is_an_error(jsonl: Writer, share: float) -> None:
    with pytest.raises(RecordError, match=r"got 1 of 1\."):
        read(jsonl("?"), on_bad_rows="skip", max_bad_share=share)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("no.jsonl", "{root}/no.jsonl: the file or folder must exist, got 'no.jsonl' below "
         "data.root "
         "'{root}'. Correct the path or data.root."),
        (DataLocation(), "rows: exactly one of path and hub must be set, got neither. Set one."),
        (DataLocation(path="a", hub="b/c"),
         "rows: exactly one of path and hub must be set, got path 'a' and hub 'b/c'. Set one."),
        (DataLocation(hub="b/c"),
         "b/c: a hub data set needs its revision, got none: its rows could change "
         "between two runs. Set revision to a commit of its 'Files and versions' page."),
        (DataLocation(path="a.jsonl", split="train"),
         "{root}/a.jsonl: split has no meaning for this path, "
         "got 'train'. Leave it out."),
    ],
)  # fmt: skip
def test_where_rows_come_from_is_checked(
    tmp_path: Path, rows: str | DataLocation, message: str
) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(RecordError) as caught:
        read_records(rows, fields=Fields(), root=tmp_path)
    assert str(caught.value) == message.format(root=tmp_path)


def test_training_needs_a_response_field(jsonl: Writer) -> None:
    expect(
        "fields.response: rows to train on need a response, got null. Name it.",
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
    with pytest.raises(
        RecordError, match=r"^-:1: a line that starts with { must be valid JSON, got"
    ):
        record_from_line('{"query"', **options)
    with pytest.raises(RecordError, match=r"^-:1: field 'line' must be a non-empty string"):
        record_from_line(" ", **options)


def test_reading_imports_nothing_heavy(jsonl: Writer) -> None:
    path = jsonl({"prompt": "p", "response": "r"})
    code = (
        "import sys; from pathlib import Path; import tell_lightning.data.leaks, "
        "tell_lightning.data.templates; from tell_lightning.data.reading import *; "
        f"read_records({str(path)!r}, fields=Fields(), root=Path()); "
        "heavy = {'torch', 'transformers', 'lightning', 'datasets', 'pyarrow', 'zstandard', "
        "'jinja2'}; sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
