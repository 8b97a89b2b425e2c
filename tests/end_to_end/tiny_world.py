"""A Hugging Face folder with random weights, and small data: what a run needs, in a second.

`python tests/end_to_end/tiny_world.py FOLDER TEXT.jsonl...` writes the base alone, its tokenizer
trained on the text of the given files.
"""

import io
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from tell_lightning.microworld.tokenizer import save_tokenizer, train_tokenizer

ANCHOR = "This text is in Tuvan and needs to be translated into English."
PREFIX = "Here it is: "
JUDGE = "You judge answers. Write JSON."
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
WORDS = [*NUMBERS, "red", "blue", "green", "small", "large", "round"]


@dataclass(frozen=True)
class World:
    """A base, data and the configuration of a run over them."""

    folder: Path
    base: Path
    config: Path

    @property
    def overlay(self) -> list[str]:
        """The options that every command of a test begins with."""
        return ["-c", str(self.config)]


def make_base(folder: Path, texts: Iterable[str], *, vocab_size: int = 400) -> Path:
    """Write a Llama of two layers with random weights, and a byte-level BPE tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(texts, vocab_size)
    save_tokenizer(tokenizer, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_max_length"] = 8192
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        initializer_range=0.3,  # far from uniform, so that the best token is clear
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_world(folder: Path) -> World:
    """Write the base, two tasks, general data and the configuration."""
    data = folder / "data"
    data.mkdir(parents=True)
    turn = [{"query": " ".join(_words(n)), "response": " ".join(_words(n)[::-1])}
                 for n in range(60)]  # fmt: skip
    verdict = [
        {"prompt": f"{' '.join(_words(n))} is {WORDS[n % 7]}", "response": _verdict(n)}
        for n in range(60)
    ]
    general = [
        {"instruction": f"Write {n}.", "input": " ".join(_words(n)), "output": f"It is {n}."}
        for n in range(308)
    ]
    for name, rows in (("turn", turn), ("verdict", verdict)):
        _write(data / f"{name}-train.jsonl", rows[:16])
        _write(data / f"{name}-dev.jsonl", rows[16:20])
        _write(data / f"{name}-test.jsonl", rows[20:44])
    _write(data / "general.jsonl", general[:300])
    _write(data / "held_out.jsonl", general[300:])
    base = make_base(folder / "base", [json.dumps(row) for row in [*turn, *verdict, *general]])
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(_config(folder, base)))
    return World(folder, base, config)


def _config(folder: Path, base: Path) -> dict[str, Any]:
    def splits(name: str) -> dict[str, str]:
        return {split: f"{name}-{split}.jsonl" for split in ("train", "dev", "test")}

    tasks = {
        "turn": {
            **splits("turn"),
            "fields": {"prompt": "query", "response": "response"},
            "anchor": {"text": ANCHOR, "response_prefix": PREFIX},
            "scoring": {"kind": "translation", "floors": {"copy_source": {"field": "query"}}},
            "max_new_tokens": 8,
        },
        "verdict": {
            **splits("verdict"),
            "anchor": {"text": JUDGE, "position": "suffix"},
            "scoring": {"kind": "judge", "floors": {"always_no": {"text": _verdict(1)}}},
            "max_new_tokens": 8,
        },
    }
    general = {
        "writing": {
            "train": "general.jsonl",
            "held_out": "held_out.jsonl",
            "fields": {"prompt": "instruction", "input": "input", "response": "output"},
        }
    }
    return {
        "run": {"name": "tiny", "dir": str(folder / "runs")},
        "data": {
            "root": str(folder / "data"),
            "cache_dir": str(folder / "cache"),
            "tasks": tasks,
            "general": general,
            "mixture": {"task_share": 0.25, "task_examples": 6},
            "optimizer_batch": 4,
            "micro_batch": 2,
        },
        "model": {
            "base": str(base),
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.2},
            "optimizer": {"lr": 0.05, "schedule": "constant", "warmup_share": 0.0},
        },
        "eval": {"every_steps": 2},
        "trainer": {"max_steps": 4, "log_every_n_steps": 1, "accelerator": "cpu", "devices": 1},
    }


def _words(n: int) -> list[str]:
    return [WORDS[(n * step + step) % len(WORDS)] for step in (1, 3, 5)] + [str(n)]


def _verdict(n: int) -> str:
    return json.dumps({"thought": f"{n}", "hallucination": ("yes", "no")[n % 2]})


def _write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class Raise(pl.Callback):
    """Ends a run at its third step as the class attribute says."""

    error: type[BaseException] = RuntimeError

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Raise."""
        if trainer.global_step == 3:
            raise self.error("on purpose")


class Slow(pl.Callback):
    """Leaves time to kill a run between two steps, as a model of a useful size does."""

    def on_train_batch_end(self, *_: Any) -> None:
        """Wait."""
        time.sleep(0.05)


class SlowWrite(Slow):
    """Stops in the midst of writing `last.ckpt` at its second time, until it is killed."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look into the writing."""
        written, save = 0, torch.save

        def half(value: Any, file: Any) -> None:
            nonlocal written
            written += Path(file.name).name == ".last.ckpt.draft"
            if written < 2:
                save(value, file)
                return
            whole = io.BytesIO()
            save(value, whole)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            time.sleep(100)

        torch.save = half


if __name__ == "__main__":
    files = [Path(name).read_text(encoding="utf-8") for name in sys.argv[2:]]
    make_base(Path(sys.argv[1]), [line for text in files for line in text.split("\n")])
