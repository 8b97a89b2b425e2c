"""Hold what `plan --measure` says against what the run then takes.

    python experiments/bench/price.py            the demo, 100 steps; minutes on a quiet core
    python experiments/bench/price.py --readme   only the table of price.md

The run is measured before and after it is done, since the load of a machine changes: the forecast
of seconds is the mean of the two, and both are shown. All else is measured before. Set-up is not
part of either.

Writes `results/price.json` and `price.md`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tell_lightning.callbacks.run_record import git_state, machine
from tell_lightning.commands.check import check
from tell_lightning.commands.price import measured, price
from tell_lightning.data.prepared import PreparedData
from tell_lightning.data.tokenizer import load_tokenizer

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results/price.json", HERE / "price.md"


def main() -> None:
    """Measure, and write the results and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows", type=int, default=40, help="test rows of each task")
    parser.add_argument("--readme", action="store_true")
    given = parser.parse_args()
    if not given.readme:
        with tempfile.TemporaryDirectory() as folder:
            options = [
                "--trainer.accelerator=cpu",
                f"--trainer.max_steps={given.steps}",
                f"--eval.test_rows={given.rows}",
                f"--run.dir={folder}",
            ]
            RESULTS.write_text(json.dumps(measure(options), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


def measure(options: Sequence[str]) -> dict[str, Any]:
    """Measure a run of the demo, do it, and measure it again."""
    first = forecast(options)
    done = actual(options)
    return {
        "options": [each for each in options if not each.startswith("--run.dir")],
        "forecasts": [first, forecast(options)],
        "actual": done,
        "git": git_state(),
        "machine": machine(),
    }


def forecast(options: Sequence[str]) -> dict[str, float]:
    """Return what `plan --measure` says, by row of the table."""
    config = check(["-c", "microworld", *options])
    data = PreparedData(config.data, load_tokenizer(config.model.base), seed=config.seed)
    data.prepare()
    data.open()
    found = price(measured(config), data, config)
    return {
        "training, s": found["training"]["seconds"],
        "scoring, s": found["scoring"]["seconds"],
        "peak memory, MiB": max(found["memory"]["training"], found["memory"]["scoring"]) / 2**20,
        **{f"{name}, MB": size / 1e6 for name, size in found["disk"]["parts"].items()},
    }


def actual(options: Sequence[str]) -> dict[str, float]:
    """Do the run; return what it took, by row of the table."""
    command = [sys.executable, "-m", "tell_lightning", "fit", "-c", "microworld", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    parent = next(each.partition("=")[2] for each in options if each.startswith("--run.dir"))
    (folder,) = Path(parent).iterdir()
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {
        "training, s": record["seconds"]["training"],
        "scoring, s": record["seconds"]["scoring"],
        "peak memory, MiB": record["peak_memory_bytes"] / 2**20,
        **{
            f"{name}, MB": size(folder / name) / 1e6
            for name in ("checkpoints", "adapter", "predictions")
        },
    }


def size(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def page(results: dict[str, Any]) -> str:
    """Return the text of price.md."""
    before, after = results["forecasts"]
    lines = ["| | forecast | before, after the run | the run | run over forecast |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, found in results["actual"].items():
        both = [before[name], after[name]]
        wanted = sum(both) / 2 if name.endswith(", s") else before[name]
        lines.append(
            f"| {name} | {wanted:,.1f} | {both[0]:,.1f}, {both[1]:,.1f} | {found:,.1f} | "
            f"{found / wanted:.2f} |"
        )
    about = (
        f"`fit -c microworld {' '.join(results['options'])}`; {results['machine']['processor']}, "
        f"{results['machine']['torch_threads']} thread; commit {results['git']['commit'][:10]}. "
        "On a busy machine either side may be off by half."
    )
    head = [
        "# What `plan --measure` says, and what the run takes",
        "",
        "    python experiments/bench/price.py",
        "",
        (__doc__ or "").split("\n\n")[2],
        "",
    ]
    return "\n".join([*head, *lines, "", textwrap.fill(about, 100)]) + "\n"


if __name__ == "__main__":
    main()
