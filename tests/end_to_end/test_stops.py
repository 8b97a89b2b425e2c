"""Runs that are killed or asked to end and go on are the run that never stopped, bit for bit."""

import random
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_runs import Run, Watched, audit, command, consumed
from tiny_world import World

from tell_lightning.cli import main

STEPS = 60
EVERY = 4
"""Optimizer steps between two checkpoints."""

PACKED = ["--data.packing=true", "--data.max_tokens=128", "--data.optimizer_batch=2"]
DDP = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.micro_batch=1"]


@dataclass
class Trials:
    """One run of the real command line, killed and gone on with."""

    world: World
    home: Path
    options: list[str]

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    def start(self, callback: str = "tiny_world.Slow") -> Watched:
        """Begin the run, or go on with it where it is begun."""
        begun = list(self.runs.glob("*"))
        arguments = ["--resume", str(begun[0])] if begun else [*self.world.overlay, *self.settings]
        return Watched(["fit", *arguments, f"--trainer.callbacks={callback}"], self.home, self.runs)

    @property
    def settings(self) -> list[str]:
        return [
            f"--run.dir={self.runs}",
            f"--trainer.max_steps={STEPS}",
            f"--run.checkpoint_every_steps={EVERY}",
            "--eval.every_steps=20",
            "--eval.test=false",
            "--eval.dev_rows=1",
            "--eval.patience=null",
            "--data.mixture.general_repeat=true",
            "--data.audit=true",
            *self.options,
        ]

    def checkpoint(self) -> int:
        """Step of the last checkpoint; 0 where there is none."""
        path = next(iter(self.runs.glob("*"))) / "checkpoints/last.ckpt"
        return int(torch.load(path, weights_only=True)["global_step"]) if path.exists() else 0

    def kill_after(self, step: int) -> int:
        """Kill -9 once a step is trained; return the steps that were trained by then."""
        run = self.start()
        run.wait_for_step(step)
        assert run.stop(signal.SIGKILL) == -signal.SIGKILL
        return len(consumed(run.folder))

    def kill_in_writing(self) -> int:
        """Kill -9 while a checkpoint is half written."""
        run = self.start("tiny_world.SlowWrite")
        run.wait_for(
            lambda: any(
                draft.stat().st_size > 1000
                for draft in self.runs.glob("*/checkpoints/.last.ckpt.draft")
            ),
            "the draft of a checkpoint",
        )
        assert run.stop(signal.SIGKILL) == -signal.SIGKILL
        assert list(self.runs.glob("*/checkpoints/.last.ckpt.draft"))
        return len(consumed(run.folder))

    def finish(self) -> Run:
        """Go on to the end."""
        run = self.start()
        code = run.process.wait()
        assert code == 0, run.log
        return Run(run.folder)


