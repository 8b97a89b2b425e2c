"""The configuration of a task of one's own that the README shows."""

import json
import re
from pathlib import Path

import pytest
import yaml
from tiny_models import save_llama

from tell_lightning.cli import main
from tell_lightning.commands.check import check, check_training, neutral
from tell_lightning.data.settings import DataSettings
from tell_lightning.data.splits import cache_folder
from tell_lightning.smollm2.base import folder_in

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The configuration, with the files that it names: 70 task rows and 700 general ones."""
    found = re.search(r"```yaml\n(# mine\.yaml\n.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    path = tmp_path / "mine.yaml"
    path.write_text(found[1].replace("/path/to/data", str(tmp_path)), encoding="utf-8")
    (tmp_path / "tickets").mkdir()
    for name, count in (("train", 70), ("dev", 5), ("test", 5)):
        rows = [{"prompt": f"{name} letter {n}", "response": f"ticket {n}"} for n in range(count)]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / "tickets" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    general = [{"instruction": f"Say {n}.", "input": "", "output": f"{n}"} for n in range(700)]
    text = "".join(f"{json.dumps(row)}\n" for row in general)
    (tmp_path / "general.jsonl").write_text(text, encoding="utf-8")
    return path


def test_it_sets_what_it_says_and_nothing_of_the_demo(example: Path) -> None:
    config = check(["-c", str(example)])
    check_training(config)
    stated = yaml.safe_load(example.read_text(encoding="utf-8")).get("trainer", {})
    assert config.trainer["max_steps"] == stated.get("max_steps", -1)
    assert config.data.mixture == check(["--model.base=b"], default=None).data.mixture
    for section in ("run", "eval"):
        assert config.values[section] == neutral()[section]


def test_plan_uses_every_row_of_it(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.base=microworld", f"--data.cache_dir={example.parent}"]
    main(["plan", "-c", str(example), *options, "--trainer.max_steps=2"])
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[2] for line in table if line[:2] == ["tickets", "task"]] == ["70"]


@pytest.mark.long
def test_fit_takes_it_with_the_named_chat_model(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(example.parent))
    texts = [path.read_text("utf-8") for path in example.parent.rglob("*.jsonl")]
    save_llama(folder_in(cache_folder(DataSettings())), texts)
    text = re.sub(r"base: .*", "base: smollm2", example.read_text("utf-8"))
    example.write_text(text, encoding="utf-8")
    runs = example.parent / "runs"
    steps = ("--trainer.max_steps=2", "--trainer.log_every_n_steps=1")
    main(["fit", "-c", str(example), *steps, f"--run.dir={runs}", "--eval.probe=false"])
    (run,) = runs.iterdir()
    record = json.loads((run / "run.json").read_text("utf-8"))
    assert (record["status"], record["base"]["name"]) == ("completed", "smollm2")
