"""Two processes on the CPU, started by the command line, do what one does."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import Fits, Run, audit, command, consumed
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


@pytest.mark.ddp
@pytest.mark.long
@pytest.mark.parametrize("packing", [False, True])
def test_number_of_processes_may_change_on_resume(
    packing: bool, world: World, fit: Fits, tmp_path: Path
) -> None:
    """One process, then two, then one again: each step has the examples of one process."""
    options = [
        "--eval.test=false",
        "--eval.every_steps=3",
        "--eval.dev_rows=1",
        "--data.audit=true",
        "--model.lora.dropout=0.0",
        f"--data.packing={packing}",
        "--data.max_tokens=128",
    ]
    whole = fit(*options, "--trainer.max_steps=9")
    run = fit(*options, "--trainer.max_steps=3")
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.micro_batch=1"]
    resume = ["fit", "--resume", str(run.folder)]
    done = command([*resume, *two, "--trainer.max_steps=5"], home=tmp_path)
    assert done.returncode == 0, done.stderr
    one = ["--trainer.devices=1", "--trainer.strategy=auto", "--data.micro_batch=2"]
    main([*resume, *one, "--trainer.max_steps=9"])  # what was typed before stays in force
    assert len(audit(run.folder)) == 2
    assert consumed(run.folder) == consumed(whole.folder)
    history = [entry["step"] for entry in run.record["metrics"]["dev_history"]]
    assert history == [0, 3, 5, 6, 9]  # the last step of each session, too
    ours, theirs = (
        load_file(each.folder / "adapter/adapter_model.safetensors") for each in (run, whole)
    )
    for name, values in theirs.items():
        torch.testing.assert_close(ours[name], values, rtol=1e-3, atol=1e-5)
