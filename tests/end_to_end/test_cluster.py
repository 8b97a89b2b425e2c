"""A job that a scheduler stops and starts again ends with the adapter of one that was left alone.

The scheduler is imitated: `srun` and `scontrol` are small scripts on PATH, which set the variables
that SLURM sets. The processes, the signals and the shipped scripts are real.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from messages import says
from safetensors.torch import load_file
from tiny_runs import Run, audit, consumed, environment
from tiny_world import World

from tell_lightning.cli import main

CLUSTER = Path(__file__).parents[2] / "configs/cluster"
SCRIPT = CLUSTER / "slurm.sh"
SRUN = """\
#!{python}
import os, subprocess, sys
ranks = int(os.environ["SLURM_NTASKS"])
order = range(ranks) if os.environ["SLURM_JOB_ID"] == "4711" else reversed(range(ranks))
tasks = []
for rank in order:  # the requeued job gets its nodes in another order
    own = {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}}
    tasks.append(subprocess.Popen(sys.argv[1:], env=os.environ | own))
    with open({pids!r}, "a") as file:
        file.write(f"{{tasks[-1].pid}}\\n")
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCONTROL = '#!/bin/sh\necho "$@" >> {calls}\n'
OPTIONS = [
    "--eval.before=false",
    "--eval.test=false",
    "--eval.every_steps=4",
    "--eval.dev_rows=1",
    "--eval.select=last",
    "--data.audit=true",
    "--data.micro_batch=1",
    "--trainer.accelerator=cpu",
    "--trainer.max_steps=8",
]


