"""The world of seed 0, written once for all tests of this folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from tell_lightning.microworld.world import write_world

Rows = list[dict[str, Any]]
World = dict[str, Rows]


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="session")
def world(world_folder: Path) -> World:
    """Map "translate/test" and the like to the rows of that file."""
    return {
        path.relative_to(world_folder).with_suffix("").as_posix(): [
            json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()
        ]
        for path in world_folder.rglob("*.jsonl")
    }
