"""One finished run of the real command line, shared by the tests that look at what it left."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Tab, find_browser, started
from filelock import FileLock
from tiny_runs import Fits, Run, Watched, command
from tiny_world import World, make_world
from wandb_server import KEY, WandbServer


@pytest.fixture(autouse=True)
def _no_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep W&B out of the runs in this process, and Ctrl+C as it was."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(autouse=True)
def _nothing_runs_on() -> Iterator[None]:
    """End what a test that failed has left running."""
    yield
    Watched.end_all()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The tiny base, data and configuration."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def fit(world: World) -> Fits:
    """Run `fit` on the tiny world."""
    return Fits(world)


@pytest.fixture(scope="session")
def run(shared_folder: Path) -> Run:
    """The shared run: 4 steps by `python -m tell_lightning fit`, offline without a key.

    All processes of the tests share it: what changes it takes `copied`.
    """
    home = shared_folder / "run"
    screen = home / "stdout.txt", home / "stderr.txt"
    with FileLock(shared_folder / "run.lock"):
        if not home.exists():
            overlay = make_world(home).overlay
            done = command(["fit", *overlay], home=home, WANDB_MODE=None)
            assert done.returncode == 0, done.stderr
            for path, text in zip(screen, (done.stdout, done.stderr), strict=True):
                path.write_text(text, encoding="utf-8")
    (folder,) = (home / "runs").iterdir()
    return Run(folder, *(path.read_text(encoding="utf-8") for path in screen))


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Run:
    """A copy of the shared run, to score again."""
    return Run(shutil.copytree(run.folder, tmp_path / "copied"))


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
        monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1000")
        yield server
        wandb.teardown()


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One page of one browser."""
    program = find_browser()
    if program is None:
        pytest.skip("Requires: [chromium]")
    with started(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser.tab()
