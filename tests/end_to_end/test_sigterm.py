"""SIGTERM: the step is ended and saved, the exit code says so, and the run goes on from there."""

import signal
from pathlib import Path

import pytest
from test_kill import DDP, EVERY, PACKED, STEPS, Trials, exact
from tiny_runs import Fits, Run, audit
from tiny_world import World

from tell_lightning.cli import main


def last_step(folder: Path) -> int:
    return max(line["step"] for line in audit(folder)[0][1:] if "step" in line)


def test_run_that_is_asked_to_end_saves_its_step_and_goes_on_exactly(
    world: World, fit: Fits, tmp_path: Path
) -> None:
    trials = Trials(world, tmp_path, [])
    whole = fit(*trials.settings, f"--run.dir={world.folder / 'runs'}")
    run = trials.start()
    run.wait_for_step(EVERY + 2)
    assert run.stop(signal.SIGTERM) == 143
    folder = run.folder
    step = last_step(folder)
    assert EVERY + 2 <= step < STEPS
    assert trials.checkpoint() == step  # nothing is trained again
    assert f"SIGTERM: step {step} is saved; the run ends." in run.log
    assert f"Go on with: python -m tell_lightning fit --resume {folder}" in run.log
    assert "Traceback" not in run.log
    record = Run(folder).record
    assert (record["status"], record["error"]) == ("interrupted", "SIGTERM")
    assert not (folder / "adapter").exists()
    main(["fit", "--resume", str(folder), "--trainer.callbacks=null"])
    exact(Run(folder), whole)


@pytest.mark.long
@pytest.mark.ddp
def test_all_ranks_end_at_the_same_step_and_the_run_goes_on_exactly(
    world: World, tmp_path: Path
) -> None:
    for name in ("whole", "ended"):
        (tmp_path / name).mkdir()
    trials = Trials(world, tmp_path / "ended", [*DDP, *PACKED])
    run = trials.start()
    run.wait_for_step(EVERY + 2)
    assert run.stop(signal.SIGTERM) == 143
    assert "Traceback" not in run.log
    folder = run.folder
    ends = {lines[-1]["step"] for lines in audit(folder)}
    assert ends == {trials.checkpoint()}
    assert len(audit(folder)) == 2
    run = trials.start()
    run.wait_for_step(max(ends) + EVERY)
    assert run.stop(signal.SIGTERM) == 143  # a second time
    whole = Trials(world, tmp_path / "whole", [*DDP, *PACKED]).finish()
    exact(trials.finish(), whole)
