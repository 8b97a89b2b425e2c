"""`predict` answers as plain PEFT does, from a run, an adapter folder or the base alone."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import Run
from tiny_world import ANCHOR, PREFIX, World

from tell_lightning.cli import main


def predict(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    main(["predict", *options])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


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


def test_standard_input_takes_text_and_json_lines_and_the_adapter_alone_suffices(
    run: Run,
    world: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query = json.loads((world.folder / "data/turn-test.jsonl").read_text().splitlines()[0])["query"]
    monkeypatch.setattr(
        "sys.stdin", io.StringIO(f"{query}\n\n{json.dumps({'query': query, 'x': 1})}\n")
    )
    adapter = str(run.folder / "adapter")
    rows = predict(capsys, "--adapter", adapter, "--task", "turn", "--input", "-")
    step = run.record["selected"]["step"]
    first = run.jsonl(f"test-turn-step-{step:06d}")[0]
    assert [row["id"] for row in rows] == ["1", "3"]
    assert [row["prediction"] for row in rows] == [first["prediction"]] * 2
    assert all("reference" not in row for row in rows)


def test_file_is_answered_into_a_file(
    run: Run, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_text('{"query": "one two"}\n{"query": "red blue", "response": "blue red"}\n')
    options = ["--task", "turn", "--input", str(questions), "--output", str(answers)]
    assert predict(capsys, "--run", str(run.folder), *options) == []
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["questions.jsonl:1", "questions.jsonl:2"]
    assert rows[1]["reference"] == "blue red"
    assert set(rows[0]) == {
        "id",
        "task",
        "prediction",
        "stopped",
        "prefix_found",
        "new_tokens",
    }


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--input", "-"], "--task: must say whose anchor the rows get, got none. Choose one of"),
        (["--task", "halu"], "--task: must be one of turn, verdict, got 'halu'."),
    ],
)
def test_adapter_of_several_tasks_needs_the_name_of_one(
    run: Run, options: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["predict", "--run", str(run.folder), *options])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {error}")


def test_adapter_alone_has_no_test_rows(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--adapter", str(run.folder / "adapter")])
    assert capsys.readouterr().err.startswith("error: --input: needs rows to answer, got none")


def test_half_an_output_file_is_not_left_behind(run: Run, tmp_path: Path) -> None:
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_text('{"prompt": "of another task"}\n')
    options = ["--task", "turn", "--input", str(questions), "--output", str(answers)]
    with pytest.raises(SystemExit):
        main(["predict", "--run", str(run.folder), *options])
    assert not answers.exists()
