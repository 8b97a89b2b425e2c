"""The real engines answer plain prompts as `predict` does; `make test-engines` installs them.

Each is skipped where it is not on PATH.
"""

import shutil
from pathlib import Path

import pytest
from tiny_runs import command

TASKS = ("translate", "judge")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the demo: two tasks, of which one has a system anchor and a forced prefix."""
    if shutil.which("vllm") is None:  # `transformers` alone is here, without what its server needs
        pytest.skip("Requires: vllm on PATH (make test-engines)")
    home = tmp_path_factory.mktemp("home")
    anchors = [
        "--data.tasks.judge.anchor.position=system",
        "--data.tasks.judge.anchor.response_prefix=Verdict: ",
        "--data.tasks.judge.force_response_prefix=true",
    ]
    short = ["--trainer.max_steps=30", "--eval.test=false", f"--run.dir={home / 'runs'}"]
    done = command(["fit", "-c", "microworld", *anchors, *short], home=home)
    assert done.returncode == 0, done.stderr
    (folder,) = (home / "runs").iterdir()
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "form"), [("vllm", "adapter"), ("vllm", "merged"), ("transformers", "merged")]
)
def test_plain_prompts_get_the_answers_of_predict(
    engine: str, form: str, trained: Path, tmp_path: Path
) -> None:
    options = ["--to", str(tmp_path / "served"), "--format", form, "--check", engine]
    done = command(["export", str(trained), *options], home=tmp_path)
    print(done.stdout)  # the table, with -s
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it holds." in done.stdout
    for task in TASKS:
        assert f"rows of {task} have the tokens of `predict`" in done.stdout
