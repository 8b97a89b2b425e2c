"""What the YAML or the bytes of a file decide is answered by one line.

test_repository.py shows that such answers need no torch.
"""

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from messages import Says, says

from tell_lightning import __version__
from tell_lightning.cli import COMMANDS, main
from tell_lightning.commands.check import check
from tell_lightning.data.settings import General, Task

ANCHOR = "Turn the letters round."


@dataclass(frozen=True)
class Done:
    """What a command has left."""

    returncode: int
    stdout: str
    stderr: str


class Commands:
    """Runs commands in a folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def run(self, *arguments: str) -> Done:
        code: str | int | None = 0
        try:
            main(arguments)
        except SystemExit as stop:
            code = stop.code
        assert isinstance(code, int)
        return Done(code, *self.capsys.readouterr())

    def error(self, *arguments: str) -> str:
        """Run a command that must fail as a user's mistake, and return the text of the error."""
        done = self.run(*arguments)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

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
def commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Commands:
    """A folder with correct data and the configuration `mine.yaml` for them."""
    monkeypatch.chdir(tmp_path)
    made = Commands(tmp_path, capsys)
    made.write("data/train.jsonl", jsonl(rows(20)))
    made.write("data/test.jsonl", jsonl(rows(5, 100)))
    made.write("data/general.jsonl", jsonl(rows(40, 200)))
    task = {"train": "train.jsonl", "test": "test.jsonl", "anchor": {"text": ANCHOR}}
    data = {
        "root": "data",
        "tasks": {"turn": task},
        "general": {"all": {"train": "general.jsonl"}},
    }
    settings = {"data": data, "model": {"base": "microworld"}, "trainer": {"max_steps": 250}}
    made.write("mine.yaml", yaml.safe_dump(settings))
    return made


def test_help_lists_every_command_at_once(commands: Commands) -> None:
    done = commands.run("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_nothing_after_the_command_shows_the_help(commands: Commands) -> None:
    assert commands.run().stdout == commands.run("-h").stdout


def test_version_is_the_packages(commands: Commands) -> None:
    assert commands.run("--version") == Done(0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "screen"),
    [
        (["--version"], 0, f"{__version__}\n"),
        (["plan", "--show"], 2, "error: --show: "),
    ],
)
def test_a_process_has_the_exit_code_and_the_lines_of_its_command(
    arguments: list[str], code: int, screen: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tell_lightning", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert (done.stderr if code else done.stdout).startswith(screen)
    assert (done.stdout if code else done.stderr) == ""
    assert len((done.stdout + done.stderr).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("fit", "[--resume RUN] [--folder RUN] [--accept-base] [-c FILE]... [--KEY=VALUE]..."),
        ("prepare", "[-c FILE]... [--KEY=VALUE]..."),
        ("plan", "[--show N | --positions A:B | --measure] [--format {table,jsonl}] [-c FILE]..."),
        ("test", "[--trust] [--accept-base] RUN [-c FILE]... [--KEY=VALUE]..."),
        ("validate", "[--trust] [--accept-base] RUN [-c FILE]... [--KEY=VALUE]..."),
        ("predict", "(--run RUN | --adapter DIR | --base) [-c FILE]"),
    ],
)
def test_help_of_a_command_explains_its_options(commands: Commands, name: str, usage: str) -> None:
    done = commands.run(name, "--help")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert text.startswith(f"usage: python -m tell_lightning {name} [-h] {usage}")
    if name != "predict":
        assert "Rank r of the update. (type: whole number, default: 16)" in text
        assert "--data.mixture.task_share" in text
        assert "--trainer.max_steps" in text


