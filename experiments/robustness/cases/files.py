"""Cases about files of rows, configuration files and the hub."""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from robustness import Box, Outcome, Result, case

from tell_lightning.data.reading import DataLocation, RecordSet, read_records
from tell_lightning.data.records import Fields
from tell_lightning.errors import TellError

ROWS = [{"prompt": f"Question {n}", "response": f"Answer {n}"} for n in range(40)]


def short(text: str) -> str:
    """Leave out the folders of paths."""
    return re.sub(r"(?<![\w:/])/(?:[^\s/']+/)+", "", text)


def refused(outcome: Outcome, *parts: str) -> Result:
    """Compare a command with a refusal in one line that has these parts."""
    return Result(did=short(outcome.last_line), right=outcome.refused(*parts))


def read(path: Path, **options: Any) -> RecordSet | TellError:
    """Read rows as training does; return the error of rows that are refused."""
    location = DataLocation(path=str(path), quoted=options.pop("quoted", None))
    options.setdefault("fields", Fields())
    try:
        return read_records(location, root=Path(), **options)
    except TellError as error:
        return error


def pairs(found: RecordSet | TellError) -> list[tuple[str, ...]]:
    """Return the texts of all rows."""
    if isinstance(found, TellError):
        return []
    return [tuple(turn.content for turn in record.turns) for record in found.records]


def texts(found: RecordSet | TellError, wanted: Sequence[tuple[str, ...]]) -> Result:
    """Compare the texts that were read."""
    did = short(str(found)) if isinstance(found, TellError) else f"rows read: {len(found.records)}"
    return Result(did=did, right=pairs(found) == list(wanted))


def named(found: RecordSet | TellError, *parts: str) -> Result:
    """Compare with a refusal that has these parts."""
    if not isinstance(found, TellError):
        return Result(did=f"rows read: {len(found.records)}", right=False)
    return Result(did=short(str(found)), right=all(part in str(found) for part in parts))


def config(box: Box, name: str, **sections: Mapping[str, Any]) -> Path:
    """Write a configuration; JSON is YAML."""
    return box.write(name, json.dumps(sections))


# Line 2


@case(line=2, input="YAML with the block `model:` pasted twice")
def block_twice(box: Box) -> Result:
    """The second block would win."""
    text = "model:\n  base: a/b\ntrainer: {max_steps: 5}\nmodel:\n  revision: main\n"
    return refused(box.call("plan", "-c", str(box.write("m.yaml", text))), "m.yaml:4", "line 1")


@case(line=2, input="a JSON row with `response` twice, in a .jsonl.gz file")
def json_key_twice(box: Box) -> Result:
    """The second value would win."""
    lines = [json.dumps(row) for row in ROWS[:3]]
    lines[1] = '{"prompt": "q", "response": "draft", "response": "final"}'
    path = box.write("rows.jsonl.gz", gzip.compress("\n".join(lines).encode()))
    return named(read(path), "rows.jsonl.gz:2", "'response' twice")


@case(line=2, input="a Parquet file with two columns `prompt`")
def column_twice(box: Box) -> Result:
    """The second column would win."""
    arrays = [pyarrow.array([text]) for text in ("a", "b", "c")]
    table = pyarrow.Table.from_arrays(arrays, names=["prompt", "prompt", "response"])
    path = box.folder / "rows.parquet"
    pyarrow.parquet.write_table(table, path)
    return named(read(path), "rows.parquet", "'prompt', 'prompt'")


@case(line=2, input="two -c files that give the task `tickets` different rows")
def task_in_two_files(box: Box) -> Result:
    """The rows of the second file would win, with the anchor of the first."""
    first, second = (
        config(box, f"{name}.yaml", data={"tasks": {"tickets": {"train": f"{name}.jsonl"}}})
        for name in ("old", "new")
    )
    outcome = box.call("plan", "-c", str(first), "-c", str(second))
    return refused(outcome, "new.yaml: data.tasks.tickets.train", "old.yaml")


# Line 5


@case(line=5, input="TSV whose field begins with a quotation mark that is never closed")
def open_quotation_mark(box: Box) -> Result:
    """The field would take the next lines with it."""
    path = box.write("corpus.tsv", 'prompt\tresponse\n"Já\t"Yes\nNei\tNo\n"Ha?"\t"What?"\n')
    return texts(read(path), [('"Já', '"Yes'), ("Nei", "No"), ('"Ha?"', '"What?"')])


@case(line=5, input="TSV of a spreadsheet, every field in quotation marks")
def quoted_tsv(box: Box) -> Result:
    """The header is quoted as well, so that fields are."""
    path = box.write("sheet.tsv", '"prompt"\t"response"\r\n"two\nlines"\t"say ""yes"""\r\n')
    return texts(read(path), [("two\nlines", 'say "yes"')])


