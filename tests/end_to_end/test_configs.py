"""Every shipped configuration is read; those of the paper run on its own files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_models import save_llama
from tiny_runs import Run

from tell_lightning.cli import main
from tell_lightning.commands.check import check
from tell_lightning.data.splits import read_splits

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(set((ROOT / "configs").rglob("*.yaml")) - set(ROOT.glob("configs/cluster/*")))
DATA = Path(os.environ.get("TELL_DATA", ROOT.parent / "shared/data"))
GENERAL = {"natural_instructions", "gsm8k", "oasst1"}

needs_data = pytest.mark.skipif(
    not (DATA / "tell/dev-en-is.jsonl").is_file(), reason=f"Requires: the paper's files in {DATA}"
)


def test_there_are_configurations_to_check() -> None:
    assert {"en_is", "is_en", "halu", "chat_7b", "sft"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_header_of_a_configuration_says_how_to_run_it(path: Path) -> None:
    header = path.read_text().partition("\nrun:")[0]
    for word in ("# What:", "# Needs:", "# Time:"):
        assert word in header
    (command,) = [line for line in header.split("\n") if line.startswith("# Run:")]
    assert command.startswith("# Run:   python -m tell_lightning fit -c configs/")
    assert f"-c {path.relative_to(ROOT)}" in command


@pytest.mark.parametrize("task", ["en_is", "is_en", "halu"])
def test_a_7b_model_on_eight_gpus_goes_on_top_of_a_task(task: str) -> None:
    config = check([f"--config={ROOT}/configs/{name}.yaml" for name in (task, "chat_7b")])
    assert set(config.data.tasks) == {task}
    assert config.model.dtype == "bfloat16"
    assert config.model.activation_checkpointing
    assert config.trainer["strategy"] == "ddp"
    assert config.trainer["precision"] == "bf16-mixed"
    assert config.data.optimizer_batch % (config.data.micro_batch * config.trainer["devices"]) == 0


# The paper's own files


@pytest.fixture(scope="module")
def halu_rows(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that name the rows rendered from HaluEval."""
    out = tmp_path_factory.mktemp("halu")
    script = [sys.executable, str(ROOT / "experiments/halueval/convert.py")]
    subprocess.run([*script, "--data", DATA, "--out", out], check=True)
    return [f"--data.tasks.halu.{split}={out / split}.jsonl" for split in ("train", "dev")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose byte-level BPE tokenizer has seen the general data."""
    folder = DATA / "general"
    texts = [
        line
        for name in ("gsm8k/train", "natural_instructions/natural_instructions_sample")
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")[:2000]
    ]
    return save_llama(tmp_path_factory.mktemp("real") / "base", texts, vocab_size=4000)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the general data are tokenised once."""
    return f"--data.cache_dir={tmp_path_factory.mktemp('cache')}"


def options(name: str, halu_rows: list[str]) -> list[str]:
    extra = halu_rows if name == "halu" else []
    return ["-c", str(ROOT / f"configs/{name}.yaml"), f"--data.root={DATA}", *extra]


@needs_data
@pytest.mark.parametrize(
    ("name", "train", "dev", "test"),
    [("en_is", 59, 12, 65), ("is_en", 44, 12, 47), ("halu", 2801, 200, 1506)],
)
def test_files_of_the_paper_carry_the_anchor_and_do_not_leak(
    name: str, train: int, dev: int, test: int, halu_rows: list[str]
) -> None:
    config = check(options(name, halu_rows))
    assert set(config.data.tasks) == {name}
    assert config.data.tasks[name].anchor.present
    sources = read_splits(config.data)
    rows = [len(pools[name].records) for pools in (sources.train, sources.dev, sources.test)]
    assert rows == [train, dev, test]
    assert set(sources.general) == GENERAL


@needs_data
@pytest.mark.long
@pytest.mark.parametrize(("name", "tokens"), [("en_is", 4096), ("is_en", 4096), ("halu", 2048)])
def test_plan_of_a_7b_chat_model_is_resolved_with_a_small_tokenizer(
    name: str,
    tokens: int,
    base: Path,
    cache: str,
    halu_rows: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The general rows suffice, too: `plan` refuses what `fit` would."""
    chat = ["-c", str(ROOT / "configs/chat_7b.yaml"), f"--model.base={base}"]
    main(["plan", *options(name, halu_rows), *chat, cache, "--show", "1"])
    shown = capsys.readouterr().out
    found = re.search(rf"bins of {tokens:,} tokens, (\d+)% full, 8 a batch", shown)
    assert found is not None
    assert int(found[1]) > 95
    assert name == "halu" or f"{name}: 12 set apart" in shown
    for source in (name, *GENERAL):
        assert source in shown


@needs_data
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "train", "dev", "test"),
    [("en_is", 71, 12, 65), ("is_en", 56, 12, 47), ("halu", 2801, 200, 30)],
)
def test_fit_on_the_papers_files_and_test_score_every_row(
    base: Path,
    cache: str,
    tmp_path: Path,
    halu_rows: list[str],
    name: str,
    train: int,
    dev: int,
    test: int,
) -> None:
    main(
        [
            "fit",
            *options(name, halu_rows),
            cache,
            f"--run.dir={tmp_path / 'runs'}",
            f"--model.base={base}",
            "--model.activation_checkpointing=false",
            "--trainer.precision=32-true",
            "--trainer.accelerator=cpu",
            "--trainer.devices=1",
            "--trainer.max_steps=2",
            "--trainer.log_every_n_steps=1",
            "--data.optimizer_batch=8",
            "--data.mixture.task_share=0.5",
            f"--data.tasks.{name}.max_new_tokens=4",
            f"--eval.test_rows={test}",
            "--eval.dev_rows=12",
            "--eval.every_steps=2",
        ]
    )
    (folder,) = (tmp_path / "runs").iterdir()
    run = Run(folder)
    assert run.record["status"] == "completed"
    assert run.record["selected"]["by"] == "best dev score"
    for moment in ("before", "after"):
        scores = run.record["metrics"]["test"][moment]["tasks"][name]["values"]
        assert scores["rows"] == test
    ids = [row["id"] for row in run.jsonl(f"test-{name}-base")]
    assert len(set(ids)) == test

    plan = json.loads((folder / "plan.json").read_text())
    counts = plan["inputs"][name]["counts"]
    assert counts["read"] == train
    set_apart = counts.get("set_apart", 0)
    assert set_apart == (0 if name == "halu" else dev)
    assert counts["kept"] + counts["overlong"] + set_apart == train
    assert plan["realised"]["sources"][name]["rows"] == counts["kept"]
    assert plan["realised"]["sources"][name]["examples"] > 1
    assert len(plan["inputs"][name]["left_out"]) == counts["overlong"]
    assert counts["overlong"] > 0 or name != "en_is"
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["data"]["max_tokens"] == (2048 if name == "halu" else 4096)

    name_of_file = f"test-{name}-step-000002"
    (folder / "predictions" / f"{name_of_file}.jsonl").unlink()
    main(["test", str(folder)])
    again = json.loads((folder / "scores-test.json").read_text())
    assert again["after"]["tasks"][name]["values"] == scores
    assert [row["id"] for row in run.jsonl(name_of_file)] == ids