@pytest.mark.parametrize(("name", "advice"), [("train", "--help"), ("reprot", "'report'")])
def test_unknown_command_is_refused_with_the_known_ones(
    commands: Commands, name: str, advice: str
) -> None:
    assert commands.error(name) == says(
        "command line", rule=", ".join(COMMANDS), got=f"'{name}'", cure=advice
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "dta:\n  root: x\n",
            says("x.yaml: dta.root", got="'dta'", cure="'data'"),
        ),
        (
            "data:\n  mixture:\n    task_shaer: 0.1\n",
            says(
                "x.yaml: data.mixture.task_shaer",
                got="'task_shaer'",
                cure="'data.mixture.task_share'",
            ),
        ),
        (
            "tune:\n  search:\n    task_shaer: [0.1]\n",
            says(
                "x.yaml: tune.search.task_shaer",
                got="'task_shaer'",
                cure="'tune.search.task_share'",
            ),
        ),
        (
            "data:\n  tasks:\n    turn:\n      trian: x\n",
            says("x.yaml: data.tasks.turn.trian", got="'trian'", cure="'train'"),
        ),
        (
            "data:\n  tasks:\n    turn:\n      anchor: {positon: suffix}\n",
            says("x.yaml: data.tasks.turn.anchor.positon", got="'positon'", cure="'position'"),
        ),
        (
            "data:\n  general:\n    all:\n      train: general.jsonl\n      wieght: 2\n",
            says("x.yaml: data.general.all.wieght", got="'wieght'", cure="'weight'"),
        ),
        (
            "trainer:\n  max_step: 3\n",
            says("x.yaml: trainer.max_step", got="'max_step'", cure="'trainer.max_steps'"),
        ),
        (
            "model:\n  lora:\n    rank: four\n",
            says(
                "x.yaml: model.lora.rank",
                rule="int",
                got="four",
                cure="tell_lightning help",
            ),
        ),
        (
            "trainer:\n  max_steps: many\n",
            says(
                "x.yaml: trainer.max_steps",
                rule=["null", "int"],
                got="many",
                cure="tell_lightning help",
            ),
        ),
        (
            "data:\n  mixture: {arm: tel}\n",
            says(
                "x.yaml: data.mixture.arm",
                rule=["'tell'", "'sft'", "'general_only'"],
                got="tel",
                cure="tell_lightning help",
            ),
        ),
        (
            "data:\n  tasks:\n    turn: {scoring: {kind: judg}}\n",
            says(
                "x.yaml: data.tasks.turn.scoring.kind",
                rule="translation, judge, classification, json, text",
                got="'judg'",
                cure="'judge'",
            ),
        ),
        (
            "data:\n  tasks: [1\n",
            says("x.yaml:3", rule="YAML", got="expected ',' or ']', but got '<stream end>'"),
        ),
        ("", says("x.yaml", rule="keys", got="an empty file")),
        ("hello\n", says("x.yaml", rule="keys", got="'hello'")),
        (
            b"run:\n  name: \xe9\n",
            says("x.yaml", rule="UTF-8", got="the byte 0xe9 at 13", cure="UTF-8"),
        ),
    ],
)
def test_mistake_in_a_configuration_is_named(
    commands: Commands, text: str | bytes, error: Says
) -> None:
    commands.write("x.yaml", text)
    assert commands.error("fit", "-c", "mine.yaml", "-c", "x.yaml") == error


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["-c", "none.yaml"], says("-c", got="'none.yaml'")),
        (["-c"], says("-c", got="none", cure="-c FILE")),
        (["--data.mixtrue.arm=sft"], says("data.mixtrue.arm", got="'mixtrue'", cure="'mixture'")),
        (
            ["--eval.temperatur=1"],  # a beginning of a key is none
            says("eval.temperatur", got="'temperatur'", cure="'eval.temperature'"),
        ),
        (
            ["-c", "mine.yaml", "--data.root=5", "--model.lora.rank=four"],
            says("model.lora.rank", rule="int", got="four", cure="tell_lightning help"),
        ),
        (["frob"], says("command line", rule="'--'", got="'frob'", cure="--KEY=VALUE")),
        (
            ["--trainer.fast_dev_run=true"],
            says("trainer.fast_dev_run", got="True", cure="trainer.max_steps: 2"),
        ),
        (
            ["--trainer.accumulate_grad_batches=2"],
            says(
                "trainer.accumulate_grad_batches",
                got="2",
                cure=["data.optimizer_batch", "data.micro_batch"],
            ),
        ),
        (
            ["--trainer.precision=bf16-true"],
            says("trainer.precision", rule="float32", got="bf16-true", cure="bf16-mixed"),
        ),
        (["--trainer.max_steps=0"], says("trainer.max_steps", rule="1", got="0")),
        (
            ["--data.mixture.cycles=2"],
            says("trainer.max_steps", rule=["null", "data.mixture.cycles", "2"], got="250"),
        ),
        (["--seed_everything=true"], says("seed_everything", rule="0", got="True")),
        (["--run.name=a/b"], says("run.name", rule=["'-'", "'_'", "'.'"], got="'a/b'")),
        (["--resume"], says("--resume", got="none")),
        (["--resume", ""], says("--resume", got="none")),
        (["--resme=x"], says("fit", got="'--resme'", cure="'--resume'")),
        (["--resume", "data"], says("RUN", rule="config.yaml", got="'data'")),
        (["--data.root=/nowhere"], says("data.root", got="'/nowhere'")),
    ],
)
def test_mistake_on_the_command_line_is_named(
    commands: Commands, options: list[str], error: Says
) -> None:
    assert commands.error("fit", "-c", "mine.yaml", *options) == error


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["test"], says("test", rule="RUN", got="none", cure="test --help")),
        (["validate", "data"], says("RUN", rule="config.yaml", got="'data'")),
        (["plan", "--show", "x"], says("--show", rule=["0", "9"], got="'x'")),
        (["plan", "--show"], says("--show", got="none")),
        (["plan", "--positions", "9:3"], says("--positions", rule=["A:B", "18"], got="'9:3'")),
        (["predict"], says("predict", rule=["--run", "--adapter", "--base"], got="none")),
        (["predict", "--run", "data"], says("RUN", rule="config.yaml", got="'data'")),
        (
            ["predict", "--adapter", "data", "--input", "-"],
            says("data", rule="anchor.json", got="none", cure="adapter/"),
        ),
        (
            ["predict", "--base", "--input", "-"],
            says("--task", got="none", cure="translate, judge"),
        ),
        (
            ["predict", "--base", "-c", "mine.yaml", "--task", "x"],
            says("--task", rule="turn", got="'x'"),
        ),
        (
            ["predict", "--base", "-c", "mine.yaml", "--input", "none.jsonl"],
            says("none.jsonl", got="'none.jsonl'"),
        ),
        (
            ["predict", "--base", "-c", "mine.yaml", "--output", "no/where.jsonl"],
            says("--output", got="'no/where.jsonl'"),
        ),
    ],
)
def test_mistake_in_another_command_is_named(
    commands: Commands, arguments: list[str], error: Says
) -> None:
    assert commands.error(*arguments) == error


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        (
            "train.jsonl",
            jsonl(rows(16)) + "{not json}\n",
            says("data/train.jsonl:17", rule="JSON"),
        ),
        (
            "train.jsonl",
            "",
            says("data/train.jsonl", got="an empty"),
        ),
        (
            "train.jsonl",
            jsonl([*rows(3), {"prompt": "p", "answer": "a"}]),
            says("data/train.jsonl:4", rule="'response'", cure=["prompt", "answer"]),
        ),
        (
            "general.jsonl",
            jsonl([*rows(2, 300), {"prompt": " ", "response": "x"}]),
            says("data/general.jsonl:3", rule="'prompt'", got="' '"),
        ),
        (
            "test.jsonl",
            jsonl([*rows(2, 300), rows(20)[7]]),
            says("data/test.jsonl:3", cure="data/train.jsonl:8. "),
        ),
        (
            "train.jsonl",
            jsonl([*rows(2), {"prompt": f"{ANCHOR}\n\nx", "response": "y"}]),
            says("data/train.jsonl:3", rule="anchor", got="data"),
        ),
    ],
)
def test_bad_row_is_named_by_file_and_line(
    commands: Commands, name: str, content: str, error: Says
) -> None:
    commands.write(f"data/{name}", content)
    assert commands.error("fit", "-c", "mine.yaml") == error


