"""Files and rows that nobody would write: each is read, or refused in one line."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import PLAIN, TEXTS, VALUES, amounts, answered, fuzz, mutated_bytes, mutated_values
from hypothesis import strategies as st

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.prediction_rows import read_lines
from tell_lightning.data.reading import read_records
from tell_lightning.data.records import Fields
from tell_lightning.export.anchor_file import AnchorFile, TaskPrompt, read_anchor_file

ROWS = [
    {"id": n, "prompt": text, "response": f"{text} again", "input": "", "system": None}
    for n, text in enumerate(["one", "zwei, drei", 'a "quoted" word', "línea", "x\ty"])
]
TALK = {
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]
}


def _table(separator: str) -> bytes:
    lines = [["prompt", "response"], *([r["prompt"], r["response"]] for r in ROWS)]
    quoted = [['"' + field.replace('"', '""') + '"' for field in line] for line in lines]
    return "\n".join(separator.join(line) for line in quoted).encode()


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FORMATS: dict[str, list[bytes]] = {
    "jsonl": [LINES, json.dumps(TALK).encode(), b""],
    "json": [json.dumps(ROWS).encode(), LINES, b"[]"],
    "csv": [_table(","), _table(";"), b"prompt,response\na,b\r\nc,d"],
    "tsv": [_table("\t"), b'prompt\tresponse\n"a\tb\nc\td\n'],
    "parquet": [_parquet()],
    "jsonl.gz": [gzip.compress(LINES, mtime=0)],
    "jsonl.zst": [pa.compress(LINES, codec="zstd", asbytes=True)],
}
NAMES = st.sampled_from(["prompt", "response", "input", "system", "messages", "id", "none"]) | TEXTS
FIELDS = st.builds(
    Fields,
    prompt=NAMES,
    **{name: st.none() | NAMES for name in ("input", "response", "system", "messages", "id")},
)
HOW = st.fixed_dictionaries(
    {
        "on_bad_rows": st.sampled_from(["error", "skip"]),
        "need_response": st.booleans(),
        "max_bad_share": st.sampled_from([0.0, 0.5, 1.0]),
    }
)


@amounts(quick=172)
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, amount: int) -> None:
    def check(drawn: tuple[tuple[str, bytes], Fields, dict[str, Any]]) -> None:
        (kind, content), fields, how = drawn
        (tmp_path / f"rows.{kind}").write_bytes(content)
        answered(lambda: read_records(f"rows.{kind}", fields=fields, root=tmp_path, **how))

    files = st.sampled_from(sorted(FORMATS)).flatmap(
        lambda kind: st.tuples(st.just(kind), mutated_bytes(FORMATS[kind]))
    )
    usual = st.just(Fields()) | st.just(Fields(messages="messages")) | FIELDS
    fuzz(st.tuples(files, usual, HOW), amount, check)


@amounts(quick=100)
def test_any_row_under_any_names_is_read_or_refused_in_one_line(
    tmp_path: Path, amount: int
) -> None:
    def check(drawn: tuple[list[Any], Fields, dict[str, Any]]) -> None:
        rows, fields, how = drawn
        answered(lambda: read_records(rows, fields=fields, root=tmp_path, **how))

    row = st.dictionaries(NAMES, VALUES, max_size=4) | mutated_values([ROWS[0], TALK], VALUES).map(
        lambda rows: rows[0] if rows else None
    )
    fuzz(st.tuples(st.lists(row | PLAIN, max_size=3), FIELDS, HOW), amount, check)


@amounts(quick=36)
def test_any_line_of_standard_input_is_a_row_or_one_line(amount: int) -> None:
    def check(drawn: tuple[bytes, Fields]) -> None:
        content, fields = drawn
        for found in read_lines(io.BytesIO(content), fields, lambda record: None):
            if isinstance(found, Exception):
                answered(lambda found=found: (_ for _ in ()).throw(found))

    fuzz(st.tuples(mutated_bytes([LINES, b"a prompt\n\nanother\n"]), FIELDS), amount, check)


@amounts(quick=16)
def test_any_anchor_file_is_read_or_refused_in_one_line(tmp_path: Path, amount: int) -> None:
    anchor = Anchor(text="Answer.", response_prefix="So: ")
    tasks = {"answer": TaskPrompt(anchor, 8, stop_tokens=(".",))}
    right = AnchorFile("microworld", None, "given", "ab", tasks).to_json()

    def check(content: bytes) -> None:
        (tmp_path / "anchor.json").write_bytes(content)
        answered(lambda: read_anchor_file(tmp_path))

    values = mutated_values(right, VALUES).map(lambda value: json.dumps(value).encode())
    fuzz(values | mutated_bytes([json.dumps(right).encode()]), amount, check)
