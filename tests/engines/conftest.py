"""Short runs on SmolLM2 and on the demo's base, and the environment that holds the engines.

The tests are skipped where vLLM is not on PATH.
"""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from letters import STEPS, typed, write_letters, write_own_task
from tiny_runs import command

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="session")
def engines() -> Path:
    """The Python of the environment of the engines."""
    vllm = shutil.which("vllm")
    if vllm is None:  # `transformers` alone is here, without what its server needs
        pytest.skip("Requires: vllm on PATH (make test-engines)")
    return Path(vllm).with_name("python")


@pytest.fixture(scope="session")
def letters(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on SmolLM2: a prefix anchor; a system anchor with a forced response prefix."""
    folder = tmp_path_factory.mktemp("letters") / "run"
    config = write_letters(folder.parent / "data")
    done = typed(["fit", "-c", str(config), "--folder", str(folder)])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def own_task(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the README's configuration of a task of one's own, but for its length."""
    home = tmp_path_factory.mktemp("own")
    found = re.search(r"```yaml\n(# mine\.yaml\n.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    config = home / "mine.yaml"
    config.write_text(found[1].replace("/path/to/data", str(home)), encoding="utf-8")
    write_own_task(home)
    short = home / "short.yaml"
    data = {**STEPS["data"], "cache_dir": str(home / "cache")}
    short.write_text(yaml.safe_dump({**STEPS, "data": data}), encoding="utf-8")
    folder = home / "run"
    done = typed(["fit", "-c", str(config), "-c", str(short), "--folder", str(folder)])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def demo(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the demo, whose base has 1.5 million parameters."""
    home = tmp_path_factory.mktemp("demo")
    anchors = [
        "--data.tasks.judge.anchor.position=system",
        "--data.tasks.judge.anchor.response_prefix=Verdict: ",
        "--data.tasks.judge.force_response_prefix=true",
    ]
    short = ["--trainer.max_steps=30", "--eval.test=false", "--folder", str(home / "run")]
    done = command(["fit", "-c", "microworld", *anchors, *short], home=home)
    assert done.returncode == 0, done.stderr
    return home / "run"


@pytest.fixture(scope="session")
def second(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of another task on the demo's base."""
    home = tmp_path_factory.mktemp("second")
    task = {split: f"judge/{split}.jsonl" for split in ("train", "dev", "test")}
    task |= {"anchor": {"text": "Is it true?", "position": "suffix"}, "max_new_tokens": 24}
    config = {"extends": "microworld", "data": {"tasks": {"verdict": task}}}
    (home / "second.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    short = ["--trainer.max_steps=30", "--eval.test=false", "--folder", str(home / "notes")]
    done = command(["fit", "-c", str(home / "second.yaml"), *short], home=home)
    assert done.returncode == 0, done.stderr
    return home / "notes"
