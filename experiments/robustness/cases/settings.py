"""Cases about configurations: defaults, ranges, texts, help, streams and code of other people."""

import json
import subprocess
import sys
from pathlib import Path

from robustness import ROOT, Box, Outcome, Result, case

ROWS = [{"prompt": f"Turn {n} round.", "response": f"round {n}"} for n in range(70)]
GENERAL = [{"prompt": f"Write {n}.", "response": f"It is {n}."} for n in range(400)]
MINE = """
data:
  tasks: {turn: {train: rows.jsonl, anchor: {text: "Turn it."}}}
  general: {all: {train: general.jsonl}}
  mixture: {task_share: 0.5}
model: {base: microworld}
trainer: {max_steps: 4}
"""


def mine(box: Box, text: str = MINE) -> None:
    """Write a task of one's own."""
    box.jsonl("rows.jsonl", ROWS)
    box.jsonl("general.jsonl", GENERAL)
    box.write("mine.yaml", text)


def refused(outcome: Outcome, *parts: str) -> Result:
    """Say whether a command ended with one line that names these parts."""
    right = outcome.refused(*parts)
    return Result("refused in one line" if right else f"{outcome.code} {outcome.err[-200:]}", right)


@case(line=22, input="a task of 70 rows with `-c mine.yaml`, nothing said of task_examples")
def all_rows(box: Box) -> Result:
    """The demo has task_examples: 50."""
    mine(box)
    outcome = box.call("plan", "-c", "mine.yaml")
    row = next((line for line in outcome.out.splitlines() if "turn" in line), "")
    right = outcome.code == 0 and "70" in row.split()
    return Result(f"plans with {row.split()[1:3]}" if row else outcome.err[-200:], right)


@case(line=22, input="`-c mine.yaml` without a base and `arm: sft` without general rows")
def no_base(box: Box) -> Result:
    """The demo has both."""
    text = MINE.replace("model: {base: microworld}\n", "").replace("task_share: 0.5", "arm: sft")
    mine(box, text)
    return refused(box.call("plan", "-c", "mine.yaml"), "model.base", "--model.base=")


@case(line=22, input="`extends: microworld` with another name")
def extends(box: Box) -> Result:
    """Build on the demo."""
    box.write("mine.yaml", "extends: microworld\nrun: {name: other}\n")
    first, second = box.call("plan"), box.call("plan", "-c", "mine.yaml")
    right = first.code == second.code == 0 and first.out == second.out
    return Result("the plan of the demo" if right else second.err[-200:], right)


WRONG = {
    "model.optimizer.lr": "-1",
    "model.optimizer.betas": "[2,3]",
    "model.optimizer.warmup_share": "5",
    "model.lora.alpha": "0",
    "model.lora.rank": "0",
    "trainer.gradient_clip_val": "-1",
    "data.tasks.turn.max_new_tokens": "0",
    "data.micro_batch": "3",
}


@case(line=32, input="eight numbers out of their ranges, in `plan` and in `fit`")
def ranges(box: Box) -> Result:
    """Each by itself; nothing is loaded, so this is quick."""
    mine(box)
    wrong = [
        f"{command} --{key}={value}"
        for command in ("plan", "fit")
        for key, value in WRONG.items()
        if not refused(box.call(command, "-c", "mine.yaml", f"--{key}={value}"), "must be").right
    ]
    wrong += ["made a folder"] if (box.folder / "runs").exists() else []
    return Result(f"took {'; '.join(wrong)}" if wrong else "each refused in one line", not wrong)


@case(line=32, input="a layer that the base does not have, in `plan`")
def unknown_layer(box: Box) -> Result:
    """`fit` refused it, `plan` did not."""
    mine(box)
    outcome = box.call("plan", "-c", "mine.yaml", "--model.lora.target_modules=[frob]")
    right = outcome.code == 2 and "model.lora.target_modules" in outcome.err.splitlines()[-1]
    return Result("refused" if right else outcome.err[-200:], right)


@case(line=32, input="`trainer.accelerator: gpu` where there is none")
def no_gpu(box: Box) -> Result:
    """Hide the GPUs."""
    mine(box)
    options = ["-c", "mine.yaml", "--trainer.accelerator=gpu"]
    outcome = box.call("fit", *options, env={"CUDA_VISIBLE_DEVICES": ""})
    last = outcome.err.splitlines()[-1] if outcome.err else ""
    right = outcome.code == 2 and last.startswith("error: trainer: ")
    return Result("refused in one line" if right else outcome.err[-200:], right)


@case(line=32, input="one training prompt with two responses")
def contradiction(box: Box) -> Result:
    """It is told, because both may be right."""
    mine(box)
    box.jsonl("rows.jsonl", [*ROWS, {"prompt": "Turn 3 round.", "response": "another"}])
    outcome = box.call("plan", "-c", "mine.yaml")
    right = outcome.code == 0 and "rows.jsonl:71" in outcome.err and "rows.jsonl:4" in outcome.err
    return Result("told with both lines" if right else outcome.err[-200:], right)


