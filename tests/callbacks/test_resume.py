"""The best adapter that a checkpoint knows is the one in the run's folder, or none."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tell_lightning.callbacks.resume import relocate


def saved(folder: str) -> dict[str, Any]:
    """What Lightning keeps about the best checkpoint."""
    best = f"{folder}/best.ckpt"
    return {
        "dirpath": folder,
        "best_model_path": best,
        "kth_best_model_path": best,
        "last_model_path": "",
        "best_k_models": {best: 0.5},
        "best_model_score": 0.5,
    }


def test_paths_follow_the_folder(tmp_path: Path) -> None:
    torch.save({"global_step": 4}, tmp_path / "best.ckpt")
    state = saved("/elsewhere")
    assert relocate(state, tmp_path, 4)
    assert state == saved(str(tmp_path))


@pytest.mark.parametrize("step", [None, 5])
def test_best_adapter_that_is_gone_or_of_a_later_step_is_forgotten(
    step: int | None, tmp_path: Path
) -> None:
    if step is not None:
        torch.save({"global_step": step}, tmp_path / "best.ckpt")
    state = saved(str(tmp_path))
    assert not relocate(state, tmp_path, 4)
    assert state == {}


def test_run_without_a_best_adapter_yet_needs_none(tmp_path: Path) -> None:
    assert relocate({}, tmp_path, 4)
    assert relocate({"best_model_path": ""}, tmp_path, 4)
