"""Searches within a budget: two tasks of the microworld, a real one on SmolLM2, and pure noise.

    python experiments/tune/run.py            all of them, about 75 minutes of two cores
    python experiments/tune/run.py noise      those whose name begins so
    python experiments/tune/run.py --readme   only the table of README.md

Each is the command `tune`, as a user types it, in a process of its own. What is there is kept.
`--data` holds the rows of `experiments/real/README.md`.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.metrics.score_facts import facts_of
from tell_lightning.microworld.world import write_world
from tell_lightning.tuning.sentence import with_interval
from tell_lightning.tuning.space import described

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
README, RESULTS = HERE / "README.md", HERE / "results"
NOISE_ROWS = 40
NOISE_SEEDS = range(5)
TRAVEL = ROOT / "configs/real/clinc_travel.yaml"
SMALL = (
    "--data.optimizer_batch=4",
    "--data.micro_batch=4",
    "--eval.test_rows=80",
    "--eval.loss_rows=32",
)
"""A step of 16 rows takes SmolLM2 a quarter of a minute on one core, 80 answers a minute."""
START, END = "<!-- results -->", "<!-- /results -->"


def main() -> None:
    """Run what has no result yet, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--data", type=Path, default=ROOT / "experiments/real/data")
    parser.add_argument("--readme", action="store_true")
    given = parser.parse_args()
    if not given.readme:
        with tempfile.TemporaryDirectory() as place:
            for name, words in searches(given.data, Path(place)).items():
                wanted = not given.names or name.startswith(tuple(given.names))
                if wanted and not (RESULTS / f"{name}.json").exists():
                    search(name, words)
    text = README.read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    README.write_text(f"{before}{START}\n\n{table()}\n\n{END}{after}", encoding="utf-8")


def searches(data: Path, place: Path) -> dict[str, list[str]]:
    """Return the words behind `tune`, by name."""
    found = {
        name: ["-c", str(HERE / f"{name}.yaml"), "--minutes=10"]
        for name in ("translate", "compose")
    }
    for rows in (10, 50):
        found[f"travel_{rows}"] = [
            *("-c", str(TRAVEL), f"--data.root={data}", "--data.tasks.clinc_travel.dev=null"),
            *(f"--data.mixture.task_examples={rows}", "--minutes=20", *SMALL),
        ]
    write_world(place)
    for seed in NOISE_SEEDS:
        found[f"noise_{seed}"] = [
            *("-c", str(write_noise(place, seed)), f"--seed_everything={seed}"),
            *("--trials=6", "--tune.folds=3", "--tune.seeds=3"),
        ]
    return found


def write_noise(place: Path, seed: int) -> Path:
    """Write a task whose answers are coins, and return its configuration."""
    lines = (place / "translate/train.jsonl").read_text(encoding="utf-8").splitlines()
    coin = random.Random(seed)
    rows = [
        {"prompt": json.loads(line)["prompt"], "response": coin.choice(["yes", "no"])}
        for line in coin.sample(lines, NOISE_ROWS)
    ]
    file = place / f"noise_{seed}.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    config = {
        "extends": "microworld",
        "data": {
            "root": str(place),
            "optimizer_batch": 8,
            "micro_batch": 8,
            "tasks": {
                "noise": {
                    "train": file.name,
                    "anchor": {"text": "Answer yes or no."},
                    "scoring": {"kind": "classification", "primary": "accuracy"},
                }
            },
            "mixture": {"task_examples": None},
        },
        "tune": {"search": {"steps": [15, 30]}},
    }
    path = place / f"noise_{seed}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def search(name: str, words: list[str]) -> None:
    """Run one search, and keep what it found."""
    folder = ROOT / "runs" / f"tune-{name}"
    print(f"\n== {name}", flush=True)
    command = [sys.executable, "-m", "tell_lightning", "tune", *words, f"--folder={folder}"]
    subprocess.run(command, check=True)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    found = record["tune"]
    best = json.loads((folder / "trials" / f"{found['best']:04d}.json").read_text(encoding="utf-8"))
    test = record["metrics"].get("test", {})
    kept = {
        "command": [word.replace(f"{ROOT}/", "") for word in words],
        "trials": found["trials"],
        "space": found["space"],
        "folds": found["folds"],
        "best": {key: best[key] for key in ("number", "arm", "params", "score", "loss")},
        "adapter": test.get("after"),
        "verdict": found["verdict"],
        "minutes": found["minutes"],
        **{key: record[key] for key in ("git", "machine")},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(f"{json.dumps(kept, indent=1)}\n", encoding="utf-8")


def table() -> str:
    """Return a table with a line for each search, and their verdicts."""
    kept = {path.stem: json.loads(path.read_text("utf-8")) for path in RESULTS.glob("*.json")}
    head = (
        "| search | trials | best trial | its adapter | TELL | SFT | no anchor | base | few-shot "
        "| minutes |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    names = sorted(kept, key=lambda name: (name.startswith("noise"), name))
    lines = "\n".join(line(name, kept[name]) for name in names)
    said = "\n".join(f"- `{name}`: {kept[name]['verdict']['sentence']}" for name in names)
    return f"{head}\n{lines}\n\n{said}"


def line(name: str, kept: Mapping[str, Any]) -> str:
    """Return the line of one search."""
    verdict = kept["verdict"]
    scores = {of["name"]: of["score"] for of in (*verdict["arms"], *verdict["rivals"])}
    each = " | ".join(
        with_interval(scores.get(arm)) for arm in ("tell", "sft", "mixture", "base", "few_shot")
    )
    best = described(kept["best"]["arm"], kept["best"]["params"])
    trials = sum(kept["trials"].values())
    adapter = on_test_rows(kept["adapter"])
    return f"| `{name}` | {trials} | {best} | {adapter} | {each} | {kept['minutes']:.1f} |"


def on_test_rows(adapter: Mapping[str, Any] | None) -> str:
    """Return the score of the one adapter that is left; nothing without a test set."""
    if adapter is None:
        return ""
    (task,) = adapter["tasks"].values()
    measure = task["primary"]
    numbers = (task["values"][measure], *task["intervals"][measure])
    value, low, high = (100 * facts_of(measure).selection(number) for number in numbers)
    return with_interval({"value": value, "low": low, "high": high})


if __name__ == "__main__":
    main()
