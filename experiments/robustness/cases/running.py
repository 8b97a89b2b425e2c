"""Cases about runs that are stopped, scored again or watched, and what is left on the disk."""

import atexit
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from robustness import Box, Outcome, Result, case

from tell_lightning.callbacks.folder import RunFolder

QUICK = (
    *("fit", "-c", "microworld", "--trainer.log_every_n_steps=1", "--run.dir=my runs"),
    *("--eval.before=false", "--eval.dev_rows=2", "--eval.anchor_check=false"),
)
UNTESTED = (*QUICK, "--eval.test=false")


def run_in(folder: Path) -> Path:
    """Return the one run of a box."""
    (run,) = (folder / "my runs").iterdir()
    return run


def record(run: Path) -> dict[str, Any]:
    """Return what run.json holds."""
    facts: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return facts


@cache
def finished() -> Path:
    """Make a run of three steps, scored on six test rows; cases copy it."""
    folder = Path(tempfile.mkdtemp(prefix="robustness-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    box = Box(folder / "box")
    box.folder.mkdir()
    done = box.call(*QUICK, "--trainer.max_steps=3", "--eval.test_rows=6")
    assert done.code == 0, done.err
    return run_in(box.folder)


def copied(box: Box) -> Path:
    """Copy the finished run into a box."""
    return Path(shutil.copytree(finished(), box.folder / "run"))


def interrupted(box: Box, *options: str) -> Outcome:
    """Press Ctrl+C once the first step is trained."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tell_lightning", *UNTESTED, *options],
        cwd=box.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "WANDB_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if line.startswith("step 1/"):
            process.send_signal(signal.SIGINT)
            break
    out, rest = process.communicate()
    return Outcome(process.returncode, out, seen + rest)


def in_python(box: Box, code: str) -> Outcome:
    """Run Python in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=box.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@case(line=23, input="exact match stays 0 while the dev loss falls, patience 1")
def tied_scores(box: Box) -> Result:
    """Of equal scores the lowest loss is kept, and a falling loss counts as better."""
    done = box.call(
        *UNTESTED,
        *("--trainer.max_steps=4", "--eval.every_steps=1", "--eval.patience=1"),
        "--data.tasks.translate.scoring={kind: text}",
    )
    facts = record(run_in(box.folder))
    history = facts["metrics"]["dev_history"]
    losses = [sum(each["loss_nats_per_token"][t] for t in each["tasks"]) for each in history]
    best = history[losses.index(min(losses))]["step"]
    selected = facts["selected"]
    told = "have this score, and it has the lowest dev loss" in done.err
    tied = len({each["score"] for each in history}) == 1
    return Result(
        did=f"trained {facts['steps']} of 4 steps, kept step {selected['step']}, told: {told}",
        right=tied and told and facts["steps"] == 4 and selected["step"] == best,
    )


@case(line=18, input="nothing is learned, patience 1, 20 steps")
def end_by_patience(box: Box) -> Result:
    """The end by patience is told on the screen and in run.json."""
    done = box.call(
        *UNTESTED,
        *("--trainer.max_steps=20", "--eval.every_steps=1", "--eval.patience=1"),
        "--model.optimizer.lr=1e-30",
    )
    facts = record(run_in(box.folder))
    told = "Stopped at step 2 of 20" in done.err and "--eval.patience=N" in done.err
    did = f"ended by {facts['ended_by']} after {facts['steps']} steps, told: {told}"
    return Result(did=did, right=told and (facts["ended_by"], facts["steps"]) == ("patience", 2))


@case(line=18, input="three steps, dev scored every two")
def last_step(box: Box) -> Result:
    """The last step is scored, too."""
    box.call(*UNTESTED, "--trainer.max_steps=3", "--eval.every_steps=2")
    steps = [each["step"] for each in record(run_in(box.folder))["metrics"]["dev_history"]]
    return Result(did=f"scored the steps {steps}", right=steps == [2, 3])


@case(line=26, input="predict into a file, off a terminal; scoring off a terminal")
def progress(box: Box) -> Result:
    """Lines come while rows are answered; here every tenth of a second."""
    run = copied(box)
    done = in_python(
        box,
        "from tell_lightning import progress\n"
        "progress.EVERY = 0.1\n"
        "from tell_lightning.cli import main\n"
        f"main(['predict', '--run', {str(run)!r}, '--task', 'judge', '--output', 'a.jsonl'])\n",
    )
    lines = [line for line in done.err.splitlines() if line.startswith("answering: ")]
    counted = {line.split()[1] for line in lines}
    did = f"{len(lines)} lines, {len(counted)} different counts of rows"
    return Result(did=did, right=done.code == 0 and len(counted) >= 3 and "eta" in lines[-1])


@case(line=27, input="Ctrl+C after the first step, the first checkpoint due at step 100")
def ctrl_c(box: Box) -> Result:
    """The step is saved, and the run goes on from it."""
    interrupted(box, "--trainer.max_steps=5")
    run = run_in(box.folder)
    saved = (run / "checkpoints/last.ckpt").is_file()
    resumed = box.call("fit", "--resume", str(run))
    facts = record(run)
    did = f"saved: {saved}; resumed to step {facts.get('steps')}"
    return Result(did=did, right=saved and resumed.code == 0 and facts["steps"] == 5)


@case(line=27, input="checkpoints every 0 minutes")
def by_minutes(box: Box) -> Result:
    """A checkpoint is written by the clock, whatever the step."""
    done = box.call(
        *UNTESTED,
        *("--trainer.max_steps=2", "--run.checkpoint_every_minutes=0", "--eval.every_steps=1"),
    )
    saved = list(run_in(box.folder).glob("checkpoints/last.ckpt"))
    return Result(did=f"exit code {done.code}, {len(saved)} checkpoint", right=len(saved) == 1)


@case(line=28, input="test RUN --eval.test_rows=2 where the run scored 6")
def smaller_scoring(box: Box) -> Result:
    """The predictions of the run stay, and the new ones are told."""
    run = copied(box)
    before = {path: path.read_bytes() for path in sorted(run.rglob("*.json*"))}
    done = box.call("test", str(run), "--eval.test_rows=2")
    kept = all(path.read_bytes() == content for path, content in before.items())
    own = list(run.glob("scorings/*/predictions/test-translate-*.jsonl"))
    rows = len(own[0].read_text(encoding="utf-8").splitlines()) if own else 0
    did = f"{'kept' if kept else 'changed'} the run's files, wrote {rows} rows elsewhere"
    told = "scores are unchanged" in done.out
    return Result(did=did, right=done.code == 0 and kept and rows == 2 and told)


@case(line=11, input="trainer.callbacks: Lightning's Timer; then resumed")
def timer(box: Box) -> Result:
    """Step lines, dev scores and the adapter's line come, and the saved configuration is read."""
    value = '{class_path: lightning.pytorch.callbacks.Timer, init_args: {duration: "00:01:00:00"}}'
    done = box.call(*UNTESTED, "--trainer.max_steps=2", f"--trainer.callbacks={value}")
    seen = [part for part in ("step 2/2", "dev translate: BLEU", "Adapter: ") if part in done.err]
    return Result(did=f"exit code {done.code}, showed {seen}", right=len(seen) == 3)


@case(line=8, input="three resumes while the clock goes back")
def clock(box: Box) -> Result:
    """The last resume counts, not the one with the latest time."""
    folder = RunFolder(box.folder)
    box.write("config.resume-2000000000.yaml", "a: 0\n")  # of an earlier version, clock too late
    for number in (1, 2, 3):
        folder.draft_config.write_text(f"a: {number}\n", encoding="utf-8")
        folder.keep_config()
    found = folder.latest_config.read_text(encoding="utf-8").strip()
    return Result(did=f"took {found} from {folder.latest_config.name}", right=found == "a: 3")


@case(line=12, input="umask 022")
def mode(box: Box) -> Result:
    """Others may read the adapter as any other file."""
    modes = {
        path.name: oct(stat.S_IMODE(path.stat().st_mode))
        for path in (finished() / "adapter").iterdir()
    }
    mask = os.umask(0)
    os.umask(mask)
    weights = modes["adapter_model.safetensors"]
    return Result(did=f"wrote {weights}", right=set(modes.values()) == {oct(0o666 & ~mask)})


@case(line=13, input="no HOME and no passwd entry, without data.cache_dir and with it")
def no_home(box: Box) -> Result:
    """One line that names the key; with the key it works."""
    code = (
        "import os, pwd, sys\n"
        "for name in ('HOME', 'XDG_CACHE_HOME'): os.environ.pop(name, None)\n"
        "pwd.getpwuid = lambda uid: {}[uid]\n"
        "from tell_lightning.cli import main\n"
        "main(['plan', '-c', 'microworld', *sys.argv[1:], %s])\n"
    )
    without = in_python(box, code % "")
    given = in_python(box, code % "'--data.cache_dir=cache'")
    right = without.refused("cache_dir") and given.code == 0
    return Result(did=without.last_line, right=right)


@case(line=20, input="Ctrl+C in a run folder whose name has a space")
def printed_command(box: Box) -> Result:
    """Exit code 130, and a command that can be pasted."""
    done = interrupted(box, "--trainer.max_steps=5")
    (line,) = [each for each in done.out.splitlines() if each.startswith("Go on with: ")]
    words = shlex.split(line.removeprefix("Go on with: "))
    did = f"exit code {done.code}, {line}"
    right = done.code == 130 and (box.folder / words[-1]) == run_in(box.folder)
    return Result(did=did.replace(str(box.folder), "."), right=right)


@case(line=20, input="a relative model.base, the adapter used from another folder")
def relative_base(box: Box) -> Result:
    """The adapter knows its base by the whole path."""
    from tell_lightning.microworld.world import base_dir

    shutil.copytree(base_dir(), box.folder / "base")
    (box.folder / "elsewhere").mkdir()
    fit = box.call(*UNTESTED, "--trainer.max_steps=1", "--model.base=base")
    run = run_in(box.folder)
    other = Box(box.folder / "elsewhere")
    asked = ("predict", "--adapter", str(run / "adapter"), "--task", "translate", "--input", "-")
    done = other.call(*asked, stdin="Hello\n")
    return Result(did=f"fit: {fit.code}, predict elsewhere: {done.code}", right=done.code == 0)


@case(line=20, input="a disk that takes files of 400 kB at most")
def full_disk(box: Box) -> Result:
    """One line, and run.json says that the run has failed."""
    command = shlex.join([sys.executable, "-m", "tell_lightning", *UNTESTED])
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 400; {command} --trainer.max_steps=2"],
        cwd=box.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    status = record(run_in(box.folder))["status"]
    clean = "Traceback" not in done.stderr and len(errors) == 1
    did = f"exit code {done.returncode}, {(errors or ['no line'])[0]}; status {status}"
    return Result(did=did, right=clean and done.returncode == 2 and status == "failed")


def damaged(box: Box, content: bytes) -> Result:
    """Ask an adapter whose weights have another content."""
    adapter = copied(box) / "adapter"
    (adapter / "adapter_model.safetensors").write_bytes(content)
    done = box.call("predict", "--adapter", str(adapter), "--task", "judge", "--input", "-")
    did = done.last_line.replace(f"{box.folder}/", "")
    return Result(did=did, right=done.refused("SHA-256"))


@case(line=31, input="an adapter file that lacks its last kilobyte")
def truncated_adapter(box: Box) -> Result:
    """Refused before it answers."""
    return damaged(box, (finished() / "adapter/adapter_model.safetensors").read_bytes()[:-1024])


@case(line=31, input="an adapter file with one bit changed")
def flipped_adapter(box: Box) -> Result:
    """Refused before it answers."""
    content = bytearray((finished() / "adapter/adapter_model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    return damaged(box, bytes(content))
