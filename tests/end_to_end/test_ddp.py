"""Two processes on the CPU, started by the command line, do what one does."""

import json
from pathlib import Path

import pytest
from tiny_runs import Run, command
from tiny_world import World

from tell_lightning.cli import main


@pytest.mark.ddp
def test_two_processes_give_one_folder_and_the_scores_of_one(world: World, tmp_path: Path) -> None:
    options = [*world.overlay, f"--run.dir={tmp_path / 'runs'}", "--trainer.max_steps=2"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    done = command(["fit", *options, *two], home=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    run = Run(folder, done.stdout, done.stderr)
    record = run.record
    assert record["status"] == "completed"
    assert record["devices"] == 2
    screen = done.stdout + done.stderr
    assert "Warning" not in screen
    assert screen.count("Run: ") == 2  # at the start and at the end, by one rank
    assert screen.count("4,096 of ") == 1
    step = record["selected"]["step"]
    for task in ("turn", "verdict"):
        ids = [row["id"] for row in run.jsonl(f"test-{task}-step-{step:06d}")]
        assert ids == [f"{task}-test.jsonl:{number}" for number in range(1, 25)]

    main(["test", str(folder), "--trainer.devices=1", "--trainer.strategy=auto"])
    again = json.loads((folder / "scores-test.json").read_text())["after"]
    after = record["metrics"]["test"]["after"]
    assert again["tasks"] == after["tasks"]
    assert again["loss_nats_per_token"] == pytest.approx(after["loss_nats_per_token"], rel=1e-5)
