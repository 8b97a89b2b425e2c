"""The benchmark of memory counts what it says that it counts."""

import importlib.util
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "experiments/bench/memory.py"
SPEC = importlib.util.spec_from_file_location("bench_memory", PATH)
assert SPEC is not None
assert SPEC.loader is not None
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)

MEBIBYTE = 2**20

needs_linux = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").is_file(), reason="Requires: /proc of Linux"
)


@needs_linux
def test_memory_of_its_own_counts_and_file_pages_do_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    np.save(path.with_suffix(".npy"), np.ones(32 * MEBIBYTE, dtype=np.uint8))
    before = bench.anonymous_bytes(os.getpid())
    mapped = np.load(path.with_suffix(".npy"), mmap_mode="r")
    assert mapped.sum() == 32 * MEBIBYTE
    assert bench.anonymous_bytes(os.getpid()) - before < 4 * MEBIBYTE
    # Pages of its own: the allocator would reuse what this process has freed before.
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, 32 * MEBIBYTE, flags=private) as owned:
        for _ in range(32):
            owned.write(bytes(MEBIBYTE))
        grown = bench.anonymous_bytes(os.getpid()) - before
    assert 28 * MEBIBYTE < grown < 40 * MEBIBYTE


@needs_linux
def test_the_tree_holds_children_of_children() -> None:
    code = "import subprocess, sys; subprocess.run(['sleep', '30'])"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        while len(bench.tree(child.pid)) < 2:
            assert child.poll() is None
        grandchild = bench.tree(child.pid)[1]
        assert {child.pid, grandchild} <= set(bench.tree(os.getpid()))
        os.kill(grandchild, 9)
    assert bench.tree(child.pid) == []
    assert bench.anonymous_bytes(child.pid) == 0


def test_rows_are_the_same_for_every_call(tmp_path: Path) -> None:
    for name in ("a", "b"):
        bench.write_rows(tmp_path / f"{name}.jsonl", 20, ["one", "two"])
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 20
