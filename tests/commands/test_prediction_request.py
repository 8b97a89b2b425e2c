"""What `predict` is asked: typed keys win, the adapter decides anchor and base, mistakes are named.

No test needs a model: everything here is answered before torch is imported.
"""

import argparse
import json
from pathlib import Path

import pytest
import yaml
from messages import says

from tell_lightning.cli import main
from tell_lightning.commands.prediction_request import PredictionRequest, read_request
from tell_lightning.data.anchors import Anchor
from tell_lightning.data.records import Fields
from tell_lightning.export.anchor_file import AnchorFile, TaskPrompt

ANCHOR = Anchor(text='Turn "it" round: 😀\u2028 {now}', response_prefix="So: ")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter folder of a task that a default one has the name of; its weights are empty."""
    tasks = {
        "judge": TaskPrompt(ANCHOR, 40, Fields(prompt="question"), 2, ("\n",)),
        "turn": TaskPrompt(Anchor(text="Turn."), 12, Fields(prompt="query", input="more")),
    }
    folder = tmp_path / "adapter"
    folder.mkdir()
    anchors = AnchorFile("/bases/seven", "main", "end", "digest", tasks)
    (folder / "anchor.json").write_text(json.dumps(anchors.to_json()))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_text("")
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "a", "more": "b"}\n')
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of a task with files."""
    for name, answers in (("train", "x" * 40), ("test", "y")):
        lines = [{"query": f"{name} {n}", "more": "", "response": answers} for n in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    task = {
        "train": "train.jsonl",
        "test": "test.jsonl",
        "fields": {"prompt": "query"},
        "anchor": {"text": "Turn."},
    }
    path = tmp_path / "mine.yaml"
    data = {"root": str(tmp_path), "tasks": {"turn": task}}
    path.write_text(yaml.safe_dump({"data": data, "model": {"base": "/bases/mine"}}))
    return path


def request(*overrides: str, **options: object) -> PredictionRequest:
    names = {"run": None, "adapter": None, "base": False, "config": [], "accept_base": False}
    given = {**names, "task": "turn", "input": None, **options}
    return read_request(argparse.Namespace(**given), list(overrides))


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["predict", *map(str, arguments)])
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.removeprefix("error: ").rstrip("\n")


def test_an_adapter_alone_brings_its_tasks_and_its_base(adapter, rows):
    found = request(adapter=str(adapter), input=rows)
    assert (found.model.base, found.model.revision) == ("/bases/seven", "main")
    assert (found.variant, found.trained_variant, found.total) == ("end", "end", 1)
    (part,) = found.parts
    assert (part.name, part.task.anchor.text, part.task.max_new_tokens) == ("turn", "Turn.", 12)
    assert [row.turns[0].content for row in part.rows] == ["a\n\nb"]
    judge = Path(rows).with_name("judge.jsonl")
    judge.write_text('{"question": "q"}\n')
    (part,) = request(adapter=str(adapter), input=str(judge), task="judge").parts
    assert part.task.anchor == ANCHOR  # letter by letter
    assert (part.task.min_new_tokens, part.task.stop_tokens) == (2, ("\n",))
    assert part.task.scoring.kind == "text"  # the default's judge is another one


def test_what_is_typed_wins_and_a_file_says_how_rows_are_read(adapter, rows, config):
    typed = [
        "--model.base=/bases/moved",
        "--data.mixture.anchor=none",
        "--data.tasks.turn.max_new_tokens=5",
        "--data.tasks.turn.fields.input=null",
        "--data.tasks.turn.scoring.kind=judge",
    ]
    found = request(*typed, adapter=str(adapter), input=rows)
    assert (found.model.base, found.model.revision) == ("/bases/moved", None)
    assert (found.variant, found.trained_variant) == ("none", "end")
    (part,) = found.parts
    assert (part.task.max_new_tokens, part.task.scoring.kind) == (5, "judge")
    assert [row.turns[0].content for row in part.rows] == ["a"]
    found = request("--model.revision=other", adapter=str(adapter), config=[str(config)])
    assert (found.model.base, found.model.revision) == ("/bases/seven", "other")
    assert found.total == 3  # the test rows of the file
    assert found.parts[0].task.max_new_tokens == 12


@pytest.mark.parametrize(
    "typed",
    [
        ["--data.mixture={anchor: none}", "--model={base: /bases/moved}"],
        ["--data.mixture", "{anchor: none}", "--model", "{base: /bases/moved}"],
        ["--data={mixture: {anchor: none}}", "--model.base", "/bases/moved"],
    ],
)
def test_what_is_typed_wins_in_every_form(typed, adapter, rows):
    found = request(*typed, adapter=str(adapter), input=rows)
    assert (found.model.base, found.model.revision) == ("/bases/moved", None)
    assert (found.variant, found.trained_variant) == ("none", "end")


def test_a_typed_section_leaves_what_it_does_not_name_to_the_adapter(adapter, rows):
    typed = ["--data.mixture={task_share: 0.5}", "--model={dtype: bfloat16, revision: v2}"]
    found = request(*typed, adapter=str(adapter), input=rows)
    assert (found.model.base, found.model.revision) == ("/bases/seven", "v2")
    assert (found.model.dtype, found.variant) == ("bfloat16", "end")


