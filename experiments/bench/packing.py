"""Compare the tokens per second of `fit` with packing and with padding.

    python experiments/bench/packing.py            the demo, about six minutes
    python experiments/bench/packing.py --readme   only the table of packing.md

Each session is a real `fit` on one thread, unpacked or with bins of one size. All have the same
stream, and about the same number of examples in a batch. Sessions take turns, so that a busy
machine slows all of them; the fastest of each kind counts. Writes `results/packing.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tell_lightning.callbacks.run_record import git_state, machine, versions

HERE = Path(__file__).parent
RESULTS = HERE / "results/packing.json"
TABLE = HERE / "packing.md"
EXAMPLES, TOKENS = 32, 50
"""Examples of an unpacked batch, and the approximate tokens of an example."""
CAPACITIES = (None, 128, 160, 256, 512)
"""Tokens of a bin; None: one example per row, padded to the longest of its micro-batch."""


def main() -> None:
    """Measure, write the results and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--readme", action="store_true")
    given = parser.parse_args()
    if not given.readme:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(measure(given.rounds, given.steps), indent=2) + "\n")
    TABLE.write_text(table(json.loads(RESULTS.read_text())), encoding="utf-8")


def measure(rounds: int, steps: int) -> dict[str, Any]:
    """Run all sessions of all rounds."""
    sessions: dict[str, list[dict[str, Any]]] = {str(capacity): [] for capacity in CAPACITIES}
    for _ in range(rounds):
        for capacity in CAPACITIES:
            sessions[str(capacity)].append(session(capacity, steps))
            print(capacity, sessions[str(capacity)][-1], flush=True)
    facts = {"machine": machine(), "versions": versions(), "git": git_state()}
    return {**facts, "steps": steps, "sessions": sessions}


def session(capacity: int | None, steps: int) -> dict[str, Any]:
    """Train some steps; return their speed and the plan's figures."""
    options = [f"--trainer.max_steps={steps}", "--eval.test=false", "--eval.dev_rows=1"]
    if capacity is not None:
        bins = max(1, EXAMPLES * TOKENS // capacity)
        options += ["--data.packing=true", f"--data.max_tokens={capacity}"]
        options += [f"--data.optimizer_batch={bins}", f"--data.micro_batch={bins}"]
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "tell_lightning", "fit", f"--run.dir={runs}", *options]
        quiet = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        subprocess.run(command, env=os.environ | quiet, check=True, capture_output=True)
        (folder,) = Path(runs).iterdir()
        record = json.loads((folder / "run.json").read_text())
        plan = json.loads((folder / "plan.json").read_text())
    return {
        "tokens_per_second": record["tokens_per_second"],
        "examples": plan["realised"]["positions"],
        "filled": plan["bins"] and round(plan["bins"]["filled"], 3),
    }


def table(results: dict[str, Any]) -> str:
    """Return the text of packing.md; speeds are ratios to the unpacked one."""
    best = {
        name: max(sessions, key=lambda session: session["tokens_per_second"])
        for name, sessions in results["sessions"].items()
    }
    padded = best["None"]["tokens_per_second"]
    lines = [
        "# Packing on the microworld",
        "",
        (__doc__ or "").partition("\n\n")[2].strip("\n"),
        "",
        "| bins of | examples a step | full | tokens/s, every session | fastest over unpacked |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, fastest in best.items():
        size = "unpacked" if name == "None" else f"{name} tokens"
        full = "" if fastest["filled"] is None else f"{fastest['filled']:.0%}"
        ratio = fastest["tokens_per_second"] / padded
        examples = f"{fastest['examples'] / results['steps']:.0f}"
        rates = sorted(session["tokens_per_second"] for session in results["sessions"][name])
        speeds = ", ".join(f"{rate:,.0f}" for rate in rates)
        lines.append(f"| {size} | {examples} | {full} | {speeds} | {ratio:.2f} |")
    commit, rounds = results["git"]["commit"][:10], len(next(iter(results["sessions"].values())))
    lines += [
        "",
        f"{rounds} sessions each; commit {commit}. If sessions of one kind differ by half, the",
        "machine was busy, and the ratio says little.",
        "On a CPU, PyTorch computes the attention over the complete bin and masks it, so its cost",
        "grows with the bin. FlashAttention on a GPU skips the masked part; it was not measured.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