def test_row_without_the_anchor_that_the_data_should_carry_is_named(commands: Commands) -> None:
    anchored = [{**row, "prompt": f"{ANCHOR} {row['prompt']}"} for row in rows(20)]
    anchored[4]["prompt"] = "letters 4"
    commands.write("data/train.jsonl", jsonl(anchored))
    present = yaml.safe_load((commands.folder / "mine.yaml").read_text())
    present["data"]["tasks"]["turn"] |= {"anchor": {"text": ANCHOR, "present": True}, "test": None}
    commands.write("present.yaml", yaml.safe_dump(present))
    assert commands.error("plan", "-c", "present.yaml") == says(
        "data/train.jsonl:5", rule=f"'{ANCHOR}'", got="'letters 4'", cure="anchor.present: false"
    )


def test_no_tasks_and_no_general_sources_are_refused(commands: Commands) -> None:
    commands.write("empty.yaml", "extends: microworld\ndata: {tasks: {}, general: {}}\n")
    assert commands.error("fit", "-c", "empty.yaml") == says(
        "data", got="none", cure=["data.tasks", "data.general"]
    )


def test_a_task_of_a_file_takes_nothing_from_a_default_one_of_its_name(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    section = {
        "tasks": {"translate": {"train": "mine.jsonl", "overlong": "drop"}},
        "general": {"instructions": {"train": "general.jsonl"}},
    }
    first.write_text(yaml.safe_dump({"data": section}))
    second.write_text("data:\n  tasks:\n    translate: {max_new_tokens: 5}\n")
    options = ["-c", "microworld", "-c", str(first), "-c", str(second)]
    options.append("--data.tasks.translate.dev_from_train=3")
    data = check(options).data
    assert data.tasks == {
        "translate": Task(train="mine.jsonl", overlong="drop", max_new_tokens=5, dev_from_train=3)
    }
    assert data.general == {"instructions": General(train="general.jsonl")}
    assert set(check(["--data.tasks.judge.max_new_tokens=5"]).data.tasks) == {"translate", "judge"}


def test_run_without_a_checkpoint_cannot_be_resumed(commands: Commands) -> None:
    commands.write("run/config.yaml", (commands.folder / "mine.yaml").read_text())
    assert commands.error("fit", "--resume", "run") == says(
        "--resume", rule="checkpoint", got="none", cure="run/checkpoints"
    )


def test_run_without_test_rows_cannot_be_tested(commands: Commands) -> None:
    config = yaml.safe_load((commands.folder / "mine.yaml").read_text())
    config["data"]["tasks"]["turn"]["test"] = None
    commands.write("run/config.yaml", yaml.safe_dump(config))
    assert commands.error("test", "run") == says(
        "data.tasks", rule="test", got="none", cure="data.tasks.NAME.test"
    )


def test_a_failed_start_leaves_no_folder(commands: Commands) -> None:
    commands.error("fit", "-c", "mine.yaml", "--data.root=/nowhere")
    assert not (commands.folder / "runs").exists()


@pytest.mark.parametrize("lightning", [True, False])
def test_ctrl_c_exits_with_130(
    lightning: bool, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning catches Ctrl+C itself, and exits with 1."""

    def interrupt(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if lightning:
                sys.exit(1)
            raise

    monkeypatch.setattr("tell_lightning.commands.plan.check", interrupt)
    done = commands.run("plan", "-c", "microworld")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_a_full_disk_is_one_line(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "chunk-3")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904

    monkeypatch.setattr("tell_lightning.commands.plan.check", full)
    error = commands.error("plan", "-c", "microworld")
    assert error == says("disk", got="No space left on device", cure="room")