def test_a_value_of_a_file_that_is_not_used_is_named(adapter, config, capsys):
    data = yaml.safe_load(config.read_text())
    data["data"]["mixture"] = {"anchor": "none"}
    config.write_text(yaml.safe_dump(data))
    found = request(adapter=str(adapter), config=[str(config)])
    assert (found.model.base, found.variant) == ("/bases/seven", "end")
    assert capsys.readouterr().err == (
        f"{config}: data.mixture.anchor: 'none' is not used: the adapter was trained with 'end'; "
        "type --data.mixture.anchor=none to use it all the same\n"
        f"{config}: model.base: '/bases/mine' is not used: the adapter was trained with "
        "'/bases/seven'; type --model.base=/bases/mine to use it all the same\n"
    )
    typed = ["--data.mixture.anchor=none", "--model.base=/bases/mine"]
    found = request(*typed, adapter=str(adapter), config=[str(config)])
    assert (found.model.base, found.variant) == ("/bases/mine", "none")
    assert capsys.readouterr().err == ""


def test_the_base_alone_may_answer_as_long_as_the_longest_known_answer_needs(config):
    found = request(base=True, config=[str(config)])
    assert found.model.base == "/bases/mine"
    (part,) = found.parts
    assert not part.free
    assert [example.turns[-1].content for example in part.known] == ["x" * 40] * 3
    (part,) = request("--data.tasks.turn.max_new_tokens=5", base=True, config=[str(config)]).parts
    assert part.known == ()


def test_the_known_answers_of_the_base_must_be_there_or_its_length_given(config, rows, capsys):
    (config.parent / "train.jsonl").unlink()
    options = ["--base", "-c", config, "--input", rows]
    assert error(capsys, *options) == says(
        "data.tasks.turn.max_new_tokens", got="null", cure=str(config.parent / "train.jsonl")
    )


def test_labels_that_are_not_configured_are_those_of_the_task_s_rows(config, rows, capsys):
    kind = "--data.tasks.turn.scoring.kind=classification"
    (part,) = request(kind, base=True, config=[str(config)], input=rows).parts
    assert part.task.scoring.labels == ("x" * 40, "y")
    (config.parent / "test.jsonl").unlink()
    options = ["--base", "-c", config, "--input", rows, kind]
    assert error(capsys, *options, "--data.tasks.turn.max_new_tokens=5").startswith(
        "data.tasks.turn.scoring.labels: must be set if the known answers cannot be read"
    )
    given = "--data.tasks.turn.scoring.labels=[a,b]"
    (part,) = request(kind, given, base=True, config=[str(config)], input=rows).parts
    assert part.task.scoring.labels == ("a", "b")


def test_another_anchor_than_the_trained_one_is_refused(adapter, rows, config, capsys):
    text = config.read_text().replace("Turn.", "Turn it.")
    config.write_text(text)
    assert error(capsys, "--adapter", adapter, "-c", config, "--input", rows) == says(
        "data.tasks.turn.anchor",
        rule=str(adapter / "anchor.json"),
        got="'Turn it.'",
        cure="--data.mixture.anchor=none",
    )


def test_half_an_adapter_folder_is_refused(adapter, rows, capsys):
    (adapter / "adapter_model.safetensors").unlink()
    assert error(capsys, "--adapter", adapter, "--input", rows) == says(
        str(adapter), rule="adapter_model.safetensors", got="none"
    )


def test_a_run_that_has_not_ended_is_refused(config, capsys):
    run = config.parent / "run"
    run.mkdir()
    config.rename(run / "config.yaml")
    assert error(capsys, "--run", run) == says("--run", got=f"'{run}'", cure=f"fit --resume {run}")


def test_a_data_set_of_several_splits_is_refused_with_the_way_to_one(adapter, tmp_path, capsys):
    import datasets

    folder = tmp_path / "set"
    split = datasets.Dataset.from_list([{"query": "a", "more": ""}])
    datasets.DatasetDict({"test": split, "dev": split}).save_to_disk(folder)
    capsys.readouterr()
    options = ["--adapter", adapter, "--task", "turn", "--input"]
    assert error(capsys, *options, folder) == says(
        "--input", got=f"'{folder}'", cure=["test, dev", f"--input {folder / 'test'}"]
    )
    assert request(adapter=str(adapter), input=str(folder / "dev")).total == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "--adapter", "x"], says("--adapter", rule="--base", got="both")),
        (["--base", "--inptu", "x"], says("predict", got="'--inptu'", cure="'--input'")),
        (["--base", "--run.name=x", "y"], says("command line", rule="'--'", got="'y'")),
        (["--base=my/base", "--input", "x"], says("--base", got="'my/base'")),
        (["--base", "foo"], says("--base", got="'foo'", cure="--model.base=NAME")),
        (["--base", "--frob=1"], says("frob", got="'frob'")),
        (["--base", "--input"], says("--input", got="none")),
        (["--base", "-c"], says("--config", got="none")),
        (
            ["--base", "--eval.frob=1"],
            says("eval.frob", got="'frob'"),
        ),
        (["--base", "--eval.batch_tokens", "0"], says("eval.batch_tokens", rule="1", got="0")),
        (
            ["--base", "--data.tasks={}"],
            says("data.tasks", rule="predict", got="none", cure="data.tasks.NAME"),
        ),
    ],
)
def test_a_wrong_command_line_is_named(arguments, message, capsys):
    assert error(capsys, *arguments) == message


@pytest.mark.parametrize("thinking", ["strip", "keep", None])
def test_the_adapter_says_whether_its_answers_think(
    thinking: str | None, adapter: Path, rows: str
) -> None:
    file = adapter / "anchor.json"
    content = json.loads(file.read_text())
    assert content.pop("thinking") == "strip"
    if thinking is not None:  # folders of earlier versions do not say it
        content["thinking"] = thinking
    file.write_text(json.dumps(content))
    asked = request(adapter=str(adapter), input=rows)
    assert asked.config.data.thinking == (thinking or "strip")
