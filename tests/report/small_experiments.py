"""Folders of experiments with results that were never run: learning curves with a known effect."""

import json
import math
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tell_lightning.experiment.cells import Cell, config_digest, configuration, expand
from tell_lightning.experiment.items import SCORES
from tell_lightning.experiment.results import write_result
from tell_lightning.experiment.specification import Experiment, read_experiment, rule_digests

ROWS = 24
TESTBEDS = {
    "translate": {"label": "Translate", "task": "translate", "score": "bleu", "chance": 3},
    "judge": {"label": "Judge", "task": "judge", "score": "balanced_accuracy", "chance": 50},
    "compose": {"label": "Compose", "task": "compose", "score": "exact_match", "chance": 0},
}
ARMS = {
    "tell": "TELL",
    "sft": "SFT",
    "sft_equal_steps": "SFT at TELL's steps",
    "general_only": "General only",
    "mix_without_anchor": "Mix without anchor",
    "general_then_task": "General, then task",
    "arbitrary_anchor": "Arbitrary anchor",
    "random_anchor": "Random anchor per row",
    "sft_without_anchor": "SFT without anchor",
    "late_mix": "Late mix",
    "base": "Base",
}
ALL = [*TESTBEDS]
SIZES = [10, 30, 100, 300]
SEEDS = 8
HEADLINE = [
    "general_only",
    "mix_without_anchor",
    "general_then_task",
    "arbitrary_anchor",
    "sft_equal_steps",
]
AMOUNT = {f"general_{n}": {"data.general.instructions.limit": n} for n in (30, 100, 300, 1000)}
SHARES = {f"share_{s}": {"data.mixture.task_share": s} for s in (0.05, 0.2, 0.5)}
DIAL = {
    f"parts_{name}": {"data.general.instructions.train": f"functions/parts_{name}.jsonl"}
    for name in ("none", "half", "all")
}


def cells(arms: list[str], n: list[int], seeds: int, **rest: Any) -> dict[str, Any]:
    return {"testbeds": ALL, "arms": arms, "n": n, "seeds": seeds, **rest}


FOLDERS: dict[str, dict[str, Any]] = {
    "same_data": {
        "title": "The same data, better",
        "claim": "On the same task examples TELL scores higher than tuned SFT.",
        "refuted_by": "No interval of TELL less SFT above zero.",
        "rule": {"kind": "same_data", "n": SIZES, "at_least": 3, "equivalence": 1.0},
        "cells": [cells(["tell", "sft"], SIZES, SEEDS), cells(["sft"], [1000], SEEDS)],
    },
    "anchor": {
        "title": "The anchor matters",
        "claim": "Without the anchor the same mix scores lower.",
        "refuted_by": "The whole interval of TELL less the mix without anchor below one point.",
        "rule": {
            "kind": "anchor",
            "n": 10,
            "against": "mix_without_anchor",
            "equivalence": 1.0,
        },
        "uses": ["../same_data"],
        "cells": [
            cells(HEADLINE, [10, 100], SEEDS),
            cells(["base"], [10], 1),
            cells(["random_anchor", "sft_without_anchor", "late_mix"], [10], 3),
        ],
    },
    "tenfold": {
        "title": "A tenth of the data",
        "claim": "TELL of ten examples is worth SFT of a hundred.",
        "refuted_by": "The ratio's interval ends below 3.",
        "rule": {"kind": "tenfold", "n": 10, "reproduced_from": 5, "refuted_below": 3},
        "uses": ["../same_data", "../anchor"],
        "cells": [],
    },
    "amount": {
        "title": "More general data, better",
        "claim": "The score rises with the amount of general data.",
        "refuted_by": "The largest amount scores no higher than the smallest.",
        "rule": {
            "kind": "amount",
            "n": 10,
            "arm": "tell",
            "variants": [*AMOUNT],
            "equivalence": 1.0,
        },
        "uses": ["../same_data", "../anchor"],
        "cells": [
            {**cells(["tell"], [10], SEEDS, variants=AMOUNT), "testbeds": ["translate"]},
            {**cells(["tell"], [10], 3, variants=SHARES), "testbeds": ["translate"]},
            {**cells(["tell", "general_only"], [10], 3, variants=DIAL), "testbeds": ["compose"]},
        ],
    },
    "tuning": {
        "title": "Settings",
        "claim": "No claim: steps, learning rate and task share are chosen here.",
        "refuted_by": "Nothing.",
        "rule": {"kind": "tuning"},
        "cells": [],
    },
}
CHOSEN = {
    testbed: {
        arm: {"10": {"variant": "b", "dev": 41.25, "set": {"model.optimizer.lr": 0.004}}}
        for arm in ("tell", "sft")
    }
    for testbed in ALL
}


