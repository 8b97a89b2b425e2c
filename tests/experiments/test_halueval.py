"""HaluEval rendered into the test's prompt: checked on the rows that the test uses."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from messages import Says, says

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
SCRIPT = ROOT / "experiments/halueval/convert.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The converter, imported from its file."""
    spec = spec_from_file_location("convert", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def annotated(n: int, label: str = "no", *spans: str) -> dict[str, Any]:
    return {
        "ID": "ID",  # repeated in the real file, which is why ids are line numbers
        "user_query": f"Question {n}?",
        "chatgpt_response": f"Answer\u2028{n}.",
        "hallucination": label,
        "hallucination_spans": list(spans),
    }


def paper_row(row: dict[str, Any]) -> dict[str, str]:
    prompt = f"Judge this.\n'user_query' : {row['user_query']}\n'r' : {row['chatgpt_response']}"
    return {"prompt": prompt, "response": row["hallucination"]}


ROWS = [
    annotated(1),
    annotated(2, "yes", "wrong\nhere", "and here"),
    annotated(3, "yes"),
    annotated(4),
    annotated(5, "yes", "x"),
    annotated(6),
]


def write(folder: Path, rows: list[dict[str, Any]], test: list[dict[str, str]]) -> Path:
    for name, content in (("halueval/general_data.json", rows), ("tell/test_Halu_CoT_JSON.jsonl",
                                                                 test)):  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in content)
        path.write_bytes(lines.encode())
    return folder


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_rows_that_the_test_does_not_use_are_rendered_into_its_prompt(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data", ROWS, [paper_row(row) for row in ROWS[4:]])
    out = tmp_path / "out"
    script.main(["--data", str(data), "--out", str(out), "--dev", "1"])
    assert capsys.readouterr().out == (f"{out}/train.jsonl: 3 rows\n{out}/dev.jsonl: 1 rows\n")
    train, dev = read(out / "train.jsonl"), read(out / "dev.jsonl")
    assert [row["id"] for row in [*train, *dev]] == ["1", "2", "3", "4"]
    assert [row["prompt"] for row in [*train, *dev]] == [paper_row(r)["prompt"] for r in ROWS[:4]]
    assert train[0]["response"] == (
        '{"thought": "Nothing in the response deviates from what is accurate and reliable.", '
        '"hallucination": "no"}'
    )
    assert json.loads(train[1]["response"]) == {
        "thought": "The response is not accurate or not reliable where it says: "
        "'wrong here'; 'and here'.",
        "hallucination": "yes",
    }
    assert json.loads(train[2]["response"]) == {
        "thought": "The response deviates from what is accurate and reliable.",
        "hallucination": "yes",
    }


def test_label_only_leaves_the_thought_out(script: ModuleType) -> None:
    assert script.answer(ROWS[1], label_only=True) == '{"hallucination": "yes"}'


def test_long_spans_are_quoted_by_their_start(script: ModuleType) -> None:
    row = annotated(1, "yes", " ".join(["word"] * 100))
    assert script.answer(row).count("word") == script.QUOTED_WORDS
    assert " word ...'." in script.answer(row)


@pytest.mark.parametrize(
    ("test", "dev", "error"),
    [
        (
            [paper_row(ROWS[4]), {**paper_row(ROWS[5]), "response": "yes"}],
            "1",
            says("test_Halu_CoT_JSON.jsonl:2"),
        ),
        (
            [
                paper_row(ROWS[4]),
                {**paper_row(ROWS[5]), "prompt": paper_row(ROWS[5])["prompt"] + " "},
            ],
            "1",
            says("test_Halu_CoT_JSON.jsonl:2"),
        ),
        (
            [paper_row(ROWS[3]), paper_row(ROWS[5])],
            "1",
            says("test_Halu_CoT_JSON.jsonl", rule=["query", "answer"]),
        ),
        ([paper_row(row) for row in ROWS], "1", says("general_data.json")),
        ([paper_row(ROWS[5])], "5", says("--dev", rule="1", got="5")),
        ([paper_row(ROWS[5])], "0", says("--dev", rule="1", got="0")),
        ([], "1", says("test_Halu_CoT_JSON.jsonl", got="none")),
    ],
)
def test_other_files_than_the_papers_are_refused_and_nothing_is_written(
    script: ModuleType,
    tmp_path: Path,
    test: list[dict[str, str]],
    dev: str,
    error: Says,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write(tmp_path / "data", ROWS, test)
    with pytest.raises(SystemExit) as exit_:
        script.main(["--data", str(data), "--out", str(tmp_path / "out"), "--dev", dev])
    assert exit_.value.code == 2
    said, *_ = capsys.readouterr().err.splitlines()  # the prompt that it shows has others
    assert said.startswith("error: ")
    assert said.removeprefix("error: ") == error
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err.removeprefix("error: ") == says("general_data.json", got="none")


@pytest.mark.skipif(
    not (SHARED / "halueval/general_data.json").is_file(), reason="Requires: shared/data"
)
def test_the_papers_test_is_reproduced_byte_for_byte(script: ModuleType, tmp_path: Path) -> None:
    rows = read(SHARED / "halueval/general_data.json")
    test = read(SHARED / "tell/test_Halu_CoT_JSON.jsonl")
    render = script.Prompt.derive(test[0]["prompt"], rows[3001])
    assert [render(row).encode() for row in rows[3001:]] == [r["prompt"].encode() for r in test]
    assert [row["hallucination"] for row in rows[3001:]] == [row["response"] for row in test]
    assert script.convert(SHARED, tmp_path, 200) == {"train": 2801, "dev": 200}
    made = [*read(tmp_path / "train.jsonl"), *read(tmp_path / "dev.jsonl")]
    assert [row["id"] for row in made] == [str(line) for line in range(1, 3002)]
    labels = [json.loads(row["response"])["hallucination"] for row in made]
    assert (labels.count("no"), labels.count("yes")) == (2468, 533)
    assert not {row["prompt"] for row in made} & {row["prompt"] for row in test}
