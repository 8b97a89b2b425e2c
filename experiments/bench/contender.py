"""Run one contender in its own process: deliver an epoch or the rest of one, and measure it.

    python experiments/bench/contender.py ours --job '{...}' --out pass.json [--write]
        [--state STATE] [--save 1262:STATE ...]

A contender is a module with a class `Feed` (`ours`, `plain`, ...). The figures go to a JSON file,
and the order to a `.npy` file beside it. The script runs in the contender's own environment, which
needs numpy and torch, but not the package.
"""

import argparse
import json
import os
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import Job

EVERY = 0.25


def memory() -> dict[str, int]:
    """Read this process's anonymous and shared memory in bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {"anonymous": sizes["Anonymous"], "shared": sizes.get("Pss_Shmem", 0)}


@contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """Yield the peak memory, which a thread samples until the end of the body."""
    peaks = memory()
    done = threading.Event()

    def sample() -> None:
        for key, size in memory().items():
            peaks[key] = max(peaks[key], size)

    def watch() -> None:
        while not done.wait(EVERY):
            sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        sample()
        done.set()
        thread.join()


def deliver(
    module: Any, job: Job, state: Any, saves: dict[int, Path]
) -> tuple[dict[str, Any], np.ndarray]:
    """Deliver all batches to the end of the epoch.

    Args:
        module: The contender.
        job: The rows to deliver.
        state: State to resume from, or None.
        saves: Path of the state to write, by number of batches.

    Returns:
        The figures, and the order [n, 2].
    """
    after_imports = memory()["anonymous"]
    order = np.zeros((2 * job.rows, 2), np.int64)
    saving, begin = 0.0, time.perf_counter()
    feed = module.Feed(job)
    if state is not None:
        feed.load(state)
    batches = iter(feed)
    # There may be no batch: a resume may lose all the rest of the epoch.
    rows = sum(take(batch, order, 0) for batch in islice(batches, 1))
    first, first_cpu = time.perf_counter(), time.process_time()
    count, first_rows = 1, rows
    with peak_memory() as peaks:
        for batch in batches:
            rows = take(batch, order, rows)
            count += 1
            if count in saves:
                before = time.perf_counter()
                saves[count].write_bytes(pickle.dumps(feed.state()))
                saving += time.perf_counter() - before
        seconds = time.perf_counter() - first - saving
        cpu_seconds = time.process_time() - first_cpu - saving
    figures = {
        "first_batch_seconds": first - begin if rows else None,
        "rows_per_second": (rows - first_rows) / seconds,
        "rows_per_cpu_second": (rows - first_rows) / cpu_seconds,
        "anonymous_after_imports": after_imports,
        "anonymous_peak": peaks["anonymous"],
        "shared_peak": peaks["shared"],
    }
    return figures, order[:rows]


def take(batch: Any, order: np.ndarray, rows: int) -> int:
    """Write the rows of a batch into the order; return the number of rows so far."""
    identities = batch[0][:, :2].numpy()
    order[rows : rows + len(identities)] = identities
    return rows + len(identities)


def main() -> None:
    """Write the rows in the contender's own format, or deliver them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("name")
    parser.add_argument("--job", type=json.loads, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--state", type=Path)
    parser.add_argument("--save", action="append", default=[], help="BATCHES:FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    module = import_module(options.name)
    job = Job(**options.job | {"folder": Path(options.job["folder"])})
    if options.write:
        begin = time.perf_counter()
        module.write(job.folder)
        figures: dict[str, Any] = {"seconds": time.perf_counter() - begin}
    else:
        state = pickle.loads(options.state.read_bytes()) if options.state else None
        saves = {int(n): Path(path) for n, path in (text.split(":", 1) for text in options.save)}
        figures, order = deliver(module, job, state, saves)
        np.save(options.out.with_suffix(".npy"), order)
        figures["version"] = installed(module.DISTRIBUTION)
        figures["load"] = os.getloadavg()[0]
    options.out.write_text(json.dumps(figures), encoding="utf-8")


def installed(distribution: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
