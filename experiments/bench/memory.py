"""Measure memory and time to the first batch with a small and a large general source.

    python experiments/bench/memory.py [--rows 5000000] [--small 50000] [--folder DIR]

Needs Linux, because anonymous memory is read from /proc. Writes `results/memory.json`.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.microworld.world import data_root

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results/memory.json"
STEPS, WORKERS, FITS, REPEATS = 30, 2, 3, 9
KINDS = ("Anonymous", "Pss_Anon")
PARTS = 2_000
"""Number of different pieces of about fifteen tokens; a row is made of four."""


def write_rows(path: Path, rows: int, words: list[str]) -> None:
    """Write rows of about sixty tokens; every call writes the same rows."""
    if path.is_file():
        return
    draw = random.Random(0)
    parts = [" ".join(draw.choices(words, k=12)) for _ in range(PARTS)]
    draft = path.with_suffix(".part")
    with draft.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            first, second, third, response = draw.choices(parts, k=4)
            prompt = f"{first} {second} {third}"
            file.write(f'{{"prompt": "{prompt}", "response": "{response}"}}\n')
    draft.rename(path)


def write_config(folder: Path, world: Path, name: str) -> Path:
    """Write the configuration of a short run on one source."""
    translate = {"train": str(world / "translate/train.jsonl"), "anchor": {"text": "Translate."}}
    config = {
        "extends": "microworld",
        "run": {"name": name, "dir": str(folder / "runs")},
        "data": {
            "root": str(folder),
            "cache_dir": str(folder / "cache"),
            "tasks": {"translate": translate},
            "general": {name: {"train": f"{name}.jsonl"}},
            "mixture": {"task_share": 0.2, "task_examples": 50},
            "num_workers": WORKERS,
        },
        "eval": {"every_steps": STEPS},
        "trainer": {"max_steps": STEPS, "accelerator": "cpu", "devices": 1},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def command(*arguments: str) -> list[str]:
    """Return the command line of a command."""
    return [sys.executable, "-m", "tell_lightning", *arguments]


def prepare(folder: Path, config: Path, rows: int) -> dict[str, Any]:
    """Time the preparation of a source, and a second call that has nothing left to do."""
    cache = folder / "cache"
    drafts = [path for path in cache.glob(".tokens-*") if path.is_dir()]
    before, seconds = set(cache.glob("tokens-*")), []
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run(command("prepare", "-c", str(config)), check=True)
        seconds.append(round(time.perf_counter() - started, 1))
    if before == set(cache.glob("tokens-*")):
        return {"seconds_when_prepared": seconds[1]}
    return {
        "seconds": seconds[0],
        "rows_per_second": round(rows / seconds[0]),
        "went_on_from_a_draft": bool(drafts),
        "commit": commit(),
        "seconds_when_prepared": seconds[1],
    }


def anonymous_bytes(pid: int, kind: str = "Anonymous") -> int:
    """Return the anonymous memory of a process; Pss_Anon divides the memory shared with others."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = dict(line.split(":", 1) for line in text.splitlines()[1:])
    return int(lines[kind].split()[0]) * 1024


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(descendant for child in children for descendant in tree(int(child)))]


def fit(config: Path) -> dict[str, int]:
    """Train a few steps; return the peak anonymous memory of all processes while workers run."""
    process = subprocess.Popen(command("fit", "-c", str(config)), stdout=subprocess.DEVNULL)
    peaks = dict.fromkeys(KINDS, 0)
    while process.poll() is None:
        pids = tree(process.pid)
        if len(pids) > WORKERS:
            for kind in KINDS:
                peaks[kind] = max(peaks[kind], sum(anonymous_bytes(pid, kind) for pid in pids))
        time.sleep(0.1)
    if process.returncode or not all(peaks.values()):
        raise SystemExit(f"fit -c {config} ended with {process.returncode}")
    return peaks


