"""A run folder as small as one can be, written without training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tell_lightning.data.plan import Plan, PlanSource
from tell_lightning.data.report import realise
from tell_lightning.data.tokens import Lengths

BATCH, STEPS = 4, 10
PLAN = Plan(7, (PlanSource("turn", "task", 5, 5), PlanSource("writing", "general", 50, 15)))


def scores(**values: float) -> dict[str, Any]:
    primary = "bleu" if "bleu" in values else "balanced_accuracy"
    return {"values": values, "primary": primary, "signatures": {}, "intervals": {}}


def saved_plan(plan: Plan = PLAN, *, steps: int = STEPS, batch: int = BATCH) -> dict[str, Any]:
    lengths = [Lengths(np.full(s.rows, 9), np.full(s.rows, 3)) for s in plan.sources]
    return {
        **plan.describe(),
        "steps": steps,
        "unit": "examples",
        "bins": None,
        "optimizer_batch": batch,
        "digest": "ab" * 16,
        "realised": realise(plan, plan.blocks(steps * batch), lengths),
    }


def small_record() -> dict[str, Any]:
    before = {"step": 0, "tasks": {"turn": scores(rows=8.0, bleu=1.5, bleu_lines=1.25)}}
    after = {"step": 10, "tasks": {"turn": scores(rows=8.0, bleu=47.03, bleu_lines=46.0)}}
    after["tasks"]["turn"]["intervals"] = {"bleu": [45.01, 49.05]}
    before["loss_nats_per_token"] = {"turn": 3.5, "writing": 2.0}
    after["loss_nats_per_token"] = {"turn": 0.5, "writing": 2.25}
    floors = {"turn": {"copy_source": scores(rows=8.0, bleu=0.25)}}
    both = {"before": before, "after": after, "floors": floors}
    history = [{"score": 0.01, **before}, {"score": 0.47, **after}]
    return {
        "status": "completed",
        "name": "small",
        "steps": STEPS,
        "selected": {"by": "best dev score", "step": 10, "score": 0.47},
        "metrics": {"test": both, "dev": both, "dev_history": history},
    }


CONFIG: dict[str, Any] = {
    "data": {
        "tasks": {"turn": {"train": "turn.jsonl", "scoring": {"kind": "translation"}}},
        "general": {"writing": {"train": "general.jsonl"}},
        "mixture": {"arm": "tell"},
        "optimizer_batch": BATCH,
    },
    "model": {"base": "tiny", "lora": {"rank": 4}},
    "trainer": {"log_every_n_steps": 5},
}
LOG = """step,train/loss/turn,train/loss/writing,train/lr,val/loss/writing,val/turn/bleu,val/score
0,,,,2.0,1.5,0.015
5,3.0,2.5,0.001,,,
5,,,,2.1,20.0,0.2
10,1.0,2.0,0.0005,,,
10,,,,2.25,47.0,0.47
"""
ANSWERS = {
    "test-turn-base": ["word word", "nothing", ""],
    "test-turn-step-000010": ["the blue cat", "<script>alert(1)</script>", "a dog\ud800"],
}
REFERENCES = ["the red cat", "a <b>mouse</b>", "a dog"]


def rows(answers: list[str], references: list[str]) -> str:
    return "".join(
        json.dumps({"id": f"test.jsonl:{n}", "prediction": answer, "reference": reference}) + "\n"
        for n, (answer, reference) in enumerate(zip(answers, references, strict=True), start=1)
    )


def write_run(
    folder: Path,
    *,
    config: dict[str, Any] | None = None,
    record: dict[str, Any] | None = None,
    plan: dict[str, Any] | None = None,
    log: str = LOG,
    answers: dict[str, list[str]] | None = None,
    references: list[str] = REFERENCES,
    without: tuple[str, ...] = (),
) -> Path:
    """Write the folder of the small run, but for what is given, without the files named last."""
    (folder / "predictions").mkdir(parents=True)
    files = {
        "config.yaml": yaml.safe_dump(CONFIG if config is None else config),
        "run.json": json.dumps(small_record() if record is None else record),
        "plan.json": json.dumps(saved_plan() if plan is None else plan),
        "metrics.csv": log,
    }
    for stem, texts in (ANSWERS if answers is None else answers).items():
        files[f"predictions/{stem}.jsonl"] = rows(texts, references)
    for name, text in files.items():
        if name not in without:
            (folder / name).write_text(text, encoding="utf-8")
    return folder
