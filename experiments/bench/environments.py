"""The environments of contenders that the project does not install, and commands run in them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / "build" / "bench-venv"
LIMIT = 1800


class ContenderError(Exception):
    """A contender that does not run; the results keep the reason."""


def interpreter(name: str, needs: Sequence[str], without: Sequence[str] = ()) -> str:
    """Return the Python of a contender; make its environment first if necessary.

    Args:
        name: Folder of the environment.
        needs: Packages besides PyTorch; empty: the project's environment.
        without: Packages that come with them but do not run with a PyTorch for CPUs.

    Raises:
        ContenderError: The packages cannot be installed.
    """
    if not needs:
        return sys.executable
    folder = ENVIRONMENTS / name
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.is_file() and ready.read_text().split() == list(needs):
        return str(python)
    torch = f"torch=={version('torch').partition('+')[0]}"
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
    call([sys.executable, "-m", "venv", "--clear", str(folder)])
    # PyTorch first: another package with a looser requirement would install another build of it.
    call([*pip, torch])
    call([*pip, torch, *needs])
    if without:
        call([str(python), "-m", "pip", "uninstall", "-qq", "--yes", *without])
    ready.write_text("\n".join(needs))
    return str(python)


def call(command: list[str]) -> None:
    """Run a command.

    Raises:
        ContenderError: It fails or takes too long. The message is its last line.
    """
    environment = child_environment(PYTHONPATH=str(ROOT))
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired as error:
        raise ContenderError(f"took more than {LIMIT} s") from error
    if done.returncode:
        raise ContenderError(last_line(done.stderr) or f"exit {done.returncode}")


def child_environment(**changes: str) -> dict[str, str]:
    """Return the environment variables of a contender: one thread, no network."""
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **quiet, **changes}


def last_line(text: str) -> str:
    """Return the last line of a text that is not empty."""
    return (text.strip().splitlines() or [""])[-1]
