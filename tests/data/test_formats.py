"""Every file format gives the same records, and every damaged file is named."""

import csv
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import Says, says

from tell_lightning.data.formats import Meter, RecordError, read_file
from tell_lightning.data.reading import DataLocation, read_records
from tell_lightning.data.records import Fields, Turn

ROWS = [
    {"prompt": "Halló \u2028 þú", "response": "Hello"},
    {"prompt": 'two\nlines, "quoted"', "response": "yes\tno"},
    {"prompt": "last", "response": " x "},
]
WANTED = [(Turn("user", r["prompt"]), Turn("assistant", r["response"])) for r in ROWS]
MEND = "data.on_bad_rows: skip"
ENDINGS = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".gz", ".zst", ".parquet"]


def json_lines(end: str = "\n") -> bytes:
    return (end.join(json.dumps(row, ensure_ascii=False) for row in ROWS) + end).encode()


def table(delimiter: str, quoting: Any = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
    writer.writerow(["prompt", "response"])
    writer.writerows(row.values() for row in ROWS)
    return text.getvalue().encode()


def parquet() -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


def zst(content: bytes) -> bytes:
    packed: bytes = pyarrow.compress(content, codec="zstd", asbytes=True)
    return packed


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zst,
}
CONTENTS: dict[str, bytes] = {
    "a.jsonl": json_lines(),
    "crlf.jsonl": json_lines("\r\n"),
    "no_last_newline.ndjson": json_lines().rstrip(),
    "empty_last_lines.jsonl": json_lines() + b"\r\n\n",
    "list.json": json.dumps(ROWS, indent=1).encode(),
    "lines.json": json_lines(),
    "a.csv": table(","),
    "a.tsv": table("\t", csv.QUOTE_ALL),
}


def read(path: Path, **options: Any) -> Any:
    options.setdefault("fields", Fields())
    return read_records(str(path), root=Path(), **options)


def turns_of(path: Path) -> list[tuple[Turn, ...]]:
    return [record.turns for record in read(path).records]


