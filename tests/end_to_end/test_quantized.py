"""A run on a base of 4 bits a weight, through the commands."""

import importlib.util
import json
import re
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
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


def test_merging_says_what_the_base_in_four_bits_and_its_own_weights_differ_by(
    fit: Fits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = fit("--eval.test=false", "--model.quantize=nf4", "--trainer.max_steps=2")
        capsys.readouterr()
        main(["export", str(run.folder), "--to", str(tmp_path / "whole"), "--format", "merged"])
    printed = capsys.readouterr().out
    assert "Merged: the adapter was trained on weights in nf4" in printed
    assert re.search(r"Merged: \d+ of 48 answers are those of base and adapter", printed)
    assert "quantization_config" not in json.loads((tmp_path / "whole/config.json").read_text())
    adapter = load_file(run.folder / "adapter/adapter_model.safetensors")
    old, new = (
        load_file(folder / "model.safetensors")
        for folder in (Path(run.record["base"]["name"]), tmp_path / "whole")
    )
    key = "model.layers.0.mlp.up_proj"
    parts = [adapter[f"base_model.model.{key}.lora_{which}.weight"] for which in "BA"]
    update = parts[0] @ parts[1] * 2  # alpha 8, rank 4
    assert torch.equal(new[f"{key}.weight"], old[f"{key}.weight"] + update)
