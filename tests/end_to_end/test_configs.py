"""Every shipped configuration is read; those of the paper run on its own files."""

import json
import os
from pathlib import Path

import pytest
from tiny_runs import Run
from tiny_world import make_base

from tell_lightning.cli import main
from tell_lightning.commands.check import check
from tell_lightning.data.sources import read_sources

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
DATA = Path(os.environ.get("TELL_DATA", ROOT.parent / "shared/data"))

needs_data = pytest.mark.skipif(
    not (DATA / "tell/dev-en-is.jsonl").is_file(), reason=f"Requires: the paper's files in {DATA}"
)


def test_there_are_configurations_to_check() -> None:
    assert len(CONFIGS) >= 7


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configuration_is_read_and_its_header_says_how_to_run_it(path: Path) -> None:
    check(["-c", str(path)])
    header = path.read_text().partition("\nrun:")[0]
    for word in ("# What:", "# Needs:", "# Time:"):
        assert word in header
    assert f"# Run:   python -m tell_lightning fit -c {path.relative_to(ROOT)}" in header


@needs_data
@pytest.mark.parametrize("name", ["en_is", "is_en", "halu"])
def test_files_of_the_paper_carry_the_anchor_and_do_not_leak(name: str) -> None:
    config = check(["-c", str(ROOT / f"configs/paper/{name}.yaml"), f"--data.root={DATA}"])
    sources = read_sources(config.data)
    rows = {"en_is": 65, "is_en": 47, "halu": 1506}[name]
    assert len(sources.test[name].records) == rows
    assert set(sources.general) == {"natural_instructions", "gsm8k", "oasst1"}
    assert set(config.data.tasks) == {name}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose byte-level BPE tokenizer has seen the general data."""
    text = (DATA / "general/gsm8k/train.jsonl").read_text().split("\n")[:1500]
    return make_base(tmp_path_factory.mktemp("real") / "base", text, vocab_size=2000)


@needs_data
@pytest.mark.long
def test_plan_of_the_papers_files_is_resolved(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-c", str(ROOT / "configs/paper/en_is.yaml"), f"--data.root={DATA}"]
    main(["plan", *options, f"--model.base={base}", f"--data.cache_dir={tmp_path}", "--show", "1"])
    shown = capsys.readouterr().out
    assert "en_is" in shown
    assert "natural_instructions" in shown


@needs_data
@pytest.mark.long
@pytest.mark.parametrize(("name", "rows"), [("is_en", 47), ("halu", 20)])
def test_fit_on_the_papers_files_scores_every_test_row(
    base: Path, tmp_path: Path, name: str, rows: int
) -> None:
    main(
        [
            "fit",
            "-c",
            str(ROOT / f"configs/paper/{name}.yaml"),
            f"--data.root={DATA}",
            f"--data.cache_dir={tmp_path / 'cache'}",
            f"--run.dir={tmp_path / 'runs'}",
            f"--model.base={base}",
            "--model.activation_checkpointing=false",
            "--trainer.precision=32-true",
            "--trainer.accelerator=cpu",
            "--trainer.max_steps=2",
            "--trainer.log_every_n_steps=1",
            "--data.optimizer_batch=4",
            f"--data.tasks.{name}.max_new_tokens=4",
            f"--eval.test_rows={rows}",
        ]
    )
    (folder,) = (tmp_path / "runs").iterdir()
    run = Run(folder)
    assert run.record["status"] == "completed"
    scores = run.record["metrics"]["test"]
    for moment in ("before", "after"):
        assert scores[moment]["tasks"][name]["values"]["rows"] == rows
    assert len({row["id"] for row in run.jsonl(f"test-{name}-base")}) == rows
    plan = json.loads((folder / "plan.json").read_text())
    if name == "is_en":
        counts = plan["inputs"]["is_en"]["counts"]
        assert counts["kept"] + counts["overlong"] == counts["read"] == 56