def expect(message: Says, path: Path, **options: Any) -> None:
    with pytest.raises(RecordError) as caught:
        read(path, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", CONTENTS)
def test_every_text_format_gives_the_same_records(
    tmp_path: Path, name: str, packing: str, bom: bytes
) -> None:
    path = tmp_path / (name + packing)
    path.write_bytes(PACK[packing](bom + CONTENTS[name]))
    assert turns_of(path) == WANTED


def test_parquet_gives_the_same_records(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet())
    assert turns_of(path) == WANTED
    assert read(path).records[1].where == f"{path}:row 2"


def test_a_zst_file_of_two_frames_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    first, rest = json_lines()[:20], json_lines()[20:]
    path.write_bytes(b"".join(zst(p) for p in (first, rest)))
    assert turns_of(path) == WANTED


def test_places_and_ids_count_lines_from_one(tmp_path: Path) -> None:
    for name, lines in {"a.jsonl": [1, 2, 3], "a.csv": [2, 3, 5]}.items():
        (tmp_path / name).write_bytes(CONTENTS[name])
        records = read(tmp_path / name).records
        assert [r.where for r in records] == [f"{tmp_path / name}:{n}" for n in lines]
        assert [r.id for r in records] == [f"{name}:{n}" for n in lines]


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json_lines()))
    assert read(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


UNICODE = st.text(min_size=1).filter(str.strip)


@given(rows=st.lists(st.tuples(UNICODE, UNICODE), min_size=1, max_size=5))
@pytest.mark.parametrize("name", ["a.jsonl", "ascii.jsonl", "a.csv", "a.tsv"])
def test_any_text_survives_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, name: str, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("text") / name
    if path.suffix == ".jsonl":
        objects = [{"prompt": prompt, "response": response} for prompt, response in rows]
        ascii_only = name.startswith("ascii")
        lines = [json.dumps(row, ensure_ascii=ascii_only) for row in objects]
        path.write_text("\n".join(lines), encoding="utf-8", newline="")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            delimiter, quoting = (
                (",", csv.QUOTE_MINIMAL) if path.suffix == ".csv" else ("\t", csv.QUOTE_ALL)
            )
            writer = csv.writer(file, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
            writer.writerows([("prompt", "response"), *rows])
    got = [(turns[0].content, turns[1].content) for turns in turns_of(path)]
    assert got == rows


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_byte_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CONTENTS[name].replace(b"Hello", b"Hell\xf3"))
    line = {"a.jsonl": 1, "a.csv": 2}[name]
    expect(
        says(f"{name}:{line}", rule="UTF-8", got="the byte 0xf3", cure=["UTF-8", MEND]),
        path,
    )
    assert len(read(path, on_bad_rows="skip", max_bad_share=0.5).records) == 2


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.jsonl", b"", {"got": "an empty file"}),
        ("a.csv.gz", gzip.compress(b"\r\n", mtime=0), {"got": "an empty file"}),
        ("a.csv", b"prompt,response\n", {"rule": "row", "got": "none"}),
        ("a.json", b"[]", {"rule": "row", "got": "none"}),
        (
            "a.json",
            b'[{"prompt"',
            {
                "rule": ".json",
                "got": "Expecting ':' delimiter: line 1 column 11 (char 10)",
                "cure": ".jsonl",
            },
        ),
        (
            "a.json",
            b'[{"prompt": "p", "response": "r"}, {"prompt": "q", "response": "r", "prompt": "s"}]',
            {"rule": "once", "got": "'prompt' twice in [('prompt', 'q')"},
        ),
        ("a.txt", b"x", {"rule": ENDINGS, "got": "'a.txt'"}),
        ("a.parquet.gz", b"x", {"rule": ENDINGS, "got": "'a.parquet.gz'"}),
        (
            "a.jsonl.gz",
            gzip.compress(json_lines(), mtime=0)[:-9],
            {"rule": ".gz", "got": "Compressed file ended before the end-of-stream marker"},
        ),
        ("a.jsonl.gz", json_lines(), {"rule": ".gz", "got": "Not a gzipped file (b'{\"')"}),
        (
            "a.jsonl.zst",
            zst(json_lines())[:-4],
            {"rule": ".zst", "got": "Truncated compressed stream"},
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, parts: dict[str, Any]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    expect(says(name, **parts), path)


@pytest.mark.parametrize(
    ("name", "content"), [("a.parquet", parquet()[:-20]), ("a.jsonl.zst", b"x" * 9)]
)
def test_other_damage_is_named_with_the_library_s_words(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, check=says(name, rule=Path(name).suffix)):
        read(tmp_path / name)


def test_a_table_needs_equal_rows_closed_quotes_and_distinct_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,response\na,b,c\n")
    expect(says("a.csv:2", rule="2", got="3", cure=MEND), path)
    path.write_text('prompt,response\n"a,b\n')
    expect(
        says("a.csv:2", rule="quotes", got="unexpected end of data", cure=MEND),
        path,
    )
    path.write_text('prompt,"response\na,b\n')
    expect(says("a.csv:1", rule="header", got="unexpected end of data"), path)
    path.write_text("prompt,prompt\na,b\n")
    expect(
        says("a.csv:1", got="['prompt', 'prompt']"),
        path,
    )


def test_two_columns_of_a_parquet_file_may_not_have_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = [pyarrow.array([text]) for text in ("a", "b", "c")]
    table = pyarrow.Table.from_arrays(columns, names=["prompt", "response", "prompt"])
    pyarrow.parquet.write_table(table, path)
    expect(says("a.parquet", got="['prompt', 'response', 'prompt']", cure="columns"), path)


def test_a_table_field_may_be_longer_than_the_csv_module_s_limit(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f"prompt,response\n{'x' * (limit + 1)},b\n")
    assert len(turns_of(tmp_path / "a.csv")[0][0].content) == limit + 1
    assert csv.field_size_limit() == limit


CORPUS = b"""prompt\tresponse
"Hvenaer?" spurdi hann\t"When?" he asked
"\tA quotation mark
hann sagdi "nei\the said "no
"Jaeja."\t"Well."
"""


def test_quotation_marks_in_a_tsv_file_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(CORPUS)
    assert [(t[0].content, t[1].content) for t in turns_of(path)] == [
        ('"Hvenaer?" spurdi hann', '"When?" he asked'),
        ('"', "A quotation mark"),
        ('hann sagdi "nei', 'he said "no'),
        ('"Jaeja."', '"Well."'),
    ]


def test_a_tsv_file_is_quoted_where_its_header_or_the_configuration_says_so(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b'"prompt"\t"response"\n"two\nlines"\t"a ""b"""\n')
    assert [turn.content for turn in turns_of(path)[0]] == ["two\nlines", 'a "b"']
    path.write_bytes(b'prompt\tresponse\n"two\nlines"\t"a ""b"""\n')
    expect(says("a.tsv:2", rule="2", got="1", cure=MEND), path)
    (record,) = read_records(
        DataLocation(path="a.tsv", quoted=True), fields=Fields(), root=tmp_path
    ).records
    assert [turn.content for turn in record.turns] == ["two\nlines", 'a "b"']
    assert record.where == f"{path}:2"


def test_a_tsv_field_that_looks_quoted_is_refused_until_somebody_says_what_it_is(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b'prompt\tresponse\nx\t"she said ""so"""\n')
    cure = ["quoted: true", "quoted: false"]
    expect(says("a.tsv:2", got='\'"she said ""so"""\'', cure=cure), path)
    for quoted, wanted in ((True, 'she said "so"'), (False, '"she said ""so"""')):
        location = DataLocation(path=str(path), quoted=quoted)
        read = read_records(location, fields=Fields(), root=Path())
        assert read.records[0].response == wanted
        assert read.quoting == ("" if quoted else "none")


def test_a_bad_row_of_a_table_can_be_skipped_and_takes_no_other_row_with_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    rows = [f"p{n},r{n}" for n in range(20)]
    rows[3] = '"p3,r3'  # never closed
    rows[8] = '"p8" x,r8'
    rows[12] = '"two\nlines",r12'
    path.write_text("\n".join(["prompt,response", *rows]) + "\n")
    read_ = read(path, on_bad_rows="skip", max_bad_share=0.1)
    assert [text.partition(": ")[0] for text in read_.bad] == [f"{path}:5", f"{path}:10"]
    assert [r.response for r in read_.records] == [f"r{n}" for n in range(20) if n not in {3, 8}]
    assert read_.records[-1].where == f"{path}:22"


@pytest.mark.parametrize(
    ("name", "header", "parts"),
    [
        ("a.csv", "prompt;response", {"rule": "','", "got": "';' in 'prompt;response'"}),
        ("a.csv", "prompt\tresponse", {"rule": "','", "got": "'\\t'", "cure": ".tsv"}),
        ("a.tsv", "prompt,response", {"rule": "'\\t'", "got": "','", "cure": ".csv"}),
    ],
)
def test_another_separator_than_the_name_says_is_named(
    tmp_path: Path, name: str, header: str, parts: dict[str, Any]
) -> None:
    (tmp_path / name).write_text(f"{header}\na b c\n")
    expect(says(f"{name}:1", **parts), tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "list.json"])
def test_a_file_in_another_unicode_encoding_is_named(
    tmp_path: Path, name: str, encoding: str
) -> None:
    path = tmp_path / name
    path.write_bytes(CONTENTS[name].decode().encode(encoding))
    for on_bad_rows in ("error", "skip"):
        expect(says(name, rule="UTF-8", got="UTF-16", cure="UTF-8"), path, on_bad_rows=on_bad_rows)


# Streams


SCRIPT = """
import resource, sys
from pathlib import Path
from tell_lightning.data.reading import *
import pyarrow.parquet
source = open_rows(sys.argv[1], fields=Fields(), root=Path())
meter = Meter()
entries = iterate_records(source, Fields(), Ids(), meter)
next(entries)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert 0 < meter.share < 0.5, meter
rows = 1 + sum(1 for _ in entries)
assert meter.share == 1.0, meter
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.parquet"])
def test_a_file_of_many_rows_is_read_in_little_memory(tmp_path: Path, name: str) -> None:
    path, rows = tmp_path / name, 20_000
    random = Random(0)
    texts = [random.randbytes(500).hex() for _ in range(rows)]
    if name == "a.parquet":
        table = pyarrow.table({"prompt": texts, "response": ["y"] * rows})
        pyarrow.parquet.write_table(table, path, row_group_size=1000, use_dictionary=False)
    else:
        lines = (
            ["prompt,response", *(f"{text},y" for text in texts)]
            if name == "a.csv"
            else [json.dumps({"prompt": text, "response": "y"}) for text in texts]
        )
        content = "\n".join(lines).encode()
        path.write_bytes(PACK[path.suffix](content) if path.suffix in PACK else content)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read, kilobytes = map(int, done.stdout.split())
    assert read == rows
    assert kilobytes < 8_000  # of 20 MB


def test_a_file_is_digested_as_it_is_and_must_not_change_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines())
    source = read_file(path)
    assert len(list(source.read(Meter()))) == 3
    assert len(list(source.read(Meter()))) == 3  # from the beginning
    rows = source.read(Meter())
    next(rows)
    with path.open("ab") as file:
        file.write(json_lines())
    with pytest.raises(RecordError) as caught:
        list(rows)
    assert str(caught.value) == says(str(path), got="a change")


@given(
    lines=st.lists(st.sampled_from(['{"a": 1}', "", " ", "\r", "x"]), max_size=6),
    name=st.sampled_from(["a.jsonl", "a.json"]),
)
def test_blank_lines_are_faults_between_rows_and_nothing_behind_them(
    lines: list[str], name: str
) -> None:
    content = "\n".join(["{}", *lines]).encode()
    wanted = content.rstrip().split(b"\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        rows = list(read_file(path).read(Meter()))
    assert [row.number for row in rows] == list(range(1, len(wanted) + 1))
    assert [not row.fault for row in rows] == [line.strip().startswith(b"{") for line in wanted]
