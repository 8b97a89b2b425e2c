"""Bases that change, families whose answers depend on the batch, training that diverges."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from robustness import Box, Outcome, Result, case, run_folder

from tell_lightning.data.base_files import base_digests
from tell_lightning.microworld.world import base_dir

ROWS = [{"prompt": f"say {word} {n}", "response": word} for n, word in enumerate("abcd")]
SIZES: dict[str, dict[str, Any]] = {
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "xlstm": {"hidden_size": 32, "num_blocks": 2, "num_hidden_layers": 2, "num_heads": 4},
}


def random_base(box: Box, family: str) -> Path:
    """Write a random model of a family, with the tokenizer of the microworld."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_dir())
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), initializer_range=0.3, **ends, **SIZES[family]
    )
    torch.manual_seed(1)
    folder = box.folder / f"{family}-base"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def configuration(box: Box, base: Path, *, attention: str = "eager") -> str:
    """Write a configuration of one task, trained alone for two steps."""
    for split in ("train", "dev", "test"):
        box.jsonl(
            f"{split}.jsonl", [{**row, "prompt": f"{split}: {row['prompt']}"} for row in ROWS]
        )
    task = {split: f"{split}.jsonl" for split in ("train", "dev", "test")}
    values = {
        "run": {"name": "mine", "dir": str(box.folder / "runs"), "checkpoint_every_steps": 1},
        "data": {
            "root": str(box.folder),
            "cache_dir": str(box.folder / "cache"),
            "tasks": {"mine": {**task, "scoring": {"kind": "text"}, "max_new_tokens": 6}},
            "general": {},
            "mixture": {"arm": "sft", "task_share": None, "task_examples": None},
            "optimizer_batch": 4,
            "micro_batch": 4,
        },
        "model": {"base": str(base), "attn_implementation": attention},
        "eval": {"before": False, "test": False, "every_steps": 1, "anchor_check": False},
        "trainer": {"max_steps": 2, "accelerator": "cpu", "devices": 1},
    }
    return str(box.write("mine.yaml", yaml.safe_dump(values)))


def refused(done: Outcome, *parts: str) -> bool:
    """Say whether a command ended with code 2 and one line that has these parts."""
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    return (
        done.code == 2
        and "Traceback" not in done.err
        and len(lines) == 1
        and all(part in lines[0] for part in parts)
    )