def first_batch(config: Path, positions: list[int]) -> dict[str, float]:
    """Return the milliseconds from iter() of the stream to its first batch, by position."""
    from tell_lightning.commands.check import check
    from tell_lightning.data.prepared import PreparedData
    from tell_lightning.data.stream import MicroBatches, PreparedRows, Stream
    from tell_lightning.data.tokenizer import load_tokenizer
    from tell_lightning.data.units import Place

    settings = check(["-c", str(config), "--data.num_workers=0"])
    data = PreparedData(settings.data, load_tokenizer(settings.model.base), seed=settings.seed)
    data.prepare()
    data.open()
    place = Place(0, 1, settings.data.micro_batch)
    stop = max(positions) + STEPS * settings.data.optimizer_batch
    rows = PreparedRows(data.rows)
    times: dict[int, list[float]] = {position: [] for position in positions}
    for _ in range(REPEATS):
        for position in positions:
            units = MicroBatches(data.units, place, position, stop)
            stream = Stream(lambda units=units: units, rows, total=len(units))
            started = time.perf_counter()
            next(iter(stream))
            times[position].append(1000 * (time.perf_counter() - started))
    return {f"{at:,}": round(statistics.median(each), 2) for at, each in times.items()}


def commit() -> str:
    """Return the present commit."""
    command = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> dict[str, Any]:
    """Describe the machine and the versions of packages."""
    return {
        "commit": commit(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "lightning", "datasets", "pyarrow")},
    }


def main() -> None:
    """Measure both sizes, write the results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of the large source")
    parser.add_argument("--small", type=int, default=50_000, help="rows of the small source")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tell_bench"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ.setdefault("WANDB_MODE", "disabled")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options.folder.mkdir(parents=True, exist_ok=True)
    known = json.loads(options.output.read_text())["sources"] if options.output.is_file() else {}
    measured_on = machine()
    sources = measure(options.folder, (options.small, options.rows), known)
    small, large = map(median_memory, sources.values())
    ratios = {kind: round(large[kind] / small[kind], 3) for kind in KINDS}
    results = {"machine": measured_on, "sources": sources, "large_over_small": ratios}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(list(sources.values())))
    print(f"large over small: {ratios}")


def measure(folder: Path, sizes: Sequence[int], known: Mapping[str, Any]) -> dict[str, Any]:
    """Measure a source of each size; `known` are the sources of the results file."""
    world = data_root(folder)
    rows = (world / "general/train.jsonl").read_text(encoding="utf-8").splitlines()
    words = sorted({word for row in rows[:2000] for word in json.loads(row)["output"].split()})
    words = [word for word in words if word.isalpha()]
    sources: dict[str, Any] = {}
    configs: dict[str, Path] = {}
    for count in sizes:
        name = f"rows_{count}"
        path = folder / f"{name}.jsonl"
        write_rows(path, count, words)
        configs[name] = write_config(folder, world, name)
        prepared = prepare(folder, configs[name], count)
        sources[name] = {
            "rows": count,
            "bytes": path.stat().st_size,
            "prepare": known.get(name, {}).get("prepare", {}) | prepared,
            "first_batch_ms": first_batch(configs[name], [0, count * 4 // 5]),
            "fits": [],
        }
    for _ in range(FITS):  # in turn, so that other load on the machine affects both
        for name, source in sources.items():
            source["fits"].append(fit(configs[name]))
    return sources


def median_memory(source: Mapping[str, Any]) -> dict[str, float]:
    """Return the median memory of the runs on a source, in bytes, by kind."""
    return {kind: statistics.median(run[kind] for run in source["fits"]) for kind in KINDS}


def table(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of memory.md."""
    lines = [
        "| rows | prepared in, s | rows/s | again, s | anonymous, MiB | first batch, ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for source in sources:
        prepared, memory = source["prepare"], median_memory(source)["Anonymous"] / 2**20
        batches = ", ".join(f"{ms} at {at}" for at, ms in source["first_batch_ms"].items())
        lines.append(
            f"| {source['rows']:,} | {prepared['seconds']} | {prepared['rows_per_second']:,} | "
            f"{prepared['seconds_when_prepared']} | {memory:,.0f} | {batches} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
