"""Time four ways to answer prompts that share a prefix.

    python experiments/bench/generate.py --data ../shared/data     the Halu prompts, ten minutes
    python experiments/bench/generate.py --readme                  only the table of generate.md

A Llama with random weights answers test prompts of the paper's Halu-CoT-JSON task on one thread.
Its tokenizer is trained on the general data. All answers have the same length, so all ways generate
the same number of tokens. The ways take turns, so that a busy machine slows all of them; the
fastest round of each counts:

    row by row       transformers' `generate`, one prompt per call
    plain batches    transformers' `generate`, batches in the order of the file
    sorted batches   ours: batches by length under a budget of tokens, every prompt read completely
    shared prefix    ours, as in `fit`, `test` and `predict`: the shared prefix is read once

Writes `results/generate.json`. `configs/README.md` says where the files come from.
"""

import argparse
import json
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tell_lightning.callbacks.run_record import git_state, machine, versions
from tell_lightning.data.reading import read_records
from tell_lightning.data.records import Fields
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder
from tell_lightning.generation.batched import Budget, generate
from tell_lightning.generation.decoding import Decoding
from tell_lightning.generation.prefix import Prefix
from tell_lightning.microworld.tokenizer import save_tokenizer, train_tokenizer

HERE = Path(__file__).parent
RESULTS = HERE / "results/generate.json"
TABLE = HERE / "generate.md"
PROMPTS = "tell/test_Halu_CoT_JSON.jsonl"
GENERAL = "general/natural_instructions/natural_instructions_sample.jsonl"
BASELINE = "row by row"

Prompts = Sequence[Sequence[int]]
Answers = list[tuple[int, ...]]


def main() -> None:
    """Measure, write the results and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--width", type=int, default=384, help="of the random model, 6 layers")
    parser.add_argument("--readme", action="store_true")
    given = parser.parse_args()
    if not given.readme:
        for name in (PROMPTS, GENERAL):
            if not (given.data / name).is_file():
                sys.exit(f"--data: must hold {name}, got {given.data}. See configs/README.md.")
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(measure(given), indent=2) + "\n", encoding="utf-8")
    TABLE.write_text(table(json.loads(RESULTS.read_text("utf-8"))), encoding="utf-8")


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Answer the prompts in every way, round by round."""
    torch.set_num_threads(1)
    tokenizer = make_tokenizer(given.data / GENERAL)
    prompts = read_prompts(given.data / PROMPTS, tokenizer, given.rows)
    model = make_model(len(tokenizer), given.width)
    ways = make_ways(model, tokenizer, prompts, given.new_tokens)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Answers] = {}
    for _ in range(given.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            answers[name] = way()
            seconds[name].append(round(time.perf_counter() - started, 2))
            print(f"{name:<15} {seconds[name][-1]:8.2f} s", flush=True)
    return {
        "machine": machine(),
        "versions": versions(),
        "git": git_state(),
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
        "prompts": {
            "rows": len(prompts),
            "tokens": sum(map(len, prompts)),
            "shortest": min(map(len, prompts)),
            "longest": max(map(len, prompts)),
            "prefix": len(prefix_of(prompts).ids),
        },
        "new_tokens": given.new_tokens,
        "batch_tokens": budget(prompts, given.new_tokens),
        "seconds": seconds,
        "read": {name: tokens_read(model, way) for name, way in ways.items()},
        "same": {name: same(rows, answers[BASELINE]) for name, rows in answers.items()},
    }


def make_ways(
    model: Any, tokenizer: Any, prompts: Prompts, new_tokens: int
) -> dict[str, Callable[[], Answers]]:
    """Return the ways to answer the prompts, by name."""
    decoding = Decoding(
        stop_ids=(tokenizer.eos_token_id,), max_new_tokens=new_tokens, min_new_tokens=new_tokens
    )
    batch_tokens = budget(prompts, new_tokens)

    def ours(prefix: Prefix) -> Answers:
        options = {"budget": Budget(batch_tokens), "prefix": prefix}
        answers = generate(model, tokenizer, prompts, decoding, **options)
        return [answer.token_ids for answer in answers]

    return {
        BASELINE: lambda: plain(model, tokenizer, prompts, new_tokens, 1),
        "plain batches": lambda: plain(model, tokenizer, prompts, new_tokens, BATCH),
        "sorted batches": lambda: ours(Prefix()),
        "shared prefix": lambda: ours(prefix_of(prompts)),
    }


def prefix_of(prompts: Prompts) -> Prefix:
    """Return the shared prefix of the prompts, which the model has not read yet."""
    prefix = Prefix()
    prefix.add(prompts)
    return prefix


BATCH = 16
"""Rows of a plain batch; our budget of tokens is enough for as many of the longest prompts."""


def budget(prompts: Prompts, new_tokens: int) -> int:
    """Return the number of tokens of a plain batch of the longest prompts, answers included."""
    return BATCH * (max(map(len, prompts)) + new_tokens)


def plain(model: Any, tokenizer: Any, prompts: Prompts, new_tokens: int, rows: int) -> Answers:
    """Answer as a good script with transformers would: left padding, greedy, with a cache."""
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    answers: Answers = []
    for start in range(0, len(prompts), rows):
        batch = {"input_ids": [list(prompt) for prompt in prompts[start : start + rows]]}
        padded = tokenizer.pad(batch, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**padded, generation_config=config)
        answers += map(tuple, output[:, padded["input_ids"].shape[1] :].tolist())
    return answers


def tokens_read(model: Any, way: Callable[[], Answers]) -> int:
    """Count the tokens that the model processes, including padding and answers."""
    counted: list[int] = []
    embedding = model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda _, ids, __: counted.append(ids[0].numel()))
    way()
    hook.remove()
    return sum(counted)