def record(box: Box) -> dict[str, Any]:
    """Read run.json as strict JSON, in which NaN is no number."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} in run.json")

    text = (run_folder(box) / "run.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return facts


def change_weights(base: Path) -> None:
    """Scale the weights, as another version of a model under the same path."""
    from safetensors.torch import load_file, save_file

    path = base / "model.safetensors"
    scaled = {name: value * 1.01 for name, value in load_file(path).items()}
    save_file(scaled, path, metadata={"format": "pt"})


@case(line=3, input="weights changed under the same path, then `test RUN` and `fit --resume RUN`")
def changed_weights(box: Box) -> Result:
    """Both are refused, naming both digests, until one accepts the base."""
    base = Path(shutil.copytree(base_dir(), box.folder / "base"))
    box.call("fit", "-c", configuration(box, base))
    before = base_digests(str(base))["model.safetensors"][:16]
    change_weights(base)
    digests = before, base_digests(str(base))["model.safetensors"][:16]
    run = str(run_folder(box))
    test = box.call("test", run)
    resume = box.call("fit", "--resume", run, "--trainer.max_steps=3")
    right = refused(test, *digests, "--accept-base") and refused(resume, *digests)
    accepted = box.call("test", run, "--accept-base")
    right = right and accepted.code == 0
    return Result("refused both, naming both digests; --accept-base goes on", right)


@case(line=6, input="MPT: eight prompts with a shared prefix, in one batch and one by one")
def prefix(box: Box) -> Result:
    """The prefix would change the answers; it is left out, which is said."""
    start = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    rows = box.jsonl("q.jsonl", [{"prompt": start + "x " * n} for n in range(8)])
    asked = ("predict", "--base", "-c", configuration(box, random_base(box, "mpt")))
    asked = (*asked, "--input", str(rows))
    together, alone = (box.call(*asked, f"--eval.batch_tokens={tokens}") for tokens in (100_000, 1))
    answers = [
        [json.loads(line)["prediction"] for line in done.out.splitlines()]
        for done in (together, alone)
    ]
    said = "without a shared prefix" in together.err
    right = together.code == alone.code == 0 and answers[0] == answers[1] and len(answers[0]) == 8
    return Result("the same answers, and says that no prefix is shared", right and said)


@case(line=6, input="xLSTM, whose cache fails in transformers")
def cache(box: Box) -> Result:
    """It is asked without a cache, which is said."""
    asked = ("predict", "--base", "-c", configuration(box, random_base(box, "xlstm")))
    done = box.call(*asked, "--input", "-", stdin="one prompt\nanother\n")
    right = done.code == 0 and len(done.out.splitlines()) == 2
    said = "without a cache" in done.err and "Traceback" not in done.err
    return Result("answers, and says that it does without a cache", right and said)


@case(line=7, input="a learning rate of 1e30 from the second step on, without clipping")
def diverged(box: Box) -> Result:
    """The run stops, says what to lower, and keeps the checkpoint of the first step."""
    box.call("fit", "-c", configuration(box, base_dir()), "--trainer.max_steps=1")
    last = run_folder(box) / "checkpoints/last.ckpt"
    before = last.read_bytes()
    wild = ("--model.optimizer.lr=1e30", "--trainer.gradient_clip_val=null")
    done = box.call("fit", "--resume", str(run_folder(box)), "--trainer.max_steps=9", *wild)
    right = refused(done, "finite", "model.optimizer.lr") and record(box)["status"] == "failed"
    kept = last.read_bytes() == before
    return Result("stopped with code 2, says what to lower, keeps the checkpoint", right and kept)


@case(line=9, input="a run on a CPU, and one that was resumed after its first step")
def bits(box: Box) -> Result:
    """The adapters are the same to the bit, and run.json promises it."""
    constant = "--model.optimizer.schedule=constant"  # the rate does not depend on the end
    fit = ("fit", "-c", configuration(box, base_dir()), constant)
    name = "adapter/adapter_model.safetensors"
    box.call(*fit, "--model.optimizer.warmup_share=0")
    whole = (run_folder(box) / name).read_bytes()
    shutil.rmtree(box.folder / "runs")
    box.call(*fit, "--model.optimizer.warmup_share=0", "--trainer.max_steps=1")
    box.call("fit", "--resume", str(run_folder(box)), "--trainer.max_steps=2")
    same = (run_folder(box) / name).read_bytes() == whole
    return Result(
        f"promises the {record(box)['reproducible'].split(',')[0]}, and keeps it",
        same and record(box)["reproducible"].startswith("same bits on a CPU"),
    )


@case(line=16, input="Bloom, which has no sdpa attention")
def attention(box: Box) -> Result:
    """It is refused before the folder is made, with the attention to set."""
    done = box.call("fit", "-c", configuration(box, random_base(box, "bloom"), attention="sdpa"))
    right = refused(done, "model.attn_implementation: eager")
    made = (box.folder / "runs").exists()
    return Result("refused before a folder is made; names eager", right and not made)


@case(line=16, input="Mamba with target_modules: all-linear")
def mamba(box: Box) -> Result:
    """It trains; the layer whose adapter would have no effect is left out."""
    done = box.call("fit", "-c", configuration(box, random_base(box, "mamba")))
    path = run_folder(box) / "adapter/adapter_config.json"
    targets = json.loads(path.read_text(encoding="utf-8"))["target_modules"]
    return Result("trained, without out_proj", done.code == 0 and "out_proj" not in targets)