def exact(killed: Run, whole: Run) -> None:
    """Check that each position was consumed once and in order, and that the results are equal."""
    steps = consumed(whole.folder)
    assert list(steps) == list(range(1, STEPS + 1))
    flat = [position for step in steps.values() for position in step]
    assert sorted(flat) == list(range(len(flat))) or len(set(flat)) == len(flat)
    assert consumed(killed.folder) == steps
    name = "adapter/adapter_model.safetensors"
    assert (killed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert killed.record["metrics"]["dev_history"] == whole.record["metrics"]["dev_history"]
    assert losses(killed) == losses(whole)


def losses(run: Run) -> list[str]:
    """The rows of metrics.csv without what depends on the clock."""
    heading, *rows = (run.folder / "metrics.csv").read_text().splitlines()
    names = heading.split(",")
    kept = [n for n, name in enumerate(names) if name != "train/tokens_per_second"]
    order = sorted(kept, key=lambda n: names[n])
    return sorted(",".join(row.split(",")[n] for n in order) for row in rows)


def uninterrupted(world: World, home: Path, options: list[str]) -> Run:
    trials = Trials(world, home, options)
    done = command(["fit", *world.overlay, *trials.settings], home=home)
    assert done.returncode == 0, done.stderr
    (folder,) = trials.runs.iterdir()
    return Run(folder)


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that never stopped."""
    trials = Trials(world, tmp_path_factory.mktemp("whole"), [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        main(["fit", *world.overlay, *trials.settings])
    (folder,) = trials.runs.iterdir()
    return Run(folder)


# Killed


def test_run_that_is_killed_goes_on_exactly(world: World, whole: Run, tmp_path: Path) -> None:
    """One trial; the long test below has ten."""
    trials = Trials(world, tmp_path, [])
    trained = trials.kill_after(EVERY + 2)
    assert trials.checkpoint() < trained < STEPS
    (folder,) = trials.runs.iterdir()
    main(["fit", "--resume", str(folder), "--trainer.callbacks=null"])
    exact(Run(folder), whole)


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "kills", "writing"),
    [
        pytest.param([], 7, True, id="alone"),
        pytest.param([*DDP, *PACKED], 2, False, id="ddp-packed", marks=pytest.mark.ddp),
    ],
)
def test_run_that_is_killed_again_and_again_goes_on_exactly(
    options: list[str], kills: int, writing: bool, world: World, tmp_path: Path
) -> None:
    """Ten trials, at random moments at least a step past a checkpoint, one while one is written."""
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = uninterrupted(world, tmp_path / "whole", options)
    trials = Trials(world, tmp_path / "killed", options)
    draw = random.Random(5)
    for number in range(kills):
        before = trials.checkpoint() if number else 0
        room = (STEPS - 2 * EVERY - before) // (kills - number)
        moment = before + EVERY + draw.randint(1, max(1, room - EVERY))
        moment += moment % EVERY == 0
        trained = trials.kill_after(moment)
        saved = trials.checkpoint()
        assert 0 < saved < trained < STEPS
    if writing:
        saved = trials.checkpoint()
        trained = trials.kill_in_writing()
        assert saved <= trials.checkpoint() < trained < STEPS  # the one before is whole
    exact(trials.finish(), whole)


# Asked to end: the step is ended and saved, and the exit code says so


def last_step(folder: Path) -> int:
    return max(line["step"] for line in audit(folder)[0][1:] if "step" in line)


@pytest.mark.parametrize(
    ("number", "code", "after", "name"),
    [
        pytest.param(signal.SIGTERM, 143, EVERY + 2, "SIGTERM", marks=pytest.mark.long),
        (signal.SIGINT, 130, 1, "Ctrl+C"),  # before the first checkpoint is due
    ],
)
def test_run_that_is_asked_to_end_saves_its_step_and_goes_on_exactly(
    number: signal.Signals,
    code: int,
    after: int,
    name: str,
    world: World,
    whole: Run,
    tmp_path: Path,
) -> None:
    trials = Trials(world, tmp_path, [])
    run = trials.start()
    run.wait_for_step(after)
    assert run.stop(number) == code
    folder = run.folder
    step = last_step(folder)
    assert after <= step < STEPS
    assert trials.checkpoint() == step  # nothing is trained again
    assert f"{name}: step {step} is saved; the run ends." in run.log
    assert f"Go on with: python -m tell_lightning fit --resume {folder}" in run.log
    assert "Traceback" not in run.log
    record = Run(folder).record
    assert (record["status"], record["error"]) == ("interrupted", number.name)
    assert not (folder / "adapter").exists()
    main(["fit", "--resume", str(folder), "--trainer.callbacks=null"])
    exact(Run(folder), whole)


@pytest.mark.long
@pytest.mark.ddp
def test_all_ranks_end_at_the_same_step_and_the_run_goes_on_exactly(
    world: World, tmp_path: Path
) -> None:
    """The signal comes to one rank alone, first to rank 0, then to the other."""
    for name in ("whole", "ended"):
        (tmp_path / name).mkdir()
    trials = Trials(world, tmp_path / "ended", [*DDP, *PACKED])
    after = EVERY + 2
    for rank in (0, 1):
        run = trials.start()
        run.wait_for_step(after)
        assert run.stop(signal.SIGTERM, rank=rank) == 143
        assert "Traceback" not in run.log
        ends = {lines[-1]["step"] for lines in audit(run.folder)}
        assert ends == {trials.checkpoint()}
        assert len(audit(run.folder)) == 2
        after = max(ends) + EVERY
    whole = Trials(world, tmp_path / "whole", [*DDP, *PACKED]).finish()
    exact(trials.finish(), whole)