def write_experiments(
    root: Path,
    *,
    effect: bool = True,
    folders: Mapping[str, Mapping[str, Any]] = FOLDERS,
    leave_out: Any = lambda cell: False,
    fail: Any = lambda cell: False,
) -> Path:
    """Write folders with results.

    Args:
        root: Where; it is made.
        effect: Whether the arms differ; if not, all of them are as SFT is.
        folders: What each asks.
        leave_out: Cells that have no result.
        fail: Cells that failed.
    """
    root.mkdir(parents=True, exist_ok=True)
    arms = {
        name: {
            "label": label,
            "set": {"data.mixture.arm": name} if name != "base" else {},
        }
        for name, label in ARMS.items()
    }
    shared: dict[str, Any] = {
        "base": {"trainer": {"max_steps": 125}},
        "testbeds": {name: {**facts, "config": {}} for name, facts in TESTBEDS.items()},
        "arms": arms,
    }
    for name, values in shared.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    for name, values in folders.items():
        (root / name).mkdir()
        (root / name / "experiment.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    if "tuning" in folders:
        (root / "tuning" / "chosen.json").write_text(json.dumps(CHOSEN))
    for name in folders:
        experiment = read_experiment(root / name)
        for cell in expand(experiment):
            if not leave_out(cell):
                result = failed if fail(cell) else completed
                write_result(root / name / "results", result(experiment, cell, effect=effect))
    return root


def skill(cell: Cell, *, effect: bool) -> float:
    """How well a cell does, from 0 to 1: the mean of its seeds, and its own luck."""
    examples = math.log10(max(cell.n, 1))
    gain = {
        "tell": 0.8,
        "mix_without_anchor": 0.55,
        "general_then_task": 0.72,
        "arbitrary_anchor": 0.7,
        "random_anchor": 0.3,
        "late_mix": 0.75,
        "sft_equal_steps": -0.1,
        "sft_without_anchor": -0.2,
    }.get(cell.arm, 0.0)
    amount = {"general_30": 0.2, "general_100": 0.35, "general_300": 0.6, "parts_none": 0.0}
    gain = amount.get(cell.variant or "", gain)
    middle = examples + (gain if effect else 0.0) - 1.9
    if cell.arm in {"general_only", "base"}:
        middle = -1.7 if cell.arm == "general_only" else -3
    return 1 / (1 + math.exp(-3 * middle - 0.5 * _luck(cell, "skill").normal()))


def completed(experiment: Experiment, cell: Cell, *, effect: bool) -> dict[str, Any]:
    share = skill(cell, effect=effect)
    rows = _rows(experiment.testbeds[cell.testbed].score, share, cell)
    score = experiment.testbeds[cell.testbed].score
    value = float(SCORES[score](np.sum(rows, axis=0)))
    loss = round(0.04 + 3 * (1 - share) ** 2, 6)
    test = {"values": {score: value}, "loss": loss, "items": {"statistic": score, "rows": rows}}
    steps = 30 if cell.arm == "sft" else 0 if cell.arm == "base" else 125
    mixed = cell.arm not in {"sft", "sft_equal_steps", "sft_without_anchor", "base"}
    return {
        **_facts(experiment, cell),
        "status": "completed",
        "reason": None,
        "settings": {"lr": 0.004, "task_share": 0.2, "max_steps": steps},
        "score": score,
        "test": test,
        "test_anchor_off": None,
        "dev": None,
        "floors": {"floor": {score: float(experiment.testbeds[cell.testbed].chance)}},
        "general_loss": {"before": None, "after": 0.36 + (0.04 if mixed else 0.9) * share},
        "steps": steps,
        "passes": round(steps * 16 / max(cell.n, 1), 3),
        "tokens": {"task": 80 * 16 * steps // 5, "general": 300 * steps if mixed else 0},
        "seconds": 12.5,
        "tokens_per_second": 5000.0,
    }


def failed(experiment: Experiment, cell: Cell, *, effect: bool) -> dict[str, Any]:
    return {
        **_facts(experiment, cell),
        "status": "failed",
        "reason": "OutOfMemory: <b>too</b> | large",
        "seconds": 3.0,
    }


def _facts(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    return {
        "name": cell.name,
        "cell": cell.facts,
        "rule_digest": experiment.rule_digest,
        "rules": _digests(experiment.folder),
        "config_digest": config_digest(experiment, configuration(experiment, cell)),
        "machine": {"platform": "Linux-6.1-x86_64", "processor": "x86_64, 2 cores", "gpus": []},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "versions": {"tell_lightning": "0.5.0", "torch": "2.13.0"},
        "base_sha256": "ab" * 32,
        "started": "2026-11-25T01:00:00+00:00",
    }


_digests = cache(rule_digests)


def _luck(cell: Cell, what: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{what}-{cell.name}".encode()))


def _rows(score: str, share: float, cell: Cell) -> list[list[int]]:
    luck = _luck(cell, "rows")
    ease = np.random.default_rng(7).normal(size=ROWS)  # of a row, the same for every cell
    logit = math.log(share / (1 - share))
    right = 1 / (1 + np.exp(-(logit + ease)))
    if score == "balanced_accuracy":
        hits = luck.random(ROWS) < 0.5 + 0.5 * right
        return [[int(h), 1, 0, 0] if n % 2 else [0, 0, int(h), 1] for n, h in enumerate(hits)]
    if score == "exact_match":
        return [[int(hit), 1] for hit in luck.random(ROWS) < right]
    rows = []
    for ok in right:
        words, counts = 12, []
        for order in range(4):
            counts.append(int(luck.binomial(words - order, ok ** (0.5 + 0.5 * order))))
        rows.append([*counts, *(words - order for order in range(4)), words, words])
    return rows
