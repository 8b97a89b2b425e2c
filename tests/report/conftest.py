"""Small run folders, written and read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import write_run

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.report.contents import RunContents, read_run


@pytest.fixture
def contents(tmp_path: Path) -> Callable[..., RunContents]:
    """Write a run folder of its own, as `write_run` says, and read it."""

    def make(**changes: Any) -> RunContents:
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        return read_run(RunFolder(write_run(folder, **changes)))

    return make
