"""Convert a GGUF file to a Hugging Face folder in bfloat16; runs as a script, in its own process.

    python convert.py READER SOURCE OUT     the package `gguf` lies in READER

transformers reads the file, but refuses to save what it read, because the file is quantised. So the
weights are put into a new model of the same configuration.
"""

import json
import sys
from pathlib import Path
from typing import Any

OF_THIS_MACHINE = ("_model_name_or_path", "transformers_version")
"""Keys of config.json that another version would write otherwise: the same base, another digest."""


def convert(source: Path, out: Path) -> None:
    """Write model and tokenizer.

    Args:
        source: The GGUF file.
        out: The folder.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    place = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    read = auto.from_pretrained(**place, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = auto.from_config(config).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(**place).save_pretrained(out)
    path = out / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in values.items() if key not in OF_THIS_MACHINE}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    reader, source, out = sys.argv[1:]
    sys.path.insert(0, reader)
    convert(Path(source), Path(out))
