"""What all tests share: their surroundings, their order, and a search for files left open."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Before torch and the hub's client are imported: the tests neither fight over the cores nor use
# the network.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
from messages import Says

# A shell that starts the tests in the background has them ignore Ctrl+C, and with them every
# process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = ["fixtures"]  # nothing in there is a test

SLOW = (
    *("fuzz", "contract", "generation", "model", "commands", "experiments"),
    *("notebooks", "end_to_end"),
)
"""Folders whose tests load models, train or start processes; the quickest come first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the quick tests first; the examples in docstrings go with the long ones."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("long")
    items.sort(key=lambda item: SLOW.index(folder) if (folder := _folder(item)) in SLOW else -1)


def _folder(item: pytest.Item) -> str:
    tests = Path(__file__).parent
    return item.path.relative_to(tests).parts[0] if item.path.is_relative_to(tests) else ""


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder of this run of the tests that all its processes see."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session", autouse=True)
def _cache(shared_folder: Path) -> Iterator[None]:
    """Keep the cache of the user out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared_folder / "cache"))
        yield


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Tell which parts a message lacks."""
    wanted, text = (right, left) if isinstance(right, Says) else (left, right)
    if op == "==" and isinstance(wanted, Says) and isinstance(text, str):
        return [f"a message that lacks {', '.join(wanted.lacks(text))}", text, repr(wanted)]
    return None


# A file that nobody closes is found by the garbage collector, and the warning would fail whatever
# test runs then. So each test ends with a collection, over the objects of its module alone.


@pytest.fixture(scope="module", autouse=True)
def _objects_of_before() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    yield
    gc.collect()
