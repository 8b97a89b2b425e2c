"""A small folder of experiments, whose cells nothing trains."""

from pathlib import Path

import pytest
from small_experiment import write_experiment, write_shared

from tell_lightning.experiment.specification import Experiment, read_experiment


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What all experiments share, and one of them, `first`."""
    write_shared(tmp_path)
    write_experiment(tmp_path / "first")
    return tmp_path


@pytest.fixture
def first(root: Path) -> Experiment:
    """The experiment, read."""
    return read_experiment(root / "first")
