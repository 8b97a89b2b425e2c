"""Try the defaults on SmolLM2-135M-Instruct: runs with nothing else set, and learning rates.

    python experiments/defaults/run.py            the README's example with 10, 50 and 500 rows
    python experiments/defaults/run.py --rates    four rates, TELL and SFT
    python experiments/defaults/run.py --readme   only the tables of README.md

Each run is a real `fit`, all of them in one process. A result is written as soon as it is there,
and runs that have one are left out. README.md says which data `--data` holds.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE / "README.md", HERE / "results"
TASK, GENERAL = "travel", "instructions"
ANCHOR = "You sort travellers' requests: answer with the intent of the request."
RATES = (3e-4, 6e-4, 1.3e-3, 3e-3)
FIRST = {"dev": 60, "test": 150}
"""Rows of the task, from the first on, that are scored."""
HELD_OUT = 50
"""General rows that no run trains on."""
LONGEST = 50
"""Words of the general rows that are used."""


def main() -> None:
    """Run what has no result yet, and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--steps", type=int, default=40, help="of the runs of --rates")
    parser.add_argument("--readme", action="store_true")
    given = parser.parse_args()
    if not given.readme:
        with tempfile.TemporaryDirectory() as folder:
            files = write_files(given.data, Path(folder))
            cells = rate_cells(given.steps) if given.rates else example_cells()
            for name, settings in cells:
                run(name, files | {"base": given.base}, settings, Path(folder))
    text = README.read_text(encoding="utf-8")
    for mark, table in (("example", example_table()), ("rates", rate_table())):
        start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
        before, after = text.split(start)[0], text.split(end)[1]
        text = f"{before}{start}\n\n{table}\n\n{end}{after}"
    README.write_text(text, encoding="utf-8")


def write_files(data: Path, folder: Path) -> dict[str, Any]:
    """Write the rows of the task and the general rows, and return their paths."""
    source = data / "general/natural_instructions/natural_instructions_sample.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    short = [row for row in rows if words(row) <= LONGEST]
    for name, part in (("held_out", short[:HELD_OUT]), ("general", short[HELD_OUT:])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    task = data / "real/clinc_travel"
    for split, count in FIRST.items():
        lines = (task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"{split}.jsonl").write_text("".join(lines[:count]), encoding="utf-8")
    names = ("dev", "test", "general", "held_out")
    written = {name: str(folder / f"{name}.jsonl") for name in names}
    return {"train": str((task / "train.jsonl").resolve()), **written}


def words(row: dict[str, str]) -> int:
    """Count the words of a general row."""
    return sum(len(row[key].split()) for key in ("instruction", "input", "output"))


def rate_cells(steps: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and settings of each run of --rates: few steps, the losses at their end."""
    for n, arm, lr in itertools.product((10, 50), ("tell", "sft"), RATES):
        yield (
            f"rates-{n}-{arm}-{lr:g}",
            {
                "data.mixture": {"arm": arm, "task_share": 0.2, "task_examples": n},
                "model.optimizer.lr": lr,
                "eval": {"before": False, "test": False, "probe": False, "dev_rows": FIRST["dev"]}
                | {"every_steps": steps, "select": "last"},
                "trainer": {"max_steps": steps},
            },
        )


def example_cells() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and settings of the runs with nothing set but the number of rows."""
    for n in (10, 50, 500):
        yield f"example-{n}", {"data.mixture": {"task_examples": n}}


def run(name: str, files: dict[str, Any], settings: dict[str, Any], folder: Path) -> None:
    """Run `fit` and keep what its run.json says."""
    from tell_lightning.commands.fit import fit

    kept = RESULTS / f"{name}.json"
    if kept.is_file():
        return
    task = {split: files[split] for split in ("train", "dev", "test")}
    fields = {"prompt": "instruction", "input": "input", "response": "output"}
    general = {"train": files["general"], "held_out": files["held_out"], "fields": fields}
    config = {
        "run": {"name": name, "dir": str(folder / "runs")},
        "data": {
            "tasks": {TASK: {**task, "anchor": {"text": ANCHOR}}},
            "general": {GENERAL: general},
        },
        "model": {"base": files["base"]},
    }
    for key, value in settings.items():
        *above, last = key.split(".")
        inside = config
        for part in above:
            inside = inside.setdefault(part, {})
        inside[last] = value
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    fit(["-c", str(path)])
    (made,) = (folder / "runs").glob(f"*-{name}")
    record = json.loads((made / "run.json").read_text(encoding="utf-8"))
    keys = ("git", "machine", "seconds", "steps", "learning_rate", "metrics", "mixture")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({key: record[key] for key in keys}, indent=1) + "\n"
    kept.write_text(text, encoding="utf-8")


def example_table() -> str:
    """Write a line for each run with nothing else set: length, scores and losses on test."""
    lines = [
        "| rows | lr | steps | passes | exact match, %: base, after | loss: base, after | "
        "general loss: base, after | dev loss at each scoring | took, s (scoring) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, record in results("example").items():
        moments = [record["metrics"]["test"][moment] for moment in ("before", "after")]
        scores = [f"{100 * m['tasks'][TASK]['values']['exact_match']:.1f}" for m in moments]
        losses = [[f"{m['loss_nats_per_token'][s]:.2f}" for m in moments] for s in (TASK, GENERAL)]
        history = record["metrics"]["dev_history"]
        curve = [f"{entry['loss_nats_per_token'][TASK]:.2f}" for entry in history]
        seconds = record["seconds"]
        cells = [
            name.rpartition("-")[2],
            f"{record['learning_rate']['value']:g}",
            f"{record['steps']:,}",
            f"{record['mixture']['sources'][TASK]['passes']:.1f}",
            *(", ".join(values) for values in (scores, *losses, curve)),
            f"{seconds['total']:,.0f} ({seconds['scoring']:,.0f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *foot("example")])


def rate_table() -> str:
    """Write a line for each arm and number of rows: the losses on dev at each rate."""
    found = results("rates")
    if not found:
        return "Not run yet."
    rates = " | ".join(f"{rate:g}" for rate in RATES)
    lines = [f"| rows | arm | loss of | {rates} |", f"|{' --- |' * (3 + len(RATES))}"]
    for n, arm in itertools.product((10, 50), ("tell", "sft")):
        names = [f"rates-{n}-{arm}-{rate:g}" for rate in RATES]
        if not set(names) & found.keys():
            continue
        for source, said in ((TASK, "task rows"), (GENERAL, "general rows")):
            cells = [str(n), arm, said]
            for name in names:
                end = found[name]["metrics"]["dev_history"][-1] if name in found else None
                cells.append(f"{end['loss_nats_per_token'][source]:.3f}" if end else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *foot("rates")])


def results(kind: str) -> dict[str, Any]:
    """Read the results of a kind of run, by name; the fewest rows first."""
    files = sorted(RESULTS.glob(f"{kind}-*.json"), key=lambda path: (len(path.name), path.name))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def foot(kind: str) -> list[str]:
    """Say which commit and machine the results of a kind are from."""
    found = results(kind).values()
    commits = ", ".join(sorted({result["git"]["commit"][:10] for result in found}))
    machines = ", ".join(sorted({result["machine"]["processor"] for result in found}))
    return ["", f"Seed 42, commit {commits}; {machines}." if found else "Not run yet."]


if __name__ == "__main__":
    main()
