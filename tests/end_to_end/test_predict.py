"""`predict` answers as plain PEFT does, from a run, an adapter folder or the base alone.

It reads whatever training reads, and goes on where it was stopped.
"""

import csv
import hashlib
import io
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import torch
from messages import Says, says
from safetensors.torch import load_file, save_file
from tiny_runs import Run, environment
from tiny_world import ANCHOR, PREFIX, World

from tell_lightning.cli import main
from tell_lightning.export.answers_file import AnswersFile

QUESTIONS = ["one two", "red  blue", 'say "round", or', "Þetta er\u2028lína", "ten"]


def predict(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    main(["predict", *options])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Return the error of a command line that is refused."""
    with pytest.raises(SystemExit) as exit_:
        main(["predict", *options])
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    *_, error = said.err.splitlines()
    return error.removeprefix("error: ")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str, terminal: bool = False) -> None:
    """Put lines on standard input."""

    class Input(io.TextIOWrapper):
        def isatty(self) -> bool:
            return terminal

    content = "".join(f"{line}\n" for line in lines).encode()
    monkeypatch.setattr("sys.stdin", Input(io.BytesIO(content)))


@pytest.fixture
def turn(run: Run) -> list[str]:
    """The options that ask the run's adapter for its first task."""
    return ["--run", str(run.folder), "--task", "turn"]


def greedy_by_peft(adapter: Path, base: Path, prompts: list[str]) -> list[str]:
    """Answer prompts one by one as the adapter's README says, without this package."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    answers = []
    for prompt in prompts:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.no_grad():
            output = model.eval().generate(**inputs, do_sample=False, max_new_tokens=8)
        answer = output[0, inputs["input_ids"].shape[1] :]
        answers.append(tokenizer.decode(answer, skip_special_tokens=True))
    return answers


def test_answers_are_those_of_plain_peft_and_not_the_bases(
    run: Run, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = predict(capsys, "--run", str(run.folder), "--task", "turn")
    base = predict(capsys, "--base", *world.overlay, "--task", "turn")
    lines = (world.folder / "data/turn-test.jsonl").read_text().splitlines()
    assert len(rows) == len(lines) == 24
    assert [row["id"] for row in rows] == [f"turn-test.jsonl:{n}" for n in range(1, 25)]
    prompts = [f"{ANCHOR}\n\n{json.loads(line)['query']}" for line in lines]
    plain = greedy_by_peft(run.folder / "adapter", world.base, prompts)
    stripped = [text.strip().removeprefix(PREFIX.strip()).strip() for text in plain]
    assert [row["prediction"] for row in rows] == stripped
    assert all(row["prediction"] for row in rows)
    assert all(r["prediction"] != b["prediction"] for r, b in zip(rows, base, strict=True))


def test_answers_are_those_that_fit_has_scored(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    step = run.record["selected"]["step"]
    rows = predict(capsys, "--run", str(run.folder))
    for task in ("turn", "verdict"):
        scored = run.jsonl(f"test-{task}-step-{step:06d}")
        mine = [row for row in rows if row["task"] == task]
        assert [row["prediction"] for row in mine] == [row["prediction"] for row in scored]
        assert [row["reference"] for row in mine] == [row["reference"] for row in scored]


def test_base_answers_are_those_before_training(
    run: Run, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = predict(capsys, "--base", *world.overlay, "--task", "turn")
    scored = run.jsonl("test-turn-base")
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in scored]


def test_a_line_says_what_was_asked_and_how_likely_the_answer_is(
    run: Run, world: World, turn: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = predict(capsys, *turn)
    assert list(rows[0]) == [
        *("id", "task", "model", "prompt_sha256", "prediction", "reference", "stopped"),
        *("prefix_found", "new_tokens", "prompt_tokens", "logprob", "near_ties"),
    ]
    adapter = str(run.folder / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(world.base), adapter
    )
    lines = (world.folder / "data/turn-test.jsonl").read_text().splitlines()
    for row, line in list(zip(rows, lines, strict=True))[:5]:
        messages = [{"role": "user", "content": f"{ANCHOR}\n\n{json.loads(line)['query']}"}]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        digest = hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode("ascii")).hexdigest()
        assert (row["prompt_sha256"], row["prompt_tokens"]) == (digest, len(ids))
        with torch.no_grad():
            new = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=8)
            logits = model(new).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        answer = new[0, len(ids) :]
        assert row["new_tokens"] + row["stopped"] == len(answer)
        chosen = float(logits.gather(1, answer[:, None]).sum())
        assert math.isclose(row["logprob"], chosen, abs_tol=1e-3)


def test_asked_without_its_anchor_it_answers_as_fit_has_scored(
    run: Run, turn: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = predict(capsys, *turn, "--data.mixture.anchor=none")
    step = run.record["selected"]["step"]
    scored = run.jsonl(f"test_without_anchor-turn-step-{step:06d}")
    for name in ("prompt_sha256", "prediction", "logprob"):
        assert [row[name] for row in rows] == [row[name] for row in scored]
    assert rows[0]["prompt_sha256"] != predict(capsys, *turn)[0]["prompt_sha256"]


# What is read


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def _json(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows), "utf-8")
    return path


def _table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        writer = csv.DictWriter(file, ["query"], delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _packed(path: Path, rows: list[dict[str, Any]]) -> Path:
    plain = _jsonl(path.with_suffix(""), rows).read_bytes()
    codec = {".gz": "gzip", ".zst": "zstd"}[path.suffix]
    path.write_bytes(pyarrow.compress(plain, codec=codec, asbytes=True))
    return path


def _parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def _folder(path: Path, rows: list[dict[str, Any]]) -> Path:
    datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


@pytest.fixture(scope="module")
def answered(run: Run, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The answers to the questions, read from JSON Lines."""
    folder = tmp_path_factory.mktemp("answered")
    path = _jsonl(folder / "questions.jsonl", [{"query": text} for text in QUESTIONS])
    options = ["--run", str(run.folder), "--task", "turn", "--input", str(path)]
    main(["predict", *options, "--output", str(folder / "answers.jsonl")])
    return read(folder / "answers.jsonl")


def answers_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the names of the rows, and what other batches round otherwise."""
    return [{name: row[name] for name in row if name not in {"id", "logprob"}} for row in rows]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        pytest.param("q.json", _json, marks=pytest.mark.long),
        ("q.csv", _table),
        pytest.param("q.tsv", _table, marks=pytest.mark.long),
        pytest.param("q.jsonl.gz", _packed, marks=pytest.mark.long),
        ("q.jsonl.zst", _packed),
        ("q.parquet", _parquet),
        ("q", _folder),
    ],
)
def test_every_format_gives_the_same_answers(
    name: str,
    write: Callable[[Path, list[dict[str, Any]]], Path],
    turn: list[str],
    answered: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path / name, [{"query": text} for text in QUESTIONS])
    rows = predict(capsys, *turn, "--input", str(path))
    assert answers_of(rows) == answers_of(answered)
    assert len({row["prediction"] for row in rows}) > 1
    assert len({row["id"] for row in rows}) == len(QUESTIONS)
    assert all(row["id"].startswith(f"{name}:") for row in rows)


def test_lines_are_answered_one_by_one_and_a_row_that_carries_the_anchor_keeps_it(
    run: Run,
    answered: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lines:
        """Standard input that gives its next line after the answer to the last one has come."""

        given = (QUESTIONS[0], "", json.dumps({"query": QUESTIONS[0], "x": 1}))
        anchored = json.dumps({"query": f"{ANCHOR}\n\n{QUESTIONS[4]}", "response": "end"})

        @property
        def buffer(self) -> Iterator[bytes]:
            for number, line in enumerate((*self.given, self.anchored)):
                answers = capsys.readouterr().out.splitlines()
                assert len(answers) == (number in {1, 3})
                seen.extend(map(json.loads, answers))
                yield f"{line}\r\n".encode("utf-8-sig" if not number else "utf-8")

        def isatty(self) -> bool:
            return False

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("sys.stdin", Lines())
    adapter = str(run.folder / "adapter")
    seen += predict(capsys, "--adapter", adapter, "--task", "turn", "--input", "-")
    assert [row["id"] for row in seen] == ["1", "3", "4"]
    assert seen[1].pop("row") == {"x": 1}
    first, again, last = answers_of(seen)
    assert last.pop("reference") == "end"
    assert [first, again, last] == answers_of([answered[0], answered[0], answered[4]])


def test_columns_that_no_field_names_stay_with_the_answer(
    turn: list[str],
    answered: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {"query": QUESTIONS[0], "from": "mail", "sent": [2026, 1]},
        {"query": QUESTIONS[1], "response": "known"},
    ]
    path = _jsonl(tmp_path / "rows.jsonl", rows)
    first, second = predict(capsys, *turn, "--input", str(path))
    assert first["row"] == {"from": "mail", "sent": [2026, 1]}
    assert "row" not in second
    assert [first["prediction"], second["prediction"]] == [r["prediction"] for r in answered[:2]]


def test_rows_may_lack_the_anchor_that_the_data_of_the_task_carry(
    run: Run,
    answered: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(run.folder / "adapter", adapter)
    file = adapter / "anchor.json"
    file.write_text(file.read_text().replace('"present": false', '"present": true'))
    rows = [{"query": QUESTIONS[0]}, {"query": f"{ANCHOR}\n\n{QUESTIONS[1]}"}]
    path = _jsonl(tmp_path / "mixed.jsonl", rows)
    found = predict(capsys, "--adapter", str(adapter), "--task", "turn", "--input", str(path))
    assert answers_of(found) == answers_of(answered[:2])


def test_bad_rows_stop_it_before_the_first_answer_or_are_left_out_and_named(
    turn: list[str],
    answered: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    good = json.dumps({"query": QUESTIONS[0]})
    path.write_text(f'{good}\n{{"query": ""}}\n{good}\n')
    options = [*turn, "--input", str(path), "--output", str(output)]
    wrong: dict[str, Any] = {"rule": "'query'", "got": "''"}
    assert refused(capsys, *options) == says(f"{path}:2", **wrong)
    assert not output.exists()
    main(["predict", *options, "--data.on_bad_rows=skip", "--data.max_bad_share=0.5"])
    told, *_ = capsys.readouterr().err.splitlines()
    assert told == says(f"left out: {path}:2", **wrong)
    assert [row["id"] for row in read(output)] == ["questions.jsonl:1", "questions.jsonl:3"]
    type_in(monkeypatch, '{"query"', QUESTIONS[0])
    main(["predict", *turn, "--input", "-", "--data.on_bad_rows=skip"])
    said = capsys.readouterr()
    assert said.err == says("left out: standard input:1", rule="JSON")
    (row,) = map(json.loads, said.out.splitlines())
    assert answers_of([row]) == answers_of(answered[:1])
    type_in(monkeypatch, '{"query"', ANCHOR, QUESTIONS[0], terminal=True)
    main(["predict", *turn, "--input", "-", "--data.mixture={anchor: none}"])
    said = capsys.readouterr()
    first, second, third = said.err.splitlines()
    assert third == says("left out: standard input:2", rule="anchor")
    assert first == "Type a prompt, or a row in JSON, and Enter; Ctrl+D ends."
    assert second == says("left out: standard input:1", rule="JSON")
    assert len(said.out.splitlines()) == 1
    type_in(monkeypatch, '{"query"')
    assert refused(capsys, *turn, "--input", "-") == says("standard input:1", rule="JSON")


# Going on


def test_what_was_stopped_goes_on_to_the_bytes_of_an_uninterrupted_prediction(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, path = tmp_path / "whole.jsonl", tmp_path / "answers.jsonl"
    options = ["--run", str(run.folder), "--eval.batch_tokens=100"]
    main(["predict", *options, "--output", str(whole)])
    assert capsys.readouterr().err == f"{whole}: 48 rows, 48 of them answered now\n"
    lines = whole.read_bytes().splitlines(keepends=True)
    ids = [f"{task}-test.jsonl:{n}" for task in ("turn", "verdict") for n in range(1, 25)]
    assert [row["id"] for row in read(whole)] == ids
    for there, cut in ((7, 30), (24, -1), (47, 0)):  # inside a chunk and between tasks
        path.write_bytes(b"".join(lines[:there]) + lines[there][:cut])
        main(["predict", *options, "--output", str(path)])
        assert path.read_bytes() == whole.read_bytes()
        assert capsys.readouterr().err == (
            f"{path}: {there} of 48 rows are there\n"
            f"{path}: 48 rows, {48 - there} of them answered now\n"
        )


def test_first_answers_are_written_soon(
    turn: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    append = AnswersFile.append

    def counted(self: AnswersFile, lines: Sequence[bytes]) -> None:
        sizes.append(len(lines))
        append(self, lines)

    monkeypatch.setattr(AnswersFile, "append", counted)
    path = tmp_path / "answers.jsonl"
    main(["predict", *turn, "--output", str(path), "--eval.batch_tokens=1600"])
    assert sizes[0] <= 2 < sizes[2] < sizes[3]
    assert sum(sizes) == 24


def test_a_finished_file_needs_no_model(
    turn: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "answers.jsonl"
    main(["predict", *turn, "--output", str(path)])
    before = path.read_bytes()
    monkeypatch.setattr("tell_lightning.model.base.load_base", lambda _: pytest.fail("was loaded"))
    capsys.readouterr()
    main(["predict", *turn, "--output", str(path)])
    assert path.read_bytes() == before
    assert capsys.readouterr().err == (
        f"{path}: 24 of 24 rows are there\n{path}: 24 rows, 0 of them answered now\n"
    )


class Predicting:
    """A `predict` of the real command line, one row a batch, to be stopped midway."""

    def __init__(self, options: list[str], home: Path, output: Path) -> None:
        self.log = home / "log.txt"
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tell_lightning", "predict", *options],
                env=environment(home),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        while not output.exists() or output.read_bytes().count(b"\n") < 3:
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.002)

    def stop(self, signal_: signal.Signals) -> int:
        self.process.send_signal(signal_)
        return self.process.wait()


@pytest.fixture
def long_input(world: World, tmp_path: Path) -> Path:
    """Rows that take a second, one by one."""
    lines = (world.folder / "data/turn-test.jsonl").read_text().splitlines()
    rows = [{"query": f"{json.loads(lines[n % 24])['query']} {n}"} for n in range(60)]
    return _jsonl(tmp_path / "long.jsonl", rows)


@pytest.mark.long
@pytest.mark.parametrize(
    ("signal_", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_no_signal_loses_a_row_or_writes_it_twice(
    signal_: signal.Signals,
    code: int,
    turn: list[str],
    long_input: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "answers.jsonl"
    options = [*turn, "--input", str(long_input), "--output", str(output), "--eval.batch_tokens=1"]
    predicting = Predicting(options, tmp_path, output)
    assert predicting.stop(signal_) == code
    log = predicting.log.read_text()
    there = output.read_bytes().count(b"\n")
    assert 3 <= there < 60
    if signal_ != signal.SIGKILL:
        assert f"{output}: {there} of 60 rows are answered; the same command goes on\n" in log
        assert "Traceback" not in log
    main(["predict", *options])
    assert f"{output}: {there} of 60 rows are there\n" in capsys.readouterr().err
    rows = read(output)
    assert [row["id"] for row in rows] == [f"long.jsonl:{n}" for n in range(1, 61)]
    assert not (tmp_path / ".answers.jsonl.lock").exists()
    first = predict(capsys, *turn, "--input", str(long_input), "--eval.batch_tokens=1")
    assert rows == first


@pytest.mark.long
def test_a_pipe_gets_each_answer_at_once_and_its_end_is_no_error(
    turn: list[str], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tell_lightning", "predict", *turn, "--input", "-"],
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for number, text in enumerate(QUESTIONS[:3], start=1):
        process.stdin.write(f"{text}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == str(number)
    process.stdout.close()  # as `head` does
    _, errors = process.communicate("more\nand more\n")
    assert (process.returncode, errors) == (0, "")


# What is refused


def test_answers_of_another_model_or_to_another_prompt_are_refused(
    run: Run, turn: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    _jsonl(path, [{"query": text} for text in QUESTIONS])
    options = ["--task", "turn", "--input", str(path), "--output", str(output)]
    main(["predict", "--run", str(run.folder), *options])
    before = output.read_bytes()
    name = read(output)[0]["model"]
    other = tmp_path / "adapter"
    shutil.copytree(run.folder / "adapter", other)
    main(["predict", "--adapter", str(other), *options])  # a copy is no other one
    weights = load_file(other / "adapter_model.safetensors")
    next(iter(weights.values()))[0, 0] += 1
    save_file(weights, other / "adapter_model.safetensors", metadata={"format": "pt"})
    error = refused(capsys, "--adapter", str(other), *options)
    assert error == says(str(other / "adapter_model.safetensors"), cure="weights_sha256")
    anchors = json.loads((other / "anchor.json").read_text(encoding="utf-8"))
    (other / "anchor.json").write_text(json.dumps(anchors | {"weights_sha256": None}))
    capsys.readouterr()
    for which in (
        ["--adapter", str(other)],
        ["--run", str(run.folder), "--data.tasks.turn.max_new_tokens=9"],
        ["--run", str(run.folder), "--model.dtype=bfloat16"],
        ["--run", str(run.folder), "--eval.temperature=0.5"],
    ):
        error = refused(capsys, *which, *options)
        assert error == says(f"{output}:1", rule="'model'", got=f"'{name}'", cure="--output")
    _jsonl(path, [{"query": text.replace("say", "tell")} for text in QUESTIONS])
    assert refused(capsys, *turn, *options[2:]).startswith(
        f"{output}:3: field 'prompt_sha256' must be '"
    )
    _jsonl(path, [{"query": text} for text in QUESTIONS[:4]])
    assert refused(capsys, *turn, *options[2:]) == says(f"{output}:5", rule="row 4")
    assert output.read_bytes() == before


def test_a_file_with_something_else_in_it_is_refused_and_kept(
    turn: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _jsonl(tmp_path / "questions.jsonl", [{"query": "one"}])
    for name, content in (("questions.jsonl", path.read_bytes()), ("notes.txt", b"buy milk")):
        mine = tmp_path / name
        mine.write_bytes(content)
        error = refused(capsys, *turn, "--input", str(path), "--output", str(mine))
        assert error == says(f"{mine}:1", cure="--output")
        assert mine.read_bytes() == content


def test_another_base_is_used_where_it_is_typed_and_refused_where_it_does_not_fit(
    run: Run,
    world: World,
    turn: list[str],
    answered: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(world.base, moved)
    path = _jsonl(tmp_path / "q.jsonl", [{"query": text} for text in QUESTIONS])
    options = ["--adapter", str(run.folder / "adapter"), "--task", "turn", "--input", str(path)]
    rows = predict(capsys, *options, f"--model.base={moved}")
    assert answers_of(rows) == answers_of(answered)
    assert refused(capsys, *options, "--model.base=/nowhere/base") == says(
        "model.base", got="'/nowhere/base'"
    )
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    weights = load_file(moved / "model.safetensors")
    fewer = {name: value for name, value in weights.items() if ".layers.1." not in name}
    save_file(fewer, moved / "model.safetensors", metadata={"format": "pt"})
    typed = f"--model.base={moved}"
    assert refused(capsys, *options, typed) == says("model.base", cure="--accept-base")
    error = refused(capsys, *options, typed, "--accept-base")
    assert error == says(str(run.folder / "adapter"), rule="model.lora", cure="layers.1.")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--input", "-"], says("--task", got="none", cure="turn, verdict")),
        (["--task", "halu"], says("--task", rule=["turn", "verdict"], got="'halu'")),
    ],
)
def test_adapter_of_several_tasks_needs_the_name_of_one(
    run: Run, options: list[str], error: Says, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["predict", "--run", str(run.folder), *options])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.removeprefix("error: ") == error


def test_adapter_alone_has_no_test_rows(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--adapter", str(run.folder / "adapter")])
    assert capsys.readouterr().err == says("error: --input", got="none")
