"""An adapter is not put on another base than the one of its training, unless one asks for it."""

import json
import shutil
from pathlib import Path

import pytest
from messages import says
from safetensors.torch import load_file, save_file
from tiny_runs import Fits, Run
from tiny_world import World, make_world

from tell_lightning.cli import main
from tell_lightning.data.base_files import base_digests

OPTIONS = ("--eval.test=false", "--eval.before=false", "--trainer.max_steps=2")
ACCEPT = "--accept-base"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Run]:
    """A run, and the world whose base it was trained on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        world = make_world(tmp_path_factory.mktemp("world"))
        return world, Fits(world)(*OPTIONS)


@pytest.fixture
def base(trained: tuple[World, Run]) -> Path:
    return trained[0].base


@pytest.fixture
def run(trained: tuple[World, Run], tmp_path: Path) -> Run:
    return Run(shutil.copytree(trained[1].folder, tmp_path / "run"))


def spoil(weights: Path) -> None:
    """Change the weights a little, as another version of a base does."""
    tensors = load_file(weights)
    save_file({k: v * 1.01 for k, v in tensors.items()}, weights, metadata={"format": "pt"})


@pytest.fixture
def changed(base: Path, tmp_path: Path) -> list[str]:
    """Change the weights under the same path; return the digests of before and after."""
    weights = base / "model.safetensors"
    shutil.copy(weights, tmp_path / "before")
    before = base_digests(str(base))[weights.name]
    spoil(weights)
    yield [before[:16], base_digests(str(base))[weights.name][:16]]
    shutil.copy(tmp_path / "before", weights)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 2
    (error,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    return error.removeprefix("error: ")


COMMANDS = [
    ["fit", "--trainer.max_steps=3", "--resume"],
    ["test", "--eval.test_rows=1", "--eval.anchor_check=false"],
    ["validate", "--eval.dev_rows=1"],
    ["predict", "--task=turn", "--run"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_weights_that_changed_under_the_same_path_are_refused(
    command: list[str], run: Run, changed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.record
    refusal = says("model.base", rule=changed[0], got=changed[1], cure=ACCEPT)
    assert error_of(capsys, *command, str(run.folder)) == refusal
    assert run.record == before
    main([*command, str(run.folder), ACCEPT])


def test_a_resume_that_accepts_them_keeps_their_digest(run: Run, changed: list[str]) -> None:
    main([*COMMANDS[0], str(run.folder), ACCEPT])
    assert run.record["base"]["sha256"]["model.safetensors"].startswith(changed[1])
    anchors = json.loads((run.folder / "adapter/anchor.json").read_text(encoding="utf-8"))
    assert anchors["base_files"] == run.record["base"]["sha256"]
    main([*COMMANDS[1], str(run.folder)])  # what was accepted is the base now


def test_another_folder_with_the_same_files_is_the_same_base(
    run: Run, base: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(base, tmp_path / "moved")
    main(["test", str(run.folder), f"--model.base={moved}", "--eval.test_rows=1"])


@pytest.mark.parametrize("which", [["--run"], ["--adapter"]], ids=["run", "adapter"])
def test_another_base_that_is_typed_is_refused(
    which: list[str],
    run: Run,
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = shutil.copytree(base, tmp_path / "other")
    spoil(other / "model.safetensors")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "one two"}\n', encoding="utf-8")
    folder = run.folder if which == ["--run"] else run.folder / "adapter"
    command = ["predict", *which, str(folder), "--task=turn", f"--input={rows}"]
    typed = f"--model.base={other}"
    assert error_of(capsys, *command, typed) == says("model.base", got="", cure=str(other))
    main([*command, typed, ACCEPT])


def test_folders_of_earlier_versions_are_not_refused(run: Run, changed: list[str]) -> None:
    record = run.record | {"base": {"name": "b", "revision": None, "sha256": None}}
    (run.folder / "run.json").write_text(json.dumps(record))
    main([*COMMANDS[1], str(run.folder)])


def test_a_hub_model_is_known_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert base_digests("someone/model") == {}
    for commit in ("a" * 40, "b" * 40):
        cached = tmp_path / "models--someone--model"
        (cached / "snapshots" / commit).mkdir(parents=True)
        (cached / "snapshots" / commit / "config.json").write_text("{}")
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs/main").write_text(commit)
        assert base_digests("someone/model") == {"commit": commit}
    assert base_digests("someone/model", "a" * 40) == {"commit": "a" * 40}
