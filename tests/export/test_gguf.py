"""What cannot become GGUF is refused in one line; the converters run in a process of their own."""

import json
from pathlib import Path
from typing import Any

import pytest
from messages import says

from tell_lightning.export.gguf import (
    GgufError,
    check_adapter,
    check_base,
    check_gguf_file,
    convert_adapter,
    convert_model,
)

CONVERTER = """
import json, os, sys
from pathlib import Path
import imported
asked = sys.argv[1:]
said = Path(__file__).with_name("says.txt")
if said.exists():
    sys.stderr.write(said.read_text())
    sys.exit(1)
out = Path(asked[asked.index("--outfile") + 1])
out.write_text(json.dumps(asked))
"""


@pytest.fixture
def converters(tmp_path: Path) -> Path:
    """Scripts that write what they were asked, or say what stands in says.txt."""
    folder = tmp_path / "converters"
    (folder / "packages").mkdir(parents=True)
    (folder / "packages/imported.py").write_text("")
    for name in ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py"):
        (folder / name).write_text(CONVERTER)
    return folder


def test_the_converters_are_asked_for_a_model_and_for_an_adapter(
    converters: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    convert_model(converters, tmp_path / "merged", out, "bf16")
    asked = json.loads(out.read_text())
    assert asked == [str(tmp_path / "merged"), "--outfile", str(out), "--outtype", "bf16"]
    convert_adapter(converters, tmp_path / "adapter", tmp_path / "base", out)
    asked = json.loads(out.read_text())
    assert asked[:3] == [str(tmp_path / "adapter"), "--base", str(tmp_path / "base")]
    assert asked[-2:] == ["--outtype", "f32"]
    check_base(converters, tmp_path / "base")


@pytest.mark.parametrize(
    ("said", "rule", "got"),
    [
        (
            "NotImplementedError: BPE pre-tokenizer was not recognized - update",
            "tokenizer",
            "one that",
        ),
        (
            "ERROR:hf-to-gguf:Model Mamba9ForCausalLM is not supported",
            "architecture",
            "Mamba9ForCausalLM",
        ),
        (
            "Traceback\nValueError: Can not map tensor 'x'",
            "convert",
            "ValueError: Can not map tensor",
        ),
        ("OSError: [Errno 28] No space left on device", "convert", "No space left on device"),
        ("", "convert", "it was killed"),
    ],
)
def test_what_a_converter_refuses_is_told_in_one_line(
    said: str, rule: str, got: str, converters: Path, tmp_path: Path
) -> None:
    (converters / "says.txt").write_text(said)
    with pytest.raises(
        GgufError, check=says("--format gguf", rule=rule, got=got, cure="--format merged")
    ):
        check_base(converters, tmp_path / "base")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_rslora", True),
        ("use_dora", True),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 4}),
        ("alpha_pattern", {"q_proj": 4}),
    ],
)
def test_a_part_that_a_gguf_adapter_loses_is_named(key: str, value: Any) -> None:
    plain = {"r": 4, "use_rslora": False, "modules_to_save": None, "rank_pattern": {}}
    check_adapter(plain)
    with pytest.raises(
        GgufError, check=says("--gguf-base", rule="cannot carry", got=key, cure="merges")
    ):
        check_adapter(plain | {key: value})


def test_a_base_that_is_no_gguf_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "base.gguf"
    with pytest.raises(GgufError, check=says("--gguf-base", rule="GGUF", got=f"'{path}'")):
        check_gguf_file(path)
    path.write_bytes(b"GG")
    with pytest.raises(
        GgufError, check=says("--gguf-base", rule="begins with GGUF", got=f"'{path}'")
    ):
        check_gguf_file(path)
    path.write_bytes(b"GGUF3")
    check_gguf_file(path)
