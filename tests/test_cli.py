"""What the YAML or the bytes of a file decide is answered by one line, fast and without torch."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tell_lightning import __version__
from tell_lightning.cli import COMMANDS
from tell_lightning.commands.check import check
from tell_lightning.data.settings import General, Task

ANCHOR = "Turn the letters round."


class Commands:
    """Runs `python -m tell_lightning` where importing torch fails."""

    def __init__(self, folder: Path) -> None:
        poison = folder / "poison"
        poison.mkdir()
        (poison / "torch.py").write_text('raise ImportError("torch was imported")\n')
        self.folder = folder
        path = os.pathsep.join([str(poison), str(Path(__file__).parents[1])])
        self.environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "tell_lightning", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.seconds = time.perf_counter() - started
        return done

    def error(self, *arguments: str) -> str:
        """Run a command that must fail as a user's mistake, and return the text of the error."""
        done = self.run(*arguments)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        text = lines[0].removeprefix("error: ")
        where, colon, rest = text.partition(": ")
        assert where, text
        assert colon, text
        assert ", got" in rest, text
        return text

    def write(self, name: str, text: str | bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return name


def rows(count: int, start: int = 0) -> list[dict[str, str]]:
    return [
        {"prompt": f"letters {n}", "response": f"{n} srettel"} for n in range(start, start + count)
    ]


def jsonl(lines: list[dict[str, str]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """A folder with correct data and the configuration `mine.yaml` for them."""
    made = Commands(tmp_path)
    made.write("data/train.jsonl", jsonl(rows(20)))
    made.write("data/test.jsonl", jsonl(rows(5, 100)))
    made.write("data/general.jsonl", jsonl(rows(40, 200)))
    task = {"train": "train.jsonl", "test": "test.jsonl", "anchor": {"text": ANCHOR}}
    data = {
        "root": "data",
        "tasks": {"turn": task},
        "general": {"all": {"train": "general.jsonl"}},
    }
    made.write("mine.yaml", yaml.safe_dump({"data": data}))
    return made


def test_help_lists_every_command_at_once(commands: Commands) -> None:
    done = commands.run("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert commands.seconds < 2


def test_nothing_after_the_command_shows_the_help(commands: Commands) -> None:
    assert commands.run().stdout == commands.run("-h").stdout


def test_version_is_the_packages(commands: Commands) -> None:
    done = commands.run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")
    assert commands.seconds < 2


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("fit", "[--resume RUN] [-c FILE]... [--KEY=VALUE]..."),
        ("prepare", "[-c FILE]... [--KEY=VALUE]..."),
        ("plan", "[--show N | --positions A:B] [--format {table,jsonl}] [-c FILE]..."),
        ("test", "RUN [-c FILE]... [--KEY=VALUE]..."),
        ("validate", "RUN [-c FILE]... [--KEY=VALUE]..."),
        ("predict", "(--run RUN | --adapter DIR | --base) [-c FILE]"),
    ],
)
def test_help_of_a_command_explains_its_options(commands: Commands, name: str, usage: str) -> None:
    done = commands.run(name, "--help")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert text.startswith(f"usage: python -m tell_lightning {name} [-h] {usage}")
    if name != "predict":
        assert "Rank r of the update. (type: int, default: 16)" in text
        assert "--data.mixture.task_share" in text
        assert "--trainer.max_steps" in text


@pytest.mark.parametrize(
    ("name", "advice"), [("train", "See --help."), ("reprot", "Did you mean 'report'?")]
)
def test_unknown_command_is_refused_with_the_known_ones(
    commands: Commands, name: str, advice: str
) -> None:
    error = commands.error(name)
    assert error.startswith("command line: the command must be one of ")
    assert ", ".join(COMMANDS) in error
    assert error.endswith(f", got '{name}'. {advice}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "dta:\n  root: x\n",
            "x.yaml: dta.root: must be a key of the configuration, got 'dta'. Did you mean 'data'?",
        ),
        (
            "data:\n  mixture:\n    task_shaer: 0.1\n",
            "x.yaml: data.mixture.task_shaer: must be a key of the configuration, "
            "got 'task_shaer'. Did you mean 'data.mixture.task_share'?",
        ),
        (
            "data:\n  tasks:\n    turn:\n      trian: x\n",
            "x.yaml: data.tasks.turn.trian: must be a key of the configuration, got 'trian'. "
            "Did you mean 'train'?",
        ),
        (
            "data:\n  tasks:\n    turn:\n      anchor: {positon: suffix}\n",
            "x.yaml: data.tasks.turn.anchor.positon: must be a key of the configuration, "
            "got 'positon'. Did you mean 'position'?",
        ),
        (
            "data:\n  general:\n    all:\n      train: general.jsonl\n      wieght: 2\n",
            "x.yaml: data.general.all.wieght: must be a key of the configuration, got 'wieght'. "
            "Did you mean 'weight'?",
        ),
        (
            "trainer:\n  max_step: 3\n",
            "x.yaml: trainer.max_step: must be a key of the configuration, got 'max_step'. "
            "Did you mean 'trainer.max_steps'?",
        ),
        (
            "model:\n  lora:\n    rank: four\n",
            "x.yaml: model.lora.rank: must be int, got four. See `fit --help`.",
        ),
        (
            "trainer:\n  max_steps: many\n",
            "x.yaml: trainer.max_steps: must be null or int, got many. See `fit --help`.",
        ),
        (
            "data:\n  mixture: {arm: tel}\n",
            "x.yaml: data.mixture.arm: must be one of ['tell', 'sft', 'general_only'], got tel. "
            "See `fit --help`.",
        ),
        (
            "data:\n  tasks:\n    turn: {scoring: {kind: judg}}\n",
            "x.yaml: data.tasks.turn.scoring.kind: must be one of translation, judge, "
            "classification, json, text or a class path, got 'judg'. Did you mean 'judge'?",
        ),
        (
            "data:\n  tasks: [1\n",
            "x.yaml:3: must be valid YAML, got: expected ',' or ']', but got "
            "'<stream end>'. Check brackets, quotes and indentation here and above.",
        ),
        ("", "x.yaml: must hold keys, got an empty file. Write KEY: VALUE lines."),
        ("hello\n", "x.yaml: must hold keys, got 'hello'. Write KEY: VALUE lines."),
        (
            b"run:\n  name: \xe9\n",
            "x.yaml: must be UTF-8 text, got the byte 0xe9 at 13. Save it as UTF-8.",
        ),
    ],
)
def test_mistake_in_a_configuration_is_named(
    commands: Commands, text: str | bytes, error: str
) -> None:
    commands.write("x.yaml", text)
    assert commands.error("fit", "-c", "mine.yaml", "-c", "x.yaml") == error
    assert commands.seconds < 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ["-c", "none.yaml"],
            "-c: must name a configuration file, got 'none.yaml', which is not there",
        ),
        (["-c"], "-c: needs a configuration file, got none. Write -c FILE."),
        (
            ["--data.mixtrue.arm=sft"],
            "data.mixtrue.arm: must be a key of the configuration, got 'mixtrue'. "
            "Did you mean 'mixture'?",
        ),
        (
            ["--eval.temperatur=1"],  # a beginning of a key is none
            "eval.temperatur: must be a key of the configuration, got 'temperatur'. "
            "Did you mean 'eval.temperature'?",
        ),
        (
            ["-c", "mine.yaml", "--data.root=5", "--model.lora.rank=four"],
            "model.lora.rank: must be int, got four. See `fit --help`.",
        ),
        (["frob"], "command line: options must start with '--', got 'frob'. Write --KEY=VALUE"),
        (["--trainer.fast_dev_run=true"], "trainer.fast_dev_run: is decided by other keys, got"),
        (
            ["--trainer.accumulate_grad_batches=2"],
            "trainer.accumulate_grad_batches: is decided by other keys, got 2. "
            "Set data.optimizer_batch and data.micro_batch instead.",
        ),
        (
            ["--trainer.precision=bf16-true"],
            "trainer.precision: must keep the adapters in float32, got bf16-true",
        ),
        (["--trainer.max_steps=0"], "trainer.max_steps: must be at least 1, got 0."),
        (
            ["--data.mixture.cycles=2"],
            "trainer.max_steps: must be null where data.mixture.cycles: 2 says when to stop, got",
        ),
        (["--seed_everything=true"], "seed_everything: must be a whole number from 0 on, got True"),
        (["--run.name=a/b"], "run.name: must be made of letters, digits, '-', '_' and '.', got"),
        (["--resume"], "--resume: needs a value, got none."),
        (["--resume", ""], "--resume: needs a value, got none."),
        (["--resme=x"], "fit: options must be known, got '--resme'. Did you mean '--resume'?"),
        (["--resume", "data"], "RUN: must be the folder of a run, with config.yaml in it, got"),
        (["--data.root=/nowhere"], "data.root: must be an existing folder, got '/nowhere'"),
    ],
)
def test_mistake_on_the_command_line_is_named(
    commands: Commands, options: list[str], error: str
) -> None:
    assert commands.error("fit", "-c", "mine.yaml", *options).startswith(error)
    assert commands.seconds < 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["test"], "test: needs RUN, got none. See `test --help`."),
        (["validate", "data"], "RUN: must be the folder of a run, with config.yaml in it, got"),
        (
            ["plan", "--show", "x"],
            "--show: must be a whole number from 0 on, of at most 9 digits, got 'x'.",
        ),
        (["plan", "--show"], "--show: needs a value, got none."),
        (["plan", "--positions", "9:3"], "--positions: must be A:B, whole numbers of at most 18"),
        (["predict"], "predict: needs one of --run --adapter --base, got none."),
        (["predict", "--run", "data"], "RUN: must be the folder of a run, with config.yaml in it"),
        (
            ["predict", "--adapter", "data", "--input", "-"],
            "data: an adapter folder holds anchor.json, got none. Give the adapter/ folder of a "
            "run.",
        ),
        (
            ["predict", "--base", "--input", "-"],
            "--task: must say whose anchor the rows get, got none. Choose one of translate, judge.",
        ),
        (
            ["predict", "--base", "-c", "mine.yaml", "--task", "x"],
            "--task: must be one of turn, got 'x'. Choose one of them.",
        ),
        (
            ["predict", "--base", "-c", "mine.yaml", "--input", "none.jsonl"],
            "none.jsonl: the file or folder must exist, got 'none.jsonl'",
        ),
        (
            ["predict", "--base", "-c", "mine.yaml", "--output", "no/where.jsonl"],
            "--output: must be in an existing folder, got 'no/where.jsonl'. Make the folder.",
        ),
    ],
)
def test_mistake_in_another_command_is_named(
    commands: Commands, arguments: list[str], error: str
) -> None:
    assert commands.error(*arguments).startswith(error)
    assert commands.seconds < 2


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        (
            "train.jsonl",
            jsonl(rows(16)) + "{not json}\n",
            "data/train.jsonl:17: a line must be valid JSON, got",
        ),
        (
            "train.jsonl",
            "",
            "data/train.jsonl: a data file must hold at least one row, got an empty",
        ),
        (
            "train.jsonl",
            jsonl([*rows(3), {"prompt": "p", "answer": "a"}]),
            "data/train.jsonl:4: field 'response' must be there, got the fields",
        ),
        (
            "general.jsonl",
            jsonl([*rows(2, 300), {"prompt": " ", "response": "x"}]),
            "data/general.jsonl:3: field 'prompt' must be a non-empty string, got ' '.",
        ),
        (
            "test.jsonl",
            jsonl([*rows(2, 300), rows(20)[7]]),
            "data/test.jsonl:3: a held-out row must not be among the task's training rows, got "
            "the prompt of data/train.jsonl:8. Remove one of the two.",
        ),
        (
            "train.jsonl",
            jsonl([*rows(2), {"prompt": f"{ANCHOR}\n\nx", "response": "y"}]),
            "data/train.jsonl:3: the user turn must get the anchor once, got data that already "
            "start with it",
        ),
    ],
)
def test_bad_row_is_named_by_file_and_line(
    commands: Commands, name: str, content: str, error: str
) -> None:
    commands.write(f"data/{name}", content)
    assert commands.error("fit", "-c", "mine.yaml").startswith(error)
    assert commands.seconds < 2


