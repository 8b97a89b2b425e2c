"""What a cell's result says of the code that made it."""

import subprocess
from pathlib import Path

import pytest

from tell_lightning.commands import cell


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own that stands for this one."""
    package = tmp_path / "tell_lightning"
    for name in ("cli.py", "commands/cell.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setattr(cell, "__file__", str(package / "commands" / "cell.py"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("experiments/first/results/a-tell-n3-s0.json", False),
        ("experiments/tuning/chosen.json", False),
        ("experiments/report.html", False),
        ("experiments/report.md", False),
        ("experiments/first/report.html", False),
        ("experiments/base.yaml", True),
        ("tell_lightning/new.py", True),
    ],
)
def test_what_commands_write_does_not_make_a_checkout_dirty(
    checkout: Path, name: str, dirty: bool
) -> None:
    path = checkout / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    found = cell._git.__wrapped__()
    assert found is not None
    assert found["dirty"] is dirty
