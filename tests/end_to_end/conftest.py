"""One finished run of the real command line, shared by the tests that look at what it left."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out

import pytest
import torch
from tiny_runs import Fits, Run, command
from tiny_world import World, make_world
from wandb_server import KEY, WandbServer


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep W&B out of the runs in this process, and Ctrl+C as it was."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The tiny base, data and configuration."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def fit(world: World) -> Fits:
    """Run `fit` on the tiny world."""
    return Fits(world)


@pytest.fixture(scope="session")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The shared run: 4 steps by `python -m tell_lightning fit`, offline without a key."""
    home = tmp_path_factory.mktemp("home")
    done = command(
        ["fit", *world.overlay, f"--run.dir={home / 'runs'}"], home=home, WANDB_MODE=None
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (home / "runs").iterdir()
    return Run(folder, done.stdout, done.stderr)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    """W&B's client of this process talks to a stand-in."""
    import wandb

    wandb.teardown()
    with WandbServer() as server:
        monkeypatch.delenv("WANDB_MODE")
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
        monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "20")
        yield server
        wandb.teardown()