class Cluster:
    """Runs the script as a job, after its first lines were edited as a user would."""

    def __init__(self, folder: Path, world: World, *options: str) -> None:
        self.folder, self.run = folder, folder / "run"
        self.pids, self.calls = folder / "pids", folder / "calls"
        bin_ = folder / "bin"
        bin_.mkdir(parents=True)
        names = {"python": sys.executable, "pids": str(self.pids), "calls": self.calls}
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (bin_ / name).write_text(text.format(**names))
            (bin_ / name).chmod(0o755)
        self.path = f"{bin_}:{os.environ['PATH']}"
        fit = shlex.join(["fit", *world.overlay, *OPTIONS, *options])
        text = SCRIPT.read_text()
        for old, new in (
            ("PYTHON=.venv/bin/python", f"PYTHON={shlex.quote(sys.executable)}"),
            ("RUN=runs/my-task", f"RUN={shlex.quote(str(self.run))}"),
            ("FIT=(fit -c mine.yaml)", f"FIT=({fit})"),
        ):
            assert text.count(old) == 1
            text = text.replace(old, new)
        (folder / "job.sh").write_text(text)

    def submit(self, job: int, tasks: int) -> "subprocess.Popen[str]":
        self.pids.unlink(missing_ok=True)
        variables = {
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_NAME": "tell",
            "SLURM_NTASKS": str(tasks),
            "SLURM_NTASKS_PER_NODE": str(tasks),
            "SLURM_NNODES": "1",
            "SLURM_NODELIST": "127.0.0.1",
            "SLURM_RESTART_COUNT": "0" if job == 4711 else "1",
        }
        return subprocess.Popen(
            ["bash", str(self.folder / "job.sh")],
            env=environment(self.folder, PATH=self.path, WANDB_MODE="offline", **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, job: int, tasks: int) -> None:
        process = self.submit(job, tasks)
        shown, _ = process.communicate()
        assert process.returncode == 0, shown

    def stop_at(self, step: int, process: "subprocess.Popen[str]") -> str:
        """Send SIGUSR1 to every task when a step is done, as SLURM does; return what was shown."""
        while not any(line.get("step", 0) >= step for line in self._steps()):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        for pid in self.pids.read_text().split():
            os.kill(int(pid), signal.SIGUSR1)
        return process.communicate()[0]

    def _steps(self) -> list[dict[str, Any]]:
        return audit(self.run)[0] if (self.run / "audit/rank-0.jsonl").is_file() else []


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter/adapter_model.safetensors")


@pytest.mark.ddp
@pytest.mark.long
def test_a_job_that_is_signalled_and_requeued_ends_as_one_that_was_left_alone(
    world: World, tmp_path: Path
) -> None:
    whole = Cluster(tmp_path / "whole", world)
    whole.finish(4711, 2)
    assert not whole.calls.exists()

    cluster = Cluster(tmp_path / "cut", world)
    process = cluster.submit(4711, 2)
    shown = cluster.stop_at(3, process)
    assert cluster.calls.read_text() == "requeue 4711\n"
    assert "SIGUSR1: step " in shown
    assert process.returncode == 0  # that of scontrol
    assert Run(cluster.run).record["status"] == "interrupted"
    wandb_id = (cluster.run / "wandb/id").read_text()
    assert not list(cluster.run.glob("**/hpc_ckpt*"))

    cluster.finish(5822, 2)
    assert cluster.calls.read_text() == "requeue 4711\n"  # not again
    record = Run(cluster.run).record
    assert (record["status"], record["steps"], record["devices"]) == ("completed", 8, 2)
    assert len(record["earlier_sessions"]) == 1
    assert (cluster.run / "wandb/id").read_text() == wandb_id
    assert consumed(cluster.run) == consumed(whole.run)
    found, wanted = adapter(cluster.run), adapter(whole.run)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert torch.equal(found[name], values), name


@pytest.mark.ddp
@pytest.mark.long
def test_a_job_of_two_goes_on_as_one_process(world: World, tmp_path: Path) -> None:
    """Stopped before its first checkpoint as well, it begins anew in the same folder."""
    no_dropout = "--model.lora.dropout=0.0"  # which depends on the rank
    cluster = Cluster(tmp_path / "cut", world, no_dropout)
    process = cluster.submit(4711, 2)
    while not cluster.pids.exists():
        assert process.poll() is None
        time.sleep(0.01)
    while len(pids := cluster.pids.read_text().split()) < 2:
        time.sleep(0.01)
    for pid in pids:  # nothing is imported yet
        os.kill(int(pid), signal.SIGUSR1)
    shown = process.communicate()[0]
    assert cluster.calls.read_text() == "requeue 4711\n", shown

    cluster.stop_at(3, cluster.submit(4711, 2))
    assert cluster.calls.read_text() == "requeue 4711\n" * 2
    cluster.finish(5822, 1)
    record = Run(cluster.run).record
    assert (record["status"], record["steps"], record["devices"]) == ("completed", 8, 1)
    alone = tmp_path / "alone"
    main(["fit", *world.overlay, *OPTIONS, no_dropout, "--folder", str(alone)])
    assert consumed(cluster.run) == consumed(alone)
    for name, values in adapter(alone).items():
        torch.testing.assert_close(adapter(cluster.run)[name], values, rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_a_machine_that_is_taken_away_is_followed_by_one_that_types_the_same_line(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL leaves no time to save."""
    run = tmp_path / "run"
    line = ["fit", *world.overlay, *OPTIONS, "--run.checkpoint_every_steps=1", "--folder", str(run)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tell_lightning", *line],
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (run / "checkpoints/last.ckpt").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    main(line)
    whole = tmp_path / "whole"
    main([*line[:-1], str(whole)])
    assert consumed(run) == consumed(whole)
    for name, values in adapter(whole).items():
        assert torch.equal(adapter(run)[name], values), name
    capsys.readouterr()
    main(line)
    assert capsys.readouterr().out == f"Run: {run} has ended: nothing is left to do\n"


def test_a_folder_of_something_else_is_left_alone(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("chapter 1")
    for options, wanted in (
        (
            ["--folder", str(tmp_path)],
            says("--folder", rule="folder of a run", got=f"'{tmp_path}' with thesis"),
        ),
        (
            ["--folder", "a", "--resume", "b"],
            says("--folder", rule="without --resume", got="both", cure="--resume b"),
        ),
    ):
        with pytest.raises(SystemExit) as left:
            main(["fit", *world.overlay, *OPTIONS, *options])
        assert left.value.code == 2
        assert capsys.readouterr().err.partition("error: ")[2] == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# The shipped files


def test_scripts_can_be_read_and_end_in_the_command_line_of_a_laptop() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, SCRIPT], check=True)
    text = SCRIPT.read_text()
    for option in ("--requeue", "--signal=USR1@90", "--open-mode=append"):
        assert f"\n#SBATCH {option}\n" in text
    directives = [n for n, line in enumerate(text.split("\n")) if line.startswith("#SBATCH")]
    first = next(n for n, line in enumerate(text.split("\n")) if re.match(r"[^#\s]", line))
    assert max(directives) < first  # sbatch reads none behind the first command
    task = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text())
    assert task["resources"]["use_spot"] is True
    assert task["envs"]["RUN"].startswith(f"{next(iter(task['file_mounts']))}/")
    for line in (text, task["run"]):
        assert re.search(r'-m tell_lightning \S+ --folder "\$RUN"', line)
    assert "FIT=(fit -c mine.yaml)" in text
    assert task["envs"]["FIT"] == "fit -c mine.yaml"
    done = subprocess.run(["bash", "-n"], input=task["setup"] + task["run"], text=True, check=True)
    assert done.returncode == 0


def test_the_command_line_of_the_task_has_the_words_of_the_user() -> None:
    """FIT is split into words, as the shell does it; the folder may have a space."""
    run = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text())["run"]
    line = run.replace(".venv/bin/python", "printf '%s|'")
    options = {"FIT": "fit -c mine.yaml --seed=2", "RUN": "/runs/my task"}
    done = subprocess.run(
        ["bash", "-c", line], env=os.environ | options, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("|")[:-1] == [
        *("-m", "tell_lightning", "fit", "-c", "mine.yaml", "--seed=2", "--folder"),
        "/runs/my task",
    ]
