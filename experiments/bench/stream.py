"""Compare the training stream with four other libraries on the same rows.

    python experiments/bench/stream.py [--rows 200000] [--task-rows 200] [--seed 0]
        [--peers ours,plain] [--out experiments/bench/results] [--readme]

Contenders run one after the other, each in its own processes. Those that the project does not
install get their own environment below build/bench-venv, made on the first call. Writes
`stream.json`, and the tables of the README unless --out is given.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from environments import HERE, ROOT, ContenderError, call, interpreter
from quality import compare_resume, coverage, shuffle_quality
from rows import BATCH, Job, write_rows

RESULTS, README = HERE / "results", HERE / "README.md"
REPEATS = 3
RESUMES = (10, 50, 90)
WORKERS = 2
STEPS = [
    ("write", 0),
    *(("epoch", repeat) for repeat in range(REPEATS)),
    *(("resume at %", share) for share in RESUMES),
    ("workers", WORKERS),
]
SHARE = 0.01


@dataclass(frozen=True)
class Contender:
    """One way to deliver the rows.

    Attributes:
        label: Name in the tables.
        needs: Packages of its own environment besides PyTorch; empty: the project's environment.
        writes: Whether it first writes the rows in its own format.
    """

    label: str
    needs: tuple[str, ...] = ()
    writes: bool = False


CONTENDERS = {
    "ours": Contender("ours"),
    "interleave": Contender("`interleave_datasets`, then `shuffle`"),
    "interleave_shuffled": Contender("`shuffle`, then `interleave_datasets`"),
    "nodes": Contender(
        "torchdata weighted nodes", ("torchdata==0.11.0", f"datasets=={version('datasets')}")
    ),
    "mosaic": Contender("mosaicml-streaming", ("mosaicml-streaming==0.13.0",), writes=True),
    "plain": Contender("concat + `DataLoader`, batches skipped"),
    "plain_lightning": Contender("concat + `DataLoader`, resumed by Lightning"),
}


class Bench:
    """Runs contenders on one set of rows."""

    def __init__(self, folder: Path, job: Job) -> None:
        """Take the folder to write to, and the job with the first seed and no workers."""
        self.folder, self.job = folder, job

    def child(self, name: str, module: str, options: list[str], **changes: int) -> dict[str, Any]:
        """Run a module in the environment of a contender; return its figures."""
        job = {**asdict(self.job), "folder": str(self.job.folder), **changes}
        out = self.folder / "pass.json"
        script = [interpreter(name, CONTENDERS[name].needs), str(HERE / "contender.py"), module]
        call([*script, "--job", json.dumps(job), "--out", str(out), *options])
        report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return report

    def order(self) -> np.ndarray:
        """Return the order of the last child."""
        return np.load(self.folder / "pass.npy")

    def step(self, kind: str, number: int, name: str, result: dict[str, Any]) -> None:
        """Do one of the STEPS for a contender and add its figures to the result."""
        if kind == "epoch":
            result["epochs"].append(self.repeat(name, number))
        elif kind == "resume at %":
            result["resumes"][str(number)] = self.resume(name, number)
        elif kind == "workers":
            result["workers"] = self.epoch(name, [], workers=number)
        elif CONTENDERS[name].writes:
            self.child(name, name, ["--write"])

    def repeat(self, name: str, repeat: int) -> dict[str, Any]:
        """Deliver an epoch. The first one also saves its order and the states to resume from."""
        if repeat:
            return self.epoch(name, [], seed=self.job.seed + repeat)
        saves = [f"--save={self.batches(share)}:{self.state(name, share)}" for share in RESUMES]
        figures = self.epoch(name, saves, seed=self.job.seed)
        np.save(self.folder / f"{name}.npy", self.order())
        return figures

    def resume(self, name: str, share: int) -> dict[str, Any]:
        """Deliver the rest of the first epoch from a saved state, in a new process."""
        path = self.state(name, share)
        figures = self.child(name, name, ["--state", str(path)])
        epoch = np.load(self.folder / f"{name}.npy")
        return {
            "seconds": figures["first_batch_seconds"],
            "state_bytes": path.stat().st_size,
            **compare_resume(epoch, self.batches(share) * BATCH, self.order()),
        }

    def batches(self, share: int) -> int:
        """Return the number of batches in some percent of an epoch."""
        return self.job.rows * share // 100 // BATCH

    def state(self, name: str, share: int) -> Path:
        """Return the path of a saved state."""
        return self.folder / f"{name}-{share}.state"

    def epoch(self, name: str, options: list[str], **changes: int) -> dict[str, Any]:
        """Deliver an epoch; return its figures and the quality of its order."""
        figures = self.child(name, name, options, **changes)
        order = self.order()
        counts = coverage(order, self.job.general, self.job.task)
        return {**changes, **figures, **counts, "quality": shuffle_quality(order)}


def run(rows: int, task_rows: int, seed: int, names: list[str]) -> dict[str, Any]:
    """Write the rows and measure the contenders in turn, so that all have the same load."""
    passes = max(1, round(rows * SHARE / (1 - SHARE) / task_rows))
    results: dict[str, Any] = {
        "machine": machine(),
        "commit": commit(),
        "arguments": {"rows": rows, "task_rows": task_rows, "seed": seed, "passes": passes},
        "load_before": os.getloadavg(),
        "contenders": {name: {"epochs": [], "resumes": {}} for name in names},
    }
    with tempfile.TemporaryDirectory() as scratch:
        job = Job(Path(scratch) / "rows", rows, task_rows, passes, seed, workers=0)
        bench = Bench(Path(scratch), job)
        write_rows(job.folder, rows, task_rows, seed)
        bench.child("ours", "ours", ["--write"])
        for kind, number in STEPS:
            for name, result in results["contenders"].items():
                if "failed" in result:
                    continue
                print(f"{kind} {number}: {CONTENDERS[name].label}", flush=True)
                try:
                    bench.step(kind, number, name, result)
                except ContenderError as error:
                    result["failed"] = str(error)
                    print(f"  failed: {error}", flush=True)
    results["load_after"] = os.getloadavg()
    return results


def machine() -> dict[str, Any]:
    """Describe the machine."""
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "cpu": cpu[0].partition(": ")[2] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def commit() -> str:
    """Return the commit, marked "dirty" if files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write results and tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=200_000, help="general rows")
    parser.add_argument("--task-rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", default=",".join(CONTENDERS), help=", ".join(CONTENDERS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--readme", action="store_true", help="only write the tables of the README")
    options = parser.parse_args(arguments)
    names = options.peers.split(",")
    if unknown := [name for name in names if name not in CONTENDERS]:
        parser.error(f"--peers: must be among {', '.join(CONTENDERS)}, got {', '.join(unknown)}.")
    path = options.out / "stream.json"
    if not options.readme:
        results = run(options.rows, options.task_rows, options.seed, names)
        options.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    block = tables(json.loads(path.read_text(encoding="utf-8")))
    if options.out.resolve() == RESULTS:
        text = README.read_text(encoding="utf-8")
        README.write_text(put(text, "stream", block), encoding="utf-8")
    else:
        print(block)


def put(text: str, name: str, block: str) -> str:
    """Replace the text between the two marks of a block."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, after = text.split(start)[0], text.split(end)[1]
    return f"{before}{start}\n\n{block}\n\n{end}{after}"


COST = {
    "": lambda name, _: CONTENDERS[name].label,
    "rows/s": lambda _, x: f"{max(e['rows_per_second'] for e in x['epochs']):,.0f}",
    "rows per CPU s": lambda _, x: f"{max(e['rows_per_cpu_second'] for e in x['epochs']):,.0f}",
    "rows/s, 2 workers": lambda _, x: f"{x['workers']['rows_per_second']:,.0f}",
    "anonymous memory, MB": lambda _, x: f"{memory(x, 'anonymous_peak'):.0f}",
    "above imports, MB": lambda _, x: (
        f"{memory(x, 'anonymous_peak') - memory(x, 'anonymous_after_imports'):.0f}"
    ),
    "first batch, s": lambda _, x: f"{min(e['first_batch_seconds'] for e in x['epochs']):.2f}",
    "resume at 10, 50, 90 %, s": lambda _, x: per_resume(x, seconds),
    "state, bytes": lambda _, x: f"{max(r['state_bytes'] for r in x['resumes'].values()):,}",
}
RESUME = {
    "": lambda name, _: CONTENDERS[name].label,
    "lost at 10, 50, 90 %": lambda _, x: per_resume(x, lambda r: f"{r['lost']:,}"),
    "repeated": lambda _, x: per_resume(x, lambda r: f"{r['repeated']:,}"),
    "same order": lambda _, x: per_resume(x, lambda r: "yes" if r["same_order"] else "no"),
    "task rows in the epoch": lambda _, x: numbers(e["task"] for e in x["epochs"]),
    "uses of each task row": lambda _, x: span(x["epochs"], "task_uses"),
    "general rows missing": lambda _, x: numbers(e["general_missing"] for e in x["epochs"]),
    "general rows repeated": lambda _, x: numbers(e["general_repeated"] for e in x["epochs"]),
}
SHUFFLE = {
    "": lambda name, _: CONTENDERS[name].label,
    "first task row, %": lambda _, x: values(x, "first", "{:.2%}"),
    "last task row, %": lambda _, x: values(x, "last", "{:.2%}"),
    "longest gap": lambda _, x: values(x, "gap", "{:,}"),
    "expected": lambda _, x: f"{x['epochs'][0]['quality']['gap_expected']:,.0f}",
    "runs z": lambda _, x: values(x, "runs_z", "{:.1f}"),
    "lag-1": lambda _, x: values(x, "lag_1", "{:.3f}"),
}


def memory(result: Mapping[str, Any], key: str) -> float:
    """Return the largest value of the epochs, in MB."""
    return float(max(epoch[key] for epoch in result["epochs"])) / 1e6


def seconds(resume: Mapping[str, Any]) -> str:
    """Show the seconds to the first batch after a resume."""
    return "none came" if resume["seconds"] is None else f"{resume['seconds']:.2f}"


def per_resume(result: Mapping[str, Any], show: Any) -> str:
    """Show a figure of each resume."""
    return " / ".join(show(resume) for resume in result["resumes"].values())


def numbers(counts: Iterable[int]) -> str:
    """Show a count of each epoch, or one count if all are equal."""
    shown = [f"{number:,}" for number in counts]
    return shown[0] if len(set(shown)) == 1 else " / ".join(shown)


def span(epochs: list[dict[str, Any]], key: str) -> str:
    """Show the smallest and the largest value of all epochs."""
    low, high = min(e[key][0] for e in epochs), max(e[key][1] for e in epochs)
    return str(low) if low == high else f"{low} to {high}"


def values(result: Mapping[str, Any], key: str, style: str) -> str:
    """Show a figure of the mixing for each seed."""
    return " / ".join(style.format(epoch["quality"][key]) for epoch in result["epochs"])


def table(results: Mapping[str, Any], columns: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table; the first column says which contenders failed, and why."""
    lines = [f"| {' | '.join(columns)} |", "| --- |" + " ---: |" * (len(columns) - 1)]
    for name, result in results.items():
        if "failed" in result:
            cells = [f"{CONTENDERS[name].label}: failed, {result['failed']}"]
            cells += [""] * (len(columns) - 1)
        else:
            cells = [show(name, result) for show in columns.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def tables(results: Mapping[str, Any]) -> str:
    """Return the tables of the README, and a paragraph on how they were made."""
    given, host, ran = results["arguments"], results["machine"], results["contenders"]
    versions = ", ".join(
        f"{name} {result['epochs'][0]['version']}"
        for name, result in ran.items()
        if "failed" not in result
    )
    origin = (
        f"{given['rows']:,} general rows, {given['task_rows']:,} task rows passed over "
        f"{given['passes']} times, seeds {given['seed']} to {given['seed'] + REPEATS - 1}; commit "
        f"{results['commit'][:10]}; {host['cores']} cores of {host['cpu']}, load "
        f"{results['load_before'][0]:.1f} before and {results['load_after'][0]:.1f} after; "
        f"Python {host['python']}; {versions}. All figures are in `results/stream.json`."
    )
    parts = {
        "What it costs": COST,
        "What a resume loses, and what an epoch holds": RESUME,
        "How well it is mixed, by seed": SHUFFLE,
    }
    blocks = ["\n".join([f"**{title}**", "", *table(ran, shown)]) for title, shown in parts.items()]
    return "\n\n".join([*blocks, origin])


if __name__ == "__main__":
    main()
