"""The learning rate by optimizer step."""

from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from tell_lightning.model.schedule import lr_scale
from tell_lightning.model.settings import OptimizerSettings


def curve(total: int, settings: OptimizerSettings) -> list[float]:
    return [lr_scale(step, total, settings) for step in range(total + 1)]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_rises_in_equal_steps_then_falls_to_the_end(schedule: str) -> None:
    settings = OptimizerSettings(schedule=schedule, warmup_share=0.1, final_lr_share=0.2)  # type: ignore[arg-type]
    values = curve(40, settings)
    assert values[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert all(later < earlier for earlier, later in pairwise(values[4:]))
    assert values[40] == pytest.approx(0.2)
    assert values[22] == pytest.approx(0.6)  # half way down, at the middle of the fall


def test_constant_stays_at_the_peak() -> None:
    assert curve(10, OptimizerSettings(schedule="constant", warmup_share=0.2)) == [0.5] + [1.0] * 10


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert lr_scale(0, 10, OptimizerSettings(warmup_share=0.0)) == 1.0


def test_stays_at_the_end_beyond_the_last_step() -> None:
    assert lr_scale(500, 10, OptimizerSettings(final_lr_share=0.1)) == pytest.approx(0.1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("total", [1, 2])
def test_the_shortest_runs_have_a_learning_rate(total: int, share: float) -> None:
    settings = OptimizerSettings(warmup_share=share, final_lr_share=0.1)
    assert all(0.0999 < value <= 1.0 for value in curve(total, settings))


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_trainer_steps_it_once_for_each_optimizer_step(
    training: ModuleType, llama_folder: Path, accumulate: int
) -> None:
    settings = OptimizerSettings(lr=2e-3, schedule="linear", warmup_share=0.4, final_lr_share=0.1)
    run = training.fit(
        llama_folder, micro_batch=2, accumulate=accumulate, steps=5, optimizer=settings
    )
    assert run.lrs == pytest.approx([2e-3 * lr_scale(step, 5, settings) for step in range(5)])
    assert [row["train/lr"] for row in run.logged] == pytest.approx(run.lrs)
