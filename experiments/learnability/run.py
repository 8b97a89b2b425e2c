"""Train SFT on each task with few and many examples; write `results.json` and the README's table.

Each run (`Cell`) is one `python -m tell_lightning fit`. Runs in results.json are not repeated.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.commands.config_files import read_config

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
SHOWN = {"translate": ("bleu", "words_recall"), "judge": ("balanced_accuracy", "label_valid")}
STEPS = {("sft", 10): 100, ("sft", 1000): 500}
RATES = (4e-3,)


@dataclass(frozen=True)
class Cell:
    """The settings of one training run."""

    task: str
    arm: str
    n: int
    lr: float

    @property
    def name(self) -> str:
        """The name of the run, unique in the folder."""
        return f"{self.task}-{self.arm}-{self.n}-lr{self.lr:g}"


def cells() -> Iterator[Cell]:
    """Yield all runs."""
    for task, (arm, n), lr in product(SHOWN, STEPS, RATES):
        yield Cell(task, arm, n, lr)


def run(cell: Cell) -> dict[str, Any]:
    """Train and score one run."""
    demo = read_config("microworld")
    overlay = {
        "extends": "microworld",
        "run": {"name": cell.name},
        "data": {
            "tasks": {cell.task: demo["data"]["tasks"][cell.task]},
            "mixture": {"arm": cell.arm, "task_examples": cell.n},
        },
        "model": {"optimizer": {"lr": cell.lr}},
        "eval": {"every_steps": 50, "patience": None},
        "trainer": {"max_steps": STEPS[cell.arm, cell.n]},
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "cell.yaml"
        config.write_text(yaml.safe_dump(overlay), encoding="utf-8")
        command = [sys.executable, "-m", "tell_lightning", "fit", "-c", str(config)]
        environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, f"--run.dir={folder}/runs"],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        record = json.loads(next(Path(folder).glob("runs/*/run.json")).read_text("utf-8"))

    def scores(moment: str) -> dict[str, float]:
        values = record["metrics"]["test"][moment]["tasks"][cell.task]["values"]
        return {key: values[key] for key in SHOWN[cell.task]}

    return {
        **asdict(cell),
        "steps": STEPS[cell.arm, cell.n],
        "selected_step": record["selected"]["step"],
        "dev_score": record["selected"]["score"],
        "passes": record["mixture"]["sources"][cell.task]["passes"],
        "test": scores("after"),
        "before": scores("before"),
        "seconds": record["seconds"]["total"],
        "git": record["git"],
        "base": record["base"]["sha256"],
    }


def main() -> None:
    """Do the missing runs, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    jobs = parser.parse_args().jobs
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    missing = [cell for cell in cells() if cell.name not in results]
    with ThreadPoolExecutor(jobs) as pool:
        for cell, result in zip(missing, pool.map(run, missing), strict=True):
            results[cell.name] = result
            text = json.dumps(dict(sorted(results.items())), indent=2) + "\n"
            RESULTS.write_text(text, encoding="utf-8")
            print(f"{len(results)} of {len(list(cells()))}: {cell.name} {result['test']}")
    write_table(results)


def write_table(results: dict[str, Any]) -> None:
    """Write the best learning rate of each arm to the README."""
    lines = [
        "| task | arm | n | lr | chosen step | passes | test score | also |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for task, (score, also) in SHOWN.items():
        for arm, n in STEPS:
            rows = [r for r in results.values() if (r["task"], r["arm"], r["n"]) == (task, arm, n)]
            best = max(rows, key=lambda row: row["dev_score"])
            lines.append(
                f"| {task} | {arm} | {n:,} | {best['lr']:g} | {best['selected_step']} "
                f"| {best['passes']:.0f} | {score} {best['test'][score]:.3g} "
                f"| {also} {best['test'][also]:.2f} |"
            )
    commits = sorted({row["git"]["commit"][:10] for row in results.values() if row["git"]})
    lines += ["", f"Seed 42, commit {', '.join(commits)}; all runs are in `results.json`."]
    readme = HERE / "README.md"
    head = readme.read_text(encoding="utf-8").partition("<!-- table -->")[0]
    readme.write_text(f"{head}<!-- table -->\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
