"""A run on a base of 4 bits a weight, through the commands."""

import importlib.util
import json
import warnings
from pathlib import Path

import pytest
from tiny_runs import Fits
from tiny_world import World

from tell_lightning.cli import main

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("bitsandbytes") is None,
        reason="Requires: bitsandbytes (the extra quantize)",
    ),
]


def test_checkpoints_resume_and_predictions_are_as_ever(
    world: World, fit: Fits, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package, which uses what others deprecate
        rows = ("--eval.test_rows=2", "--eval.dev_rows=2", "--model.quantize=nf4")
        whole = fit(*rows, "--trainer.max_steps=4")
        run = fit(*rows, "--trainer.max_steps=2")
        main(["fit", "--resume", str(run.folder), "--trainer.max_steps=4"])
        weights = [each.folder / "adapter/adapter_model.safetensors" for each in (whole, run)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
        assert whole.record["base"] == fit(*rows[:2], "--trainer.max_steps=2").record["base"]
        assert whole.record["peak_memory_bytes"] > 0

        out = tmp_path / "answers.jsonl"
        task = ["--task", "turn", "--output", str(out), "--eval.batch_tokens=4096"]
        main(["predict", "--run", str(whole.folder), *task])
        answers = [json.loads(line)["prediction"] for line in out.read_text().splitlines()]
        step = whole.record["selected"]["step"]
        scored = whole.jsonl(f"test-turn-step-{step:06d}")
        assert answers[: len(scored)] == [row["prediction"] for row in scored]
