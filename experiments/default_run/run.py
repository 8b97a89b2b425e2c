"""Run the default with three seeds; write `results.json`, `output.txt` and parts of the README."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS, OUTPUT = HERE / "results.json", HERE / "output.txt"
README = HERE.parents[1] / "README.md"
SEEDS = (42, 43, 44)
SHOWN = {
    ("translate", "bleu"): "translate: BLEU",
    ("translate", "words_recall"): "translate: words that no training row held, found",
    ("judge", "balanced_accuracy"): "judge: balanced accuracy",
    ("judge", "f1"): 'judge: F1 of "yes"',
    ("judge", "label_valid"): "judge: valid JSON with a verdict",
}
SWAPPED = "test_without_anchor"
BASELINES = {"translate": ("copy_source", "random_words"), "judge": ("always_yes", "always_no")}


def run(seed: int) -> tuple[dict[str, Any], str]:
    """Run `fit` with a seed; return a part of its run.json, and its screen output."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tell_lightning", "fit", f"--seed_everything={seed}"],
            check=True,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        record = json.loads(next(Path(folder).glob("runs/*/run.json")).read_text("utf-8"))
    keys = ("git", "base", "seconds", "tokens_per_second", "peak_memory_bytes", "selected")
    metrics = {split: record["metrics"][split] for split in ("test", SWAPPED)}
    return {key: record[key] for key in keys} | metrics, done.stdout


def main() -> None:
    """Run all seeds and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--readme", action="store_true", help="only update the README")
    options = parser.parse_args()
    if not options.readme:
        with ThreadPoolExecutor(options.jobs) as pool:
            done = list(pool.map(run, SEEDS))
        results = {str(seed): result for seed, (result, _) in zip(SEEDS, done, strict=True)}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        OUTPUT.write_text(done[0][1], encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    text = put(text, "output", f"```\n{shortened(OUTPUT.read_text(encoding='utf-8'))}\n```")
    text = put(text, "scores", table(json.loads(RESULTS.read_text(encoding="utf-8"))))
    README.write_text(text, encoding="utf-8")


def put(text: str, name: str, block: str) -> str:
    """Replace the text between the two marks of a block."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, after = text.split(start)[0], text.split(end)[1]
    return f"{before}{start}\n\n{block}\n\n{end}{after}"


def shortened(output: str) -> str:
    """Return the tables of the test scores, without intervals and legend, and the last lines."""
    lines = [line.rstrip() for line in output.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.endswith(" test rows"))
    legend = next(i for i, line in enumerate(lines) if line.startswith("before: "))
    end = next(i for i, line in enumerate(lines) if line.startswith("Took "))
    tables = [line for line in lines[start:legend] if not line.lstrip().startswith("[")]
    return "\n".join([*tables, *lines[end:]])


def table(results: dict[str, Any]) -> str:
    """Return the table of the README: baselines, the base, and mean and range over the seeds."""
    lines = [
        "| on 200 test rows | baselines | base | after, mean (range) | anchor off |",
        "| --- | --- | --- | --- | --- |",
    ]
    first = next(iter(results.values()))["test"]
    for (task, score), label in SHOWN.items():
        style = ".1f" if score == "bleu" else ".2f"
        after, swapped = (
            [r[split]["after"]["tasks"][task]["values"][score] for r in results.values()]
            for split in ("test", SWAPPED)
        )
        baselines = " / ".join(
            format(first["floors"][task][name]["values"][score], style) for name in BASELINES[task]
        )
        base = format(first["before"]["tasks"][task]["values"][score], style)
        cells = [baselines, base, f"**{mean(after):{style}}** {spread(after, style)}"]
        cells.append(f"{mean(swapped):{style}} {spread(swapped, style)}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    base, after = (
        [r["test"][moment]["loss_nats_per_token"]["instructions"] for r in results.values()]
        for moment in ("before", "after")
    )
    cells = ["", f"{base[0]:.2f}", f"**{mean(after):.2f}** {spread(after, '.2f')}", ""]
    lines.append(f"| general rows held out: loss, nats a token | {' | '.join(cells)} |")
    commits = ", ".join(sorted({r["git"]["commit"][:10] for r in results.values()}))
    names = "; ".join(
        f"{task}: {' / '.join(name.replace('_', ' ') for name in names)}"
        for task, names in BASELINES.items()
    )
    return "\n".join(
        [
            *lines,
            "",
            f"`python experiments/default_run/run.py`, commit {commits}, seeds "
            f"{', '.join(results)}: each has its own examples, order and initialisation. Baselines "
            f"need no model ({names}). Anchor off: the trained adapter without the anchor.",
        ]
    )


def spread(values: list[float], style: str) -> str:
    """Return the range over the seeds as text."""
    return f"({min(values):{style}}\u2013{max(values):{style}})"


if __name__ == "__main__":
    main()
