"""How long each command takes to start, and what it imports.

    python experiments/bench/startup.py                    four minutes on a quiet core
    python experiments/bench/startup.py --beside DIR       in turn with another checkout
    python experiments/bench/startup.py --readme           only the table of startup.md

Each command does as little as it can, in a process of its own. The commands take turns, round by
round, and the fastest round of each counts. Seconds are those of the whole process. `modules`
counts what is imported when the process ends, `heavy` names the large packages among it. A run of
one step is made first for the commands that read one.

Writes `results/startup.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tell_lightning.callbacks.run_record import git_state, machine, versions

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results/startup.json"
TABLE = HERE / "startup.md"
HEAVY = ("torch", "lightning", "transformers", "peft", "datasets", "torchmetrics", "wandb")
PROGRAM = """
import atexit, json, os, sys
def say():
    heavy = [name for name in {heavy!r} if name in sys.modules]
    with open(os.environ["TELL_STARTUP"], "w") as file:
        json.dump({{"modules": len(sys.modules), "heavy": heavy}}, file)
atexit.register(say)
from tell_lightning.cli import main
main()
"""
SHORT = [
    "--trainer.max_steps=1",
    "--trainer.accelerator=cpu",
    "--eval.dev_rows=1",
    "--eval.test_rows=2",
    "--eval.anchor_check=false",
]


def commands(run: Path, folder: Path) -> dict[str, list[str]]:
    """Return the command lines by name; `run` is the folder of a finished run."""
    answers = sorted((run / "predictions").glob("test-translate-*.jsonl"))
    prompt = folder / "prompt.jsonl"
    prompt.write_text('{"prompt": "tovi"}\n', encoding="utf-8")
    predict = ["--run", str(run), "--task", "translate", "--input", str(prompt)]
    return {
        "--help": ["--help"],
        "fit --help": ["fit", "--help"],
        "fit, a wrong key": ["fit", "--data.mixtrue=1"],
        "plan": ["plan"],
        "prepare": ["prepare"],
        "compare": ["compare", str(answers[0]), str(answers[-1])],
        "report RUN": ["report", str(run), "--output", str(folder / "report.html")],
        "predict": ["predict", *predict, "--trainer.accelerator=cpu"],
        "fit, one step": ["fit", *SHORT, "--eval.before=false", f"--run.dir={folder / 'more'}"],
    }


def start(arguments: Sequence[str], checkout: Path, folder: Path) -> dict[str, Any]:
    """Run a command of a checkout; return its seconds and imports."""
    facts = folder / "facts.json"
    facts.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "TELL_STARTUP": str(facts),
        "WANDB_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
    }
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *arguments],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    wrong = "--data.mixtrue=1" in arguments
    if done.returncode != (2 if wrong else 0):
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return {"seconds": round(seconds, 2), **json.loads(facts.read_text(encoding="utf-8"))}


def measure(checkouts: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Run all commands of all checkouts in turn."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in checkouts}
    with tempfile.TemporaryDirectory() as name:
        folders = {checkout: Path(name) / checkout for checkout in checkouts}
        lines = {}
        for checkout, folder in folders.items():
            folder.mkdir()
            start(["fit", *SHORT, f"--run.dir={folder / 'runs'}"], checkouts[checkout], folder)
            (run,) = (folder / "runs").iterdir()
            lines[checkout] = commands(run, folder)
        for number in range(rounds):
            for command in next(iter(lines.values())):
                for checkout, path in checkouts.items():
                    one = start(lines[checkout][command], path, folders[checkout])
                    found[checkout].setdefault(command, []).append(one)
                    print(number + 1, checkout, command, one, flush=True)
    return found


def table(results: dict[str, Any]) -> str:
    """Write the table as Markdown."""
    found = results["checkouts"]
    names = list(found)
    lines = [
        "# How long the commands take to start",
        "",
        "    python experiments/bench/startup.py",
        "",
        (__doc__ or "").split("\n\n")[2],
        "",
    ]
    columns = [f"{column}, {name}" for name in names for column in ("seconds", "modules", "heavy")]
    lines += [
        f"| command | {' | '.join(columns)} |",
        f"| --- |{' ---: | ---: | --- |' * len(names)}",
    ]
    for command in found[names[0]]:
        cells = []
        for name in names:
            rounds = found[name][command]
            fastest = min(rounds, key=lambda one: one["seconds"])
            cells += [
                f"{fastest['seconds']:.1f}",
                f"{fastest['modules']:,}",
                ", ".join(fastest["heavy"]),
            ]
        lines.append(f"| {command} | {' | '.join(cells)} |")
    rounds = len(found[names[0]]["--help"])
    about = results["machine"]["processor"]
    lines += ["", f"Fastest of {rounds} rounds; commit {results['git']['commit'][:10]}; {about}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write the results and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--readme", action="store_true", help="write the table alone")
    options = parser.parse_args()
    if not options.readme:
        checkouts = {"here": HERE.parents[1]}
        if options.beside:
            checkouts = {"before": options.beside.resolve(), **checkouts}
        results = {
            "checkouts": measure(checkouts, options.rounds),
            "git": git_state(),
            "machine": machine(),
            "versions": versions(),
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(table(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
