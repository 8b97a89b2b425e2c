"""A base of 4 bits a weight beside bfloat16 and float32: loss and memory, one process each.

    python experiments/bench/quantized.py [--base DIR] [--rows 16] [--steps 4]

Needs bitsandbytes (`pip install -e '.[quantize]'`). The rows are short instructions of the demo
in English. Each process computes their loss, takes a few steps on them, and computes it again.
Writes `results/quantized.json` and prints the table of `quantized.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results/quantized.json"
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "nf4, computed in float32": {"dtype": "float32", "quantize": "nf4"},
    "nf4, computed in bfloat16": {"dtype": "bfloat16", "quantize": "nf4"},
}
LR = 3e-4


def batch_of(base: str, rows: int) -> Any:
    """Tokenise the first general rows of the demo as training does."""
    from tell_lightning.data.anchors import Example
    from tell_lightning.data.batches import Item, collate_unpacked
    from tell_lightning.data.records import Turn
    from tell_lightning.data.templates import Renderer
    from tell_lightning.data.tokenizer import load_tokenizer
    from tell_lightning.data.tokens import Encoder
    from tell_lightning.microworld.world import data_root

    with TemporaryDirectory() as folder:
        path = data_root(Path(folder)) / "general/train.jsonl"
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    english = [row for row in found if "norn" not in row["kind"]][:rows]
    tokenizer = load_tokenizer(base)
    examples = []
    for row in english:
        prompt = f"{row['instruction']}\n{row['input']}"
        turns = (Turn("user", prompt), Turn("assistant", row["output"]))
        examples.append(Example(row["id"], row["id"], turns, row))
    encoded = Encoder(tokenizer, Renderer(tokenizer)).encode(examples)
    return collate_unpacked(
        [Item(row.input_ids, row.supervised, 0, at, at) for at, row in enumerate(encoded)]
    )


def measure(base: str, name: str, rows: int, steps: int) -> dict[str, Any]:
    """Measure one variant in this process."""
    import torch
    from lightning.fabric.utilities import move_data_to_device

    from tell_lightning.memory import peak_since_reset, reset_peak, resident_bytes
    from tell_lightning.model.loss import token_losses
    from tell_lightning.model.module import TellModule

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = VARIANTS[name]
    batch = move_data_to_device(batch_of(base, rows), device)
    before = resident_bytes()
    module = TellModule(base, lora={"dropout": 0.0}, **settings)
    with device:
        module.configure_model()
    model = module.model
    frozen = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    autocast = torch.autocast(device.type, torch.bfloat16, settings["dtype"] == "bfloat16")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR)

    def loss() -> Any:
        with autocast:
            return token_losses(model, batch)[0].mean()

    reset_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses = []
    started = time.perf_counter()
    for _ in range(steps):
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(value.detach()))
    seconds = time.perf_counter() - started
    with torch.no_grad():
        losses.append(float(loss()))
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_since_reset() - before
    return {
        "weights_bytes": frozen,
        "peak_bytes": peak,
        "losses": losses,
        "seconds_per_step": seconds / steps,
        "tokens": int((batch.examples >= 0).sum()),
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
    }


def table(found: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| base | frozen weights | peak of training | loss before | after |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {each['weights_bytes'] / 2**20:,.0f} MiB | {each['peak_bytes'] / 2**20:,.0f} "
        f"MiB | {each['losses'][0]:.4f} | {each['losses'][-1]:.4f} |"
        for name, each in found.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure every variant in a process of its own, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--base", default="microworld", help="a folder, a hub id or a known name")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--only", choices=tuple(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.base, options.only, options.rows, options.steps)))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = {}
    for name in VARIANTS:
        asked = ["--only", name, "--base", options.base]
        asked += ["--rows", str(options.rows), "--steps", str(options.steps)]
        command = [sys.executable, "-W", "ignore", __file__, *asked]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, found[name], file=sys.stderr)
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
