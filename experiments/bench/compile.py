"""When compiling the decoder layer pays (`model.compile`).

    python experiments/bench/compile.py                        the demo's base, and 7M: one thread
    python experiments/bench/compile.py --bases 1.5B --gpu --bins 8 --micro 8 --tokens 2048
    python experiments/bench/compile.py --readme               only the tables of compile.md

Both ways train the same packed rows: forward and backward passes as `TellModule` computes them,
and a step of AdamW. They take turns, step by step. On a CPU, seconds are those of the processor,
compilers included, which other load on the machine changes less than those of a clock; on a GPU
they are those of the clock. Nothing that was compiled before is used; the second time, PyTorch
finds the machine code on the disk, as the next run on the same machine does.

Writes `results/compile.json` and the tables of `compile.md`, base by base.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from environments import ROOT
from lightning.fabric.utilities import move_data_to_device
from train import put, rows_of
from train_tables import spread, table
from trainers.job import IGNORE, Job
from trainers.shapes import SHAPES, made

from tell_lightning.callbacks.run_record import git_state, machine, versions
from tell_lightning.data.batches import Batch, Item, collate, indexed
from tell_lightning.model.attention import use_packed_kernel
from tell_lightning.model.loss import token_losses
from tell_lightning.model.module import TellModule

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results/compile.json", HERE / "compile.md"
COLUMNS = (
    "tokens a step",
    "compiling, s",
    "the next run, s",
    "a step without, s",
    "with, s",
    "speed with over without",
    "pays from step",
    "the next run",
)


def main() -> None:
    """Measure, and write results and tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--bases", default="microworld,7M", help="microworld, or shapes of train.py"
    )
    parser.add_argument("--bins", type=int, default=2, help="bins of an optimizer step")
    parser.add_argument("--micro", type=int, default=1, help="bins of a forward pass")
    parser.add_argument("--tokens", type=int, default=512, help="of a bin")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each way")
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--readme", action="store_true")
    given = parser.parse_args()
    for base in () if given.readme else given.bases.split(","):
        found = measure(given, base)
        results = read(given.out)
        results["gpu" if given.gpu else "cpu"][base] = found
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results = read(given.out)
    if given.out.resolve() != RESULTS:
        print(*map(block, results.values()), sep="\n\n")
        return
    text = PAGE.read_text(encoding="utf-8")
    for name, cases in results.items():
        text = put(text, name, block(cases))
    PAGE.write_text(text, encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read the results, if there are any."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {"cpu": {}, "gpu": {}, **found}


def measure(given: argparse.Namespace, base: str) -> dict[str, Any]:
    """Measure one base."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "compiled")
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        shape = base if base in SHAPES else None
        job = Job(
            base=str(folder / "base") if shape else base,
            rows=rows_of(given.data if shape else None, folder),
            folder=name,
            capacity=given.tokens,
            batch=given.bins,
            micro=given.micro,
            steps=2 + given.rounds,
            warm=2,
            lr=1e-4,
            rank=16,
            device="cuda" if given.gpu else "cpu",
            bfloat16=given.gpu,
            checkpointing=False,
            log_every=1,
            gate=False,
        )
        job = made(job, shape)
        steps = list(batches(job))
        found = both(job, steps, given.dropout)
    tokens = [sum(int((batch.examples >= 0).sum()) for batch in step) for step in steps]
    return {
        **found,
        "tokens": tokens[job.warm :],
        "job": {key: vars(job)[key] for key in ("capacity", "batch", "micro", "rank", "bfloat16")},
        "dropout": given.dropout,
        "machine": machine(),
        "versions": versions(),
        "git": git_state(),
    }


def batches(job: Job) -> Iterator[list[Batch]]:
    """Yield the micro-batches of each step."""
    bins = [
        [Item(ids, [label != IGNORE for label in labels], 0, 0, 0) for ids, labels in members]
        for members in job.bins()
    ]
    for start in range(0, len(bins), job.batch):
        step = bins[start : start + job.batch]
        micro = (step[at : at + job.micro] for at in range(0, job.batch, job.micro))
        yield [move_data_to_device(indexed(collate(each)), job.device) for each in micro]


def both(job: Job, steps: Sequence[list[Batch]], dropout: float) -> dict[str, Any]:
    """Train with and without, in turns, then with once more in a process that compiles again."""
    ways = {name: Way(job, dropout, compiled=name == "with") for name in ("without", "with")}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, list[float]] = {name: [] for name in ways}
    for number, step in enumerate(steps):
        for name in sorted(ways, reverse=bool(number % 2)):
            took, loss = ways[name].step(step)
            seconds[name].append(took)
            losses[name].append(loss)
            print(f"step {number + 1} {name}: {took:.2f} s, loss {loss:.4f}", flush=True)
    del ways
    torch._dynamo.reset()
    again = Way(job, dropout, compiled=True).step(steps[0])[0]
    print(f"the next run: {again:.2f} s", flush=True)
    # A first step is compared with a later one: the first one without warms up more than a step.
    usual = statistics.median(seconds["with"][job.warm :])
    return {
        "seconds": {name: values[job.warm :] for name, values in seconds.items()},
        "compiling": sum(seconds["with"][: job.warm]) - job.warm * usual,
        "compiling_again": again - usual,
        "losses": losses,
    }


class Way:
    """One way to train, with or without compiled layers."""

    def __init__(self, job: Job, dropout: float, *, compiled: bool) -> None:
        """Load the base and put the adapters on it, with the kernel of packed rows."""
        self.job = job
        module = TellModule(
            base=job.base,
            dtype="bfloat16" if job.bfloat16 else "float32",
            compile=compiled,
            lora={"rank": job.rank, "alpha": 2 * job.rank, "dropout": dropout},
            optimizer={"lr": job.lr},
        )
        with torch.device(job.device):
            module.configure_model()
        self.model = module.model.to(job.device).train()
        with self.precision():
            use_packed_kernel(self.model, job.device)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=job.lr, fused=job.device == "cuda" or None)

    def precision(self) -> Any:
        """Return the context of the passes."""
        if self.job.bfloat16:
            return torch.autocast(self.job.device, torch.bfloat16)
        return nullcontext()

    def step(self, batches: Sequence[Batch]) -> tuple[float, float]:
        """Take an optimizer step; return its seconds and the loss of a token."""
        began = now(self.job.device)
        torch.manual_seed(0)
        total, count = torch.zeros((), device=self.job.device), 0
        for batch in batches:
            with self.precision():
                losses, _ = token_losses(self.model, batch)
            loss = losses.sum()
            loss.backward()
            total += loss.detach()
            count += len(losses)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return now(self.job.device) - began, float(total) / count


def now(device: str) -> float:
    """Read the clock of a GPU's host, or the processor time of this process and its compilers."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def block(cases: dict[str, Any]) -> str:
    """Return the table of some cases, and how they were measured."""
    if not cases:
        return "Not measured yet."
    rows = []
    for base, case in cases.items():
        without, compiled = case["seconds"]["without"], case["seconds"]["with"]
        ratios = sorted(one / other for one, other in zip(without, compiled, strict=True))
        saved = statistics.median(without) - statistics.median(compiled)
        rows.append(
            [
                base,
                f"{statistics.mean(case['tokens']):,.0f}",
                f"{case['compiling']:.0f}",
                f"{case['compiling_again']:.0f}",
                f"{statistics.median(without):.2f}",
                f"{statistics.median(compiled):.2f}",
                spread(ratios),
                *(pays(case[key], saved) for key in ("compiling", "compiling_again")),
            ]
        )
    case = list(cases.values())[-1]
    job, about = case["job"], case["machine"]
    facts = (
        f"{job['batch']} bins of {job['capacity']:,} tokens a step, {job['micro']} in a pass, "
        f"{len(case['tokens'])} timed steps; rank {job['rank']}, dropout {case['dropout']}, "
        f"{'bfloat16' if job['bfloat16'] else 'float32'}; "
        f"{', '.join(about['gpus']) or about['processor'] + ', one thread'}; "
        f"torch {case['versions']['torch']}; commit {case['git']['commit'][:10]}."
    )
    return f"{table(COLUMNS, rows)}\n\n{facts}"


def pays(compiling: float, saved: float) -> str:
    """Return the step from which compiling has saved time.

    >>> pays(30.0, 0.1), pays(30.0, -0.1)
    ('300', 'never')
    """
    return f"{max(1.0, compiling / saved):,.0f}" if saved > 0 else "never"


if __name__ == "__main__":
    main()