def same(answers: Answers, others: Answers) -> int:
    """Count the rows with equal answers."""
    return sum(ours == theirs for ours, theirs in zip(answers, others, strict=True))


def make_tokenizer(general: Path) -> Any:
    """Train a byte-level BPE tokenizer on general instructions."""
    lines = general.read_text(encoding="utf-8").split("\n")[:3000]
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(train_tokenizer(lines, 8000), Path(folder))
        return PreTrainedTokenizerFast.from_pretrained(folder, model_max_length=4096)


def read_prompts(path: Path, tokenizer: Any, rows: int) -> Prompts:
    """Tokenise rows that are spread evenly over the file, as evaluation does."""
    records = read_records(
        path.name, fields=Fields(), root=path.parent, need_response=False
    ).records
    chosen = records[:: max(1, len(records) // rows)][:rows]
    return Encoder(tokenizer, Renderer(tokenizer)).prompt_ids(chosen)


def make_model(vocabulary: int, width: int) -> Any:
    """Make a Llama of six layers whose random weights are large enough to avoid equal logits."""
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=6,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=4096,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def table(results: dict[str, Any]) -> str:
    """Return the text of generate.md; speeds are ratios to the way "row by row"."""
    best = {name: min(rounds) for name, rounds in results["seconds"].items()}
    prompts, commit = results["prompts"], results["git"]["commit"][:10]
    lines = [
        "# Reading the shared prefix of all prompts once",
        "",
        "    python experiments/bench/generate.py --data DATA",
        "",
        "`generate.py` describes the four ways. Seconds are those of the fastest round.",
        "",
        "| way | tokens read | seconds | speed over row by row | same answers | every round, s |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, seconds in best.items():
        rounds = ", ".join(f"{value:.1f}" for value in results["seconds"][name])
        lines.append(
            f"| {name} | {results['read'][name]:,} | {seconds:.1f} | "
            f"{best[BASELINE] / seconds:.2f} | {results['same'][name]} of {prompts['rows']} | "
            f"{rounds} |"
        )
    gain = best["plain batches"] / best["shared prefix"]
    without = best["sorted batches"] / best["shared prefix"]
    paragraphs = (
        f"The way with the shared prefix is {gain:.2f} times as fast as plain batches, and "
        f"{without:.2f} times as fast as sorted batches. {prompts['rows']} prompts of "
        f"{prompts['shortest']} to {prompts['longest']} tokens; the first {prompts['prefix']} are "
        f"the same in all; {results['new_tokens']} new tokens each; budget "
        f"{results['batch_tokens']:,} tokens, plain batches of {BATCH}; "
        f"{results['parameters'] / 1e6:.1f} million parameters, float32, one thread of "
        f"{results['machine']['processor']}; commit {commit}.",
        "The prefix saves only the time of reading prompts: nearly all the time with long prompts "
        "and short answers, little with short prompts and long answers. On a GPU, `train_gpu.sh` "
        "times answers beside transformers' `generate`, without a shared prefix (train.md).",
    )
    return "\n".join([*lines, *("\n" + textwrap.fill(text, 100) for text in paragraphs)]) + "\n"


if __name__ == "__main__":
    main()
