"""Files of experiments, and what stands for `fit` in the processes that run their cells."""

import os
import time
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.commands.cell import CellWork
from tell_lightning.experiment.cells import Cell

BASE = {
    "data": {"optimizer_batch": 16, "mixture": {"task_share": 0.25}},
    "model": {"base": "microworld", "optimizer": {"lr": 0.004}},
    "trainer": {"max_steps": 100},
}
TESTBEDS = {
    "translate": {
        "task": "translate",
        "score": "bleu",
        "chance": 3,
        "config": {"data": {"tasks": {"translate": {"test": "test.jsonl"}}}},
    },
    "compose": {"task": "compose", "score": "exact_match", "chance": 0, "config": {}},
}
ARMS: dict[str, Any] = {
    "tell": {"label": "TELL", "set": {"data.mixture.arm": "tell"}},
    "sft": {"label": "SFT", "set": {"data.mixture.arm": "sft"}},
    "general_only": {"label": "general only", "set": {"data.mixture.arm": "general_only"}},
    "best": {"label": "tuned", "tuned": "tell", "set": {"data.mixture.arm": "tell"}},
    "base": {"label": "base"},
}
BASES: dict[str, Any] = {
    "plain": {"pretrain": {"knowledge": 0.0}},
    "general": {"tuned": {"trainer.max_steps": 7}},
}
EXPERIMENT: dict[str, Any] = {
    "title": "First",
    "claim": "One is better.",
    "refuted_by": "It is not.",
    "rule": {"kind": "same_data", "n": [10], "at_least": 1, "equivalence": 1.0},
    "cells": [{"testbeds": ["translate"], "arms": ["tell", "sft"], "n": [10], "seeds": 2}],
}


def write_shared(root: Path) -> None:
    files = {"base": BASE, "testbeds": TESTBEDS, "arms": ARMS, "bases": BASES}
    for name, values in files.items():
        _write(root / f"{name}.yaml", values)


def write_experiment(folder: Path, **changes: Any) -> Path:
    """Write one; None takes a key away."""
    values = {key: value for key, value in (EXPERIMENT | changes).items() if value is not None}
    folder.mkdir(exist_ok=True)
    _write(folder / "experiment.yaml", values)
    return folder


def _write(path: Path, values: Any) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def result_of(cell: Cell, digest: str, **changes: Any) -> dict[str, Any]:
    """A completed result as far as the runner looks at it."""
    score = {"bleu": 10.0 + cell.seed, "exact_match": 0.5}
    return {
        "name": cell.name,
        "cell": cell.facts,
        "status": "completed",
        "reason": None,
        "config_digest": digest,
        "score": "bleu",
        "test": {"values": score, "loss": 1.0, "items": {"statistic": "bleu", "rows": [[1] * 10]}},
        "tokens": {"task": 10, "general": 20},
        "dev": {"values": score, "loss": 1.0},
        "seconds": 2.0,
        **changes,
    }


def trains_nothing(work: CellWork) -> dict[str, Any]:
    """Stand for `run_cell`: what happens to a cell stands in its learning rate."""
    lr = work.config["model"]["optimizer"]["lr"]
    if lr == "crash":
        print("about to crash")
        os._exit(7)
    if lr == "slow":
        time.sleep(60)
    if lr == "wrong":
        raise ValueError("a mistake in a library")
    return result_of(work.cell, work.digest) | work.facts