def test_row_without_the_anchor_that_the_data_should_carry_is_named(commands: Commands) -> None:
    anchored = [{**row, "prompt": f"{ANCHOR} {row['prompt']}"} for row in rows(20)]
    anchored[4]["prompt"] = "letters 4"
    commands.write("data/train.jsonl", jsonl(anchored))
    present = yaml.safe_load((commands.folder / "mine.yaml").read_text())
    present["data"]["tasks"]["turn"] |= {"anchor": {"text": ANCHOR, "present": True}, "test": None}
    commands.write("present.yaml", yaml.safe_dump(present))
    assert commands.error("plan", "-c", "present.yaml") == (
        f"data/train.jsonl:5: the user turn must start with the anchor '{ANCHOR}', "
        "got 'letters 4'. Correct the row, or set anchor.present: false where no row carries it."
    )


def test_no_tasks_and_no_general_sources_are_refused(commands: Commands) -> None:
    commands.write("empty.yaml", "data: {root: data, tasks: {}, general: {}}\n")
    assert commands.error("fit", "-c", "empty.yaml") == (
        "data: needs tasks or general sources, got none. Add data.tasks and data.general."
    )


def test_a_task_of_a_file_takes_nothing_from_a_default_one_of_its_name(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    section = {
        "tasks": {"translate": {"train": "mine.jsonl", "overlong": "drop"}},
        "general": {"instructions": {"train": "general.jsonl"}},
    }
    first.write_text(yaml.safe_dump({"data": section}))
    second.write_text("data:\n  tasks:\n    translate: {max_new_tokens: 5}\n")
    options = ["-c", str(first), "-c", str(second), "--data.tasks.translate.dev_from_train=3"]
    data = check(options).data
    assert data.tasks == {
        "translate": Task(train="mine.jsonl", overlong="drop", max_new_tokens=5, dev_from_train=3)
    }
    assert data.general == {"instructions": General(train="general.jsonl")}
    assert set(check(["--data.tasks.judge.max_new_tokens=5"]).data.tasks) == {"translate", "judge"}


def test_run_without_a_checkpoint_cannot_be_resumed(commands: Commands) -> None:
    commands.write("run/config.yaml", (commands.folder / "mine.yaml").read_text())
    error = commands.error("fit", "--resume", "run")
    assert error.startswith("--resume: the run must have a checkpoint, got none at run/checkpoints")


def test_run_without_test_rows_cannot_be_tested(commands: Commands) -> None:
    config = yaml.safe_load((commands.folder / "mine.yaml").read_text())
    config["data"]["tasks"]["turn"]["test"] = None
    commands.write("run/config.yaml", yaml.safe_dump(config))
    assert commands.error("test", "run") == (
        "data.tasks: test needs a task with test rows, got none. Add data.tasks.NAME.test."
    )


def test_a_failed_start_leaves_no_folder(commands: Commands) -> None:
    commands.error("fit", "-c", "mine.yaml", "--data.root=/nowhere")
    assert not (commands.folder / "runs").exists()
