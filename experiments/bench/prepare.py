"""Measure how many rows a second become tokens: ours, ours at an earlier commit, and TRL.

    python experiments/bench/prepare.py --data DATA --base BASE [--rows 20000] [--before COMMIT]

DATA holds general/natural_instructions_large; BASE is the base whose tokenizer and chat template
are used. Contenders take turns, each in a process of its own. Ours reads the file, checks every
row and writes the cache. TRL gets rows that are in memory already, and runs the preparation of its
`SFTTrainer`; it is installed into an environment of its own beside the packages of this one.
Writes `results/prepare.json` and the table of `prepare.md`.
"""

import argparse
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS, PAGE = HERE / "results/prepare.json", HERE / "prepare.md"
ROWS = "general/natural_instructions_large/natural_instructions.jsonl.gz"
MAX_TOKENS = 1024
START, END = "<!-- prepare -->", "<!-- /prepare -->"


def ours(folder: Path, base: str) -> dict[str, Any]:
    """Prepare a general source as `prepare` does, and return how long it took."""
    from tell_lightning.data import store
    from tell_lightning.data.preparation import Preparation, training_sources
    from tell_lightning.data.records import Fields
    from tell_lightning.data.settings import DataSettings, General
    from tell_lightning.data.splits import read_splits
    from tell_lightning.data.templates import Renderer
    from tell_lightning.data.tokenizer import load_tokenizer
    from tell_lightning.data.tokens import Encoder

    fields = Fields(prompt="instruction", input="input", response="output", id="id")
    source = General(train="rows.jsonl", fields=fields, overlong="drop")
    cache = tempfile.mkdtemp(dir=folder)
    settings = DataSettings(
        root=str(folder), cache_dir=cache, max_tokens=MAX_TOKENS, general={"rows": source}
    )
    tokenizer = load_tokenizer(base)
    began, cpu = time.perf_counter(), cpu_seconds()
    sources = training_sources(settings, read_splits(settings))
    made = Preparation(settings, Encoder(tokenizer, Renderer(tokenizer)))
    made.prepare(sources)
    spent = {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - cpu}
    found = store.load(made.folder(sources[0]))
    return {**spent, "rows": len(found.rows), "tokens": int(found.lengths.tokens.sum())}


def trl(folder: Path, base: str, processes: int | None) -> dict[str, Any]:
    """Let an `SFTTrainer` of TRL prepare the rows, and return how long that took."""
    from datasets import Dataset, disable_progress_bars
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    from tell_lightning.data.tokenizer import load_tokenizer

    disable_progress_bars()
    tokenizer = load_tokenizer(base)
    rows = []
    for line in (folder / "rows.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        prompt = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
        turns = [{"role": "user", "content": prompt}]
        answer = [{"role": "assistant", "content": row["output"]}]
        rows.append({"prompt": turns, "completion": answer})
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1,
    )  # fmt: skip
    spent: dict[str, Any] = {}
    prepare = SFTTrainer._prepare_dataset

    def timed(*given: Any, **options: Any) -> Any:
        began, cpu = time.perf_counter(), cpu_seconds()
        made = prepare(*given, **options)
        spent.update(seconds=time.perf_counter() - began, cpu=cpu_seconds() - cpu)
        spent.update(rows=len(made), tokens=sum(map(len, made["input_ids"])))
        return made

    SFTTrainer._prepare_dataset = timed
    SFTTrainer(
        model=LlamaForCausalLM(config),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(dir=folder),
            max_length=MAX_TOKENS,
            dataset_num_proc=processes,
            report_to="none",
            use_cpu=True,
            bf16=False,
        ),
    )
    return spent


