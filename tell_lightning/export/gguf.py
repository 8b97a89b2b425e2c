"""Convert a merged model, or an adapter alone, to GGUF by llama.cpp's own converters."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tell_lightning.errors import TellError
from tell_lightning.export.converters import PACKAGES
from tell_lightning.files import full_disk
from tell_lightning.processes import run_to_end

TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
"""GGUF's names of a base's own types."""
MAGIC = b"GGUF"
"""How a GGUF file begins."""
_UNKNOWN_TOKENIZER = "pre-tokenizer was not recognized"
_UNKNOWN_MODEL = re.compile(r"Model (\S+) is not supported")
_HOW = "Serve it by vLLM or transformers: --format adapter or --format merged."


class GgufError(TellError):
    """Something that cannot become GGUF."""


def check_gguf_file(path: Path) -> None:
    """Check that a file is GGUF, by its beginning.

    Raises:
        GgufError: It is missing, or something else.
    """
    try:
        with path.open("rb") as file:
            found = file.read(len(MAGIC))
    except OSError as error:
        raise GgufError(
            f"--gguf-base: must be the GGUF file of the base, got '{path}': {error.strerror}. "
            "Check the path."
        ) from error
    if found != MAGIC:
        raise GgufError(
            f"--gguf-base: must be a GGUF file, which begins with {MAGIC.decode()}, got '{path}', "
            f"which begins with {found!r}. Give the base as GGUF."
        )


def check_adapter(config: Mapping[str, Any]) -> None:
    """Check that GGUF can carry an adapter by itself.

    Args:
        config: The content of `adapter_config.json`.

    Raises:
        GgufError: A part of it would be lost.
    """
    lost = {
        "use_rslora": "a scale of alpha / sqrt(rank)",
        "use_dora": "DoRA's magnitudes",
        "lora_bias": "biases",
        "modules_to_save": "whole modules",
        "rank_pattern": "ranks of single modules",
        "alpha_pattern": "alphas of single modules",
    }
    for key, what in lost.items():
        if config.get(key):
            raise GgufError(
                f"--gguf-base: a GGUF adapter cannot carry {what}, got {key}: "
                f"{json.dumps(config[key])} in adapter_config.json. Leave --gguf-base out, which "
                "merges the adapter into the model."
            )


def check_base(converters: Path, base: Path) -> None:
    """Check that the converters know the architecture and the tokenizer of a base.

    Args:
        converters: Their folder.
        base: The folder of the base.

    Raises:
        GgufError: They do not.
    """
    with TemporaryDirectory() as place:
        out = Path(place) / "vocabulary.gguf"
        words = [str(base), "--vocab-only", "--outfile", str(out)]
        _run(converters, "convert_hf_to_gguf.py", words, base)


def convert_model(converters: Path, folder: Path, out: Path, kind: str) -> None:
    """Convert a whole model.

    Args:
        converters: The folder of llama.cpp's converters.
        folder: The model, as `save_pretrained` writes it, with tokenizer and chat template.
        out: The GGUF file to write.
        kind: GGUF's name of the type of the weights: f32, f16, bf16 or q8_0.

    Raises:
        GgufError: The converter does not know the model, or fails.
    """
    words = [str(folder), "--outfile", str(out), "--outtype", kind]
    _run(converters, "convert_hf_to_gguf.py", words, folder)


def convert_adapter(converters: Path, adapter: Path, base: Path, out: Path) -> None:
    """Convert an adapter alone; its weights stay float32.

    Args:
        converters: The folder of llama.cpp's converters.
        adapter: The folder that PEFT has written.
        base: The folder of the base, of which only the configuration is read.
        out: The GGUF file to write.

    Raises:
        GgufError: The converter does not know the model, or fails.
    """
    words = [str(adapter), "--base", str(base), "--outfile", str(out), "--outtype", "f32"]
    _run(converters, "convert_lora_to_gguf.py", words, base)


def _run(converters: Path, script: str, words: list[str], model: Path) -> None:
    command = [sys.executable, str(converters / script), *words]
    changes = {
        "PYTHONPATH": str(converters / PACKAGES),
        "PYTHONWARNINGS": "ignore",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    said = run_to_end(command, changes)
    if said is None:
        return
    if _UNKNOWN_TOKENIZER in said:
        raise GgufError(
            "--format gguf: the base must have a tokenizer that llama.cpp knows, got one that its "
            f"converter does not recognise, in '{model}'. {_HOW}"
        )
    if unknown := _UNKNOWN_MODEL.search(said):
        raise GgufError(
            "--format gguf: the base must have an architecture that llama.cpp knows, got "
            f"{unknown.group(1)}, in '{model}'. {_HOW}"
        )
    lines = said.strip().splitlines() or ["it was killed, perhaps for lack of memory"]
    reason = full_disk(OSError(said)) or lines[-1].strip().rstrip(".")
    raise GgufError(
        f"--format gguf: llama.cpp's {script} must convert '{model}', got: {reason}. {_HOW}"
    )
