"""Compare base, adapter and merged model by lm-eval, on a local task without a network.

    python experiments/lm_eval/run.py RUN [--KEY=VALUE]...    RUN: the folder of a run that ended
    python experiments/lm_eval/run.py --readme                only the table of README.md

The commands are those that `export` prints, with another task; KEY=VALUE goes to `export`. lm-eval
has an environment of its own, build/lm_eval, which is made on first use.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tell_lightning.callbacks.run_record import git_state
from tell_lightning.export.lm_eval import PACKAGE
from tell_lightning.files import as_json, read_yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
README, RESULTS = HERE / "README.md", HERE / "results.json"
ENVIRONMENT = ROOT / "build" / "lm_eval"
TORCH = "torch==2.13.0"
TASK = "general_questions"
SEED = 0
NOISE = 1e-3
"""Difference of two log-likelihoods, in nats, below which a model has changed nothing."""

Lines = Sequence[Sequence[float]]
"""The log-likelihood of each answer of each question, in nats."""


def main() -> None:
    """Measure the three models, and write results and table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", nargs="?", type=Path)
    parser.add_argument("--readme", action="store_true")
    given, keys = parser.parse_known_args()
    if not given.readme:
        if given.run is None:
            parser.error("give RUN or --readme")
        measured, python = facts(given.run), environment()
        with tempfile.TemporaryDirectory() as folder:
            models = exported(given.run, keys, Path(folder))
            found = {
                name: measure(python, arguments, Path(folder) / f"of-{name}")
                for name, arguments in models.items()
            }
        results = compared(found) | measured
        RESULTS.write_text(as_json(results, indent=2) + "\n", encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    before, after = text.split("<!-- table -->")[0], text.split("<!-- /table -->")[1]
    table = written(json.loads(RESULTS.read_text(encoding="utf-8")))
    README.write_text(
        f"{before}<!-- table -->\n\n{table}\n\n<!-- /table -->{after}", encoding="utf-8"
    )


def environment() -> Path:
    """Return the Python of lm-eval; make its environment first if there is none."""
    python, ready = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "ready"
    if not (ready.is_file() and ready.read_text(encoding="utf-8") == PACKAGE):
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        call([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)])
        # PyTorch first: the looser request of lm-eval would bring another build of it.
        call([*pip, TORCH])
        call([*pip, TORCH, PACKAGE])
        ready.write_text(PACKAGE, encoding="utf-8")
    return python


def exported(run: Path, keys: Sequence[str], folder: Path) -> dict[str, dict[str, str]]:
    """Export a run in both forms, and return the model arguments of what is printed, by model."""
    found: dict[str, dict[str, str]] = {}
    for form in ("adapter", "merged"):
        place = ["--to", str(folder / form), "--format", form]
        printed = call([sys.executable, "-m", "tell_lightning", "export", str(run), *place, *keys])
        (line,) = re.findall(r"^lm_eval run (?:.*\\\n)*.*", printed, re.MULTILINE)
        words = shlex.split(line.replace("\\\n", " "))
        found[form] = json.loads(words[words.index("--model_args") + 1])
    base = {name: value for name, value in found["adapter"].items() if name != "peft"}
    return {"base": base, **found}


def measure(python: Path, arguments: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Run lm-eval on a model, and return its scores and the log-likelihood of each answer."""
    given = json.dumps({**arguments, "dtype": "float32"})
    call(
        [
            *(str(python), "-m", "lm_eval", "run", "--model", "hf", "--model_args", given),
            *("--apply_chat_template", "--tasks", TASK, "--include_path", str(HERE / "tasks")),
            *("--output_path", str(folder), "--log_samples", "--seed", str(SEED)),
            *("--batch_size", "8", "--device", "cpu"),
        ]
    )
    (results,) = folder.rglob("results_*.json")
    (samples,) = folder.rglob(f"samples_{TASK}_*.jsonl")
    scores = json.loads(results.read_text(encoding="utf-8"))["results"][TASK]
    lines = samples.read_text(encoding="utf-8").splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: row["doc_id"])
    return {
        "scores": {name.partition(",")[0]: value for name, value in scores.items()},
        "lines": [[float(answer[0]) for answer in row["filtered_resps"]] for row in rows],
    }


def compared(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Compare the models, and check that adapter and merged model are not the base.

    Raises:
        SystemExit: An adapter is loaded but changes nothing, as happens with lm-eval
            (lm-evaluation-harness#2432), or the merged model is more like the base than like it.
    """
    base, adapter, merged = (found[name]["lines"] for name in ("base", "adapter", "merged"))
    if largest(base, adapter) < NOISE:
        sys.exit("The adapter changes no log-likelihood: lm-eval has loaded, but not applied it.")
    if mean(merged, adapter) > mean(merged, base):
        sys.exit("The merged model is more like the base than like the adapter.")
    models = {
        name: {
            "acc": each["scores"]["acc"],
            "acc_stderr": each["scores"]["acc_stderr"],
            "acc_norm": each["scores"]["acc_norm"],
            "from_base": mean(each["lines"], base),
            "from_adapter": mean(each["lines"], adapter),
            "answers_of_base": alike(each["lines"], base),
        }
        for name, each in found.items()
    }
    return {"questions": len(base), "models": models}


def mean(one: Lines, other: Lines) -> float:
    """Return the mean difference of two models' log-likelihoods, in nats."""
    differences = _differences(one, other)
    return sum(differences) / len(differences)


def largest(one: Lines, other: Lines) -> float:
    """Return the largest difference of two models' log-likelihoods, in nats."""
    return max(_differences(one, other))


def alike(one: Lines, other: Lines) -> int:
    """Count the questions to which two models give the same answer the best log-likelihood."""
    return sum(
        max(range(len(a)), key=a.__getitem__) == max(range(len(b)), key=b.__getitem__)
        for a, b in zip(one, other, strict=True)
    )


def _differences(one: Lines, other: Lines) -> list[float]:
    pairs = zip(one, other, strict=True)
    return [abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True)]


def facts(run: Path) -> dict[str, Any]:
    """Return what was measured, with what."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return {
        "lm_eval": PACKAGE,
        "seed": SEED,
        "git": git_state(),
        "run": {
            "base": record["base"]["name"],
            "step": record["selected"]["step"],
            "seed": read_yaml(run / "config.yaml", ValueError)["seed_everything"],
            "command": record["command"],
            "git": record["git"],
            "plan_digest": record["data"]["plan_digest"],
        },
    }


def written(results: Mapping[str, Any]) -> str:
    """Write the table."""
    lines = [
        "| model | acc | acc_norm | answers of the base | nats from base | nats from adapter |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {m['acc']:.3f} ± {m['acc_stderr']:.3f} | {m['acc_norm']:.3f} | "
        f"{m['answers_of_base']} of {results['questions']} | {m['from_base']:.4f} | "
        f"{m['from_adapter']:.4f} |"
        for name, m in results["models"].items()
    ]
    run = results["run"]
    return (
        "\n".join(lines) + f"\n\n{run['base']}, the adapter after step {run['step']} (seed "
        f"{run['seed']}); {results['questions']} questions, {results['lm_eval']} (seed "
        f"{results['seed']}), float32 on a CPU, commit {results['git']['commit'][:10]}. "
        "±: lm-eval's standard error. "
        "Nats: how much the log-likelihood of an answer differs, as the mean over all answers."
    )


def call(command: Sequence[str]) -> str:
    """Run a command without a network but for package registries, and return what it prints.

    Raises:
        SystemExit: It fails.
    """
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command,
        env={**os.environ, **offline, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