@case(line=10, input="texts that YAML reads as numbers, saved and read again")
def texts(box: Box) -> Result:
    """A name, a revision, an anchor and a field."""
    program = """
import sys
from tell_lightning.commands.check import check
keys = {"run.name": "1e-4", "model.revision": "5e12345", "data.tasks.turn.anchor.text": "1e5",
        "data.tasks.turn.fields.prompt": "0x1f", "run.wandb_project": "+1.5E3"}
made = check(["-c", "mine.yaml", *(f"--{key}={value}" for key, value in keys.items())])
open("run/config.yaml", "w").write(made.to_yaml())
sys.exit(check(["-c", "run/config.yaml"]) != made)
"""
    mine(box)
    box.write("run/run.json", "{}")
    command = [sys.executable, "-c", program]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        command, cwd=box.folder, env=environment, capture_output=True, text=True, check=False
    )
    right = done.returncode == 0
    return Result("the same configuration" if right else done.stderr[-200:], right)


@case(line=29, input="`help` of a key below a task, and of a misspelt one")
def help_of_a_key(box: Box) -> Result:
    """The names of tasks are the user's."""
    known = box.call("help", "data.tasks.letters.scoring.positive")
    wrong = refused(box.call("help", "task_shaer"), "'task_share'")
    right = known.code == 0 and "precision, recall and F1" in known.out and wrong.right
    return Result("explained, and corrected" if right else known.err + wrong.did, right)


@case(line=17, input="`plan --show` on cp1252; Cyrillic names")
def encoding(box: Box) -> Result:
    """The marks and the rows have letters that cp1252 has not."""
    mine(box, MINE.replace("rows.jsonl", "данные.jsonl").replace("turn:", "задача:"))
    box.jsonl("данные.jsonl", [{**row, "prompt": f"Ғ {row['prompt']}"} for row in ROWS])
    options = ["-c", "mine.yaml", "--show", "2", "--run.dir=прогоны"]
    outcome = box.call("plan", *options, env={"PYTHONIOENCODING": "cp1252"})
    right = outcome.code == 0 and "[[train " in outcome.out and "\\u0492" in outcome.out
    return Result("shown with escapes" if right else outcome.err[-200:], right)


@case(line=17, input="closed standard streams, and `| head`")
def closed_streams(box: Box) -> Result:
    """In a shell."""
    wrong = []
    for redirect in (">&-", "<&-", "<&- >&- 2>&-", "| head -n 1; exit ${PIPESTATUS[0]}"):
        line = f'"$0" -m tell_lightning help {redirect}'
        done = subprocess.run(
            ["bash", "-c", line, sys.executable],
            cwd=box.folder,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or done.stderr:
            wrong.append(redirect)
    return Result(f"failed with {wrong}" if wrong else "ended with 0, nothing on stderr", not wrong)


@case(line=21, input="a run of somebody else whose scoring and callback name a Python file")
def foreign_code(box: Box) -> Result:
    """The file leaves a trace when it is run."""
    box.jsonl("rows.jsonl", ROWS)
    box.write("evil.py", "open('ran', 'w').close()\ndef score(*_): return {}\n")
    task = {"test": "rows.jsonl", "scoring": {"function": "evil.py:score"}}
    config = {
        "data": {"tasks": {"turn": task}},
        "model": {"base": "microworld"},
        "trainer": {"callbacks": [{"class_path": "evil.Call"}]},
    }
    box.write("run/config.yaml", json.dumps(config))
    box.write("run/run.json", "{}")
    found = refused(box.call("test", "run"), "evil.py:score", "evil.Call", "--trust")
    right = found.right and not (box.folder / "ran").exists()
    return Result("named, not run" if right else found.did, right)


@case(line=31, input="`plan --show 3` with two tasks and one general source")
def one_of_each(box: Box) -> Result:
    """The demo: nearly all of its positions are general."""
    outcome = box.call("plan", "--show", "3")
    lines = [line for line in outcome.out.splitlines() if line.startswith("position ")]
    found = [line.split()[2].rstrip(",") for line in lines]
    right = set(found) == {"translate", "judge", "instructions"}
    return Result(f"shows {', '.join(found)}" if found else outcome.err[-200:], right)


@case(line=31, input="`experiment --dry-run -c` with a large base")
def time_of_another_base(box: Box) -> Result:
    """The results that are there come from the base of the microworld."""
    box.write("large.yaml", "model: {base: someone/large}\n")
    folder = str(Path(ROOT) / "experiments" / "tuning")
    options = ["-c", "large.yaml", "--results", "mine", "--dry-run"]
    outcome = box.call("experiment", folder, *options)
    last = outcome.out.splitlines()[-1] if outcome.out else ""
    right = outcome.code == 0 and "unknown" in outcome.out and "in one process" not in last
    return Result("time unknown" if right else f"{last} {outcome.err[-200:]}", right)