@case(line=5, input="TSV with one field that looks quoted under a bare header")
def unclear_tsv(box: Box) -> Result:
    """Nobody can know whether the marks are text."""
    path = box.write("mixed.tsv", 'prompt\tresponse\nx\t"say ""yes"""\n')
    return named(read(path), "mixed.tsv:2", "quoted: true", "quoted: false")


@case(line=5, input="CSV with an unclosed quotation mark in one of 40 rows, on_bad_rows: skip")
def skipped_csv_row(box: Box) -> Result:
    """One row is left out, the other 39 stay."""
    rows = [f"{row['prompt']},{row['response']}" for row in ROWS]
    rows[7] = '"Question 7,Answer 7'
    path = box.write("rows.csv", "\n".join(["prompt,response", *rows]))
    wanted = [tuple(row.values()) for row in ROWS if row is not ROWS[7]]
    return texts(read(path, on_bad_rows="skip"), wanted)


# Line 31


@case(line=31, input="one bad row of 41, on_bad_rows: skip")
def one_of_41(box: Box) -> Result:
    """The default limit is one in a thousand, but at least one."""
    path = box.jsonl("rows.jsonl", [*ROWS, {"prompt": "no response"}])
    return texts(read(path, on_bad_rows="skip"), [tuple(row.values()) for row in ROWS])


@case(line=31, input="UTF-16, as a spreadsheet saves `Unicode text`")
def utf16(box: Box) -> Result:
    """The encoding is named, not a strange byte."""
    path = box.write("rows.tsv", "prompt\tresponse\nJá\tYes\n".encode("utf-16"))
    return named(read(path), "rows.tsv", "UTF-16", "Save the file as UTF-8")


@case(line=31, input="CSV with semicolons")
def semicolons(box: Box) -> Result:
    """The separator is named, not a missing field."""
    return named(read(box.write("rows.csv", "prompt;response\na;b\n")), "rows.csv:1", "';'")


@case(line=31, input="ShareGPT: messages of `from` and `value`")
def sharegpt(box: Box) -> Result:
    """Human is the user, gpt the assistant."""
    chat = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}]
    path = box.jsonl("rows.jsonl", [{"conversations": chat}])
    return texts(read(path, fields=Fields(messages="conversations")), [("Hi?", "Ho.")])


@case(line=31, input="messages with tool calls and no content")
def tool_calls(box: Box) -> Result:
    """The cure is named."""
    chat = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "sky"}}]},
    ]
    path = box.jsonl("rows.jsonl", [{"messages": chat}])
    return named(read(path, fields=Fields(messages="messages")), "messages[1]", "as text")


@case(line=31, input="responses that are objects, fields.as_json: true")
def objects(box: Box) -> Result:
    """They are written as JSON."""
    path = box.jsonl("rows.jsonl", [{"prompt": "Book", "response": {"to": "Höfn", "seats": 2}}])
    wanted = [("Book", '{"to": "Höfn", "seats": 2}')]
    return texts(read(path, fields=Fields(as_json=True)), wanted)


@case(line=31, input="predict on rows with columns of the user's own")
def own_columns(box: Box) -> Result:
    """They stay under `row`."""
    path = box.jsonl("rows.jsonl", [{"prompt": "Hi", "ticket": 7, "tags": ["a"]}])
    tasks = {"chat": {"max_new_tokens": 3}}
    mine = config(box, "m.yaml", model={"base": "microworld"}, data={"tasks": tasks, "general": {}})
    done = box.call("predict", "--base", "-c", str(mine), "--input", str(path))
    kept = json.loads(done.out)["row"] if done.code == 0 else short(done.last_line)
    return Result(did=f"row: {kept}", right=kept == {"ticket": 7, "tags": ["a"]})


@case(line=31, input="a relative data.root in a file of another folder")
def relative_root(box: Box) -> Result:
    """It lies beside the file that names it; so the missing file is looked for there."""
    box.jsonl("below/rows/general.jsonl", ROWS)
    data = {"root": "rows", "tasks": {"t": {"train": "missing.jsonl"}}}
    model = {"base": "microworld"}
    mine = config(box, "below/m.yaml", model=model, data=data, trainer={"max_steps": 1})
    return refused(box.call("plan", "-c", str(mine)), f"{box.folder}/below/rows/missing.jsonl")


@case(line=31, input="a hub id without a network")
def hub_offline(box: Box) -> Result:
    """One line at once, no minute of retries."""
    box.jsonl("rows.jsonl", ROWS)
    data = {"root": str(box.folder), "tasks": {"t": {"train": "rows.jsonl"}}, "general": {}}
    sections = {"model": {"base": "nobody/nothing"}, "trainer": {"max_steps": 1}}
    mine = config(box, "m.yaml", data=data, **sections)
    env = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = box.call("plan", "-c", str(mine), "--data.mixture.arm=sft", env=env)
    told = refused(done, "model.base", "nobody/nothing", "network")
    return Result(did=told.did, right=told.right and "Retry" not in done.err)