def cpu_seconds() -> float:
    """Return the processor time of this process and of those that it has waited for."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def trl_python(folder: Path) -> Path:
    """Make an environment with TRL on top of the packages of this one; return its Python."""
    python = folder / "trl/bin/python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "trl")], check=True)
        (site,) = (folder / "trl").glob("lib/python*/site-packages")
        paths = [path for path in sys.path if path.endswith("site-packages")]
        (site / "packages.pth").write_text("\n".join(paths) + "\n")
    command = [str(python), "-m", "pip", "install", "-q", "--no-deps", "trl", "accelerate"]
    subprocess.run(command, check=True)
    return python


def earlier(commit: str, folder: Path) -> Path:
    """Unpack the package as it was at a commit; return the folder to import it from."""
    packed = subprocess.run(
        ["git", "archive", commit, "tell_lightning"], cwd=ROOT, check=True, capture_output=True
    )
    target = folder / "earlier"
    target.mkdir()
    subprocess.run(["tar", "-x", "-C", str(target)], input=packed.stdout, check=True)
    return target


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run every contender in turns."""
    with gzip.open(given.data / ROWS, "rt", encoding="utf-8") as file:
        (folder / "rows.jsonl").write_text("".join(islice(file, given.rows)), encoding="utf-8")
    here = Path(sys.executable)
    peer = trl_python(folder)
    contenders = {
        "ours": (here, ROOT, ["ours"]),
        f"ours at {given.before}": (here, earlier(given.before, folder), ["ours"]),
        "TRL, `dataset_num_proc` 2": (peer, ROOT, ["trl", "--processes", "2"]),
        "TRL, as it is": (peer, ROOT, ["trl"]),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(given.rounds):
        for name, (python, package, options) in contenders.items():
            out = folder / "round.json"
            environment = {
                **os.environ,
                "PYTHONPATH": str(package),
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "HF_DATASETS_CACHE": tempfile.mkdtemp(dir=folder),
            }
            command = [str(python), __file__, "--contender", *options, "--base", given.base]
            command += ["--folder", str(folder), "--out", str(out)]
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            found[name].append(json.loads(out.read_text()))
            print(name, found[name][-1], flush=True)
    commit = ["git", "rev-parse", "--short=10", "HEAD"]
    return {
        "contenders": found,
        "rows": given.rows,
        "commit": subprocess.run(
            commit, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("tokenizers", "transformers", "datasets")}
        | {"trl": _version(peer)},
    }


def _version(python: Path) -> str:
    command = [str(python), "-c", "import importlib.metadata as m; print(m.version('trl'))"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def table(results: dict[str, Any]) -> str:
    """Return the table and what was measured; of the rounds, the fastest."""
    lines = [
        "|  | rows/s | rows per CPU second | rows | tokens | every round, s |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, rounds in results["contenders"].items():
        best = min(rounds, key=lambda each: each["seconds"])
        least = min(each["cpu"] for each in rounds)
        every = ", ".join(f"{each['seconds']:.1f}" for each in rounds)
        lines.append(
            f"| {name} | {best['rows'] / best['seconds']:,.0f} | {best['rows'] / least:,.0f} "
            f"| {best['rows']:,} | {best['tokens']:,} | {every} |"
        )
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"{results['rows']:,} rows; commit {results['commit']}; {results['cores']} cores of "
            f"{results['machine']}, load {results['load']:.1f} at the end; {versions}.",
        ]
    )


def main() -> None:
    """Measure, or be a contender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--data", type=Path)
    parser.add_argument("--base", default="microworld")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", default="29984b8")
    parser.add_argument("--readme", action="store_true", help="write the table of prepare.md anew")
    parser.add_argument("--contender", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender == "ours":
        given.out.write_text(json.dumps(ours(given.folder, given.base)))
        return
    if given.contender == "trl":
        given.out.write_text(json.dumps(trl(given.folder, given.base, given.processes)))
        return
    if not given.readme:
        with tempfile.TemporaryDirectory() as folder:
            results = measure(given, Path(folder))
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    page = PAGE.read_text()
    before, after = page.split(START)[0], page.split(END)[1]
    shown = table(json.loads(RESULTS.read_text()))
    PAGE.write_text(f"{before}{START}\n\n{shown}\n\n{END}{after}")


if __name__ == "__main__":
    main()
