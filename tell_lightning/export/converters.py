"""Brings llama.cpp's own converters from the package registry, once for all exports.

The source package of `llama-cpp-python` holds llama.cpp at a fixed commit, with the scripts that
convert a model or an adapter to GGUF. They run in a process of their own, under this Python with
its torch and transformers, and with `sentencepiece`, which they import.

    llama.cpp/<version>-<digest>/    convert_hf_to_gguf.py, convert_lora_to_gguf.py, ...
"""

import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tell_lightning.errors import TellError
from tell_lightning.packages import Package, Words, bring

NEEDED = (
    *("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion", "gguf-py/gguf"),
    *("LICENSE", "gguf-py/LICENSE"),
)
"""What is taken out of llama.cpp: 2 MB."""
PACKAGES = "packages"
"""The folder of imported packages."""
LLAMA_CPP = Package(
    "llama-cpp-python",
    "0.3.36",
    "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    is_source=True,
)
"""llama.cpp at commit 0c1e57098, 77 MB to download. Both are under MIT."""
IMPORTED = Package("sentencepiece", "0.2.3")
"""A package that the scripts import, for every model; it has a wheel for each platform."""


class ConverterError(TellError):
    """llama.cpp's converters cannot be brought from the registry."""


WORDS = Words(
    refusal=ConverterError,
    where="--format gguf",
    name="llama.cpp's converters",
    brought="llama.cpp's converters are brought",
    pip_rule="needs pip to bring llama.cpp's converters",
    registry_rule="llama.cpp's converters must come from the package registry on first use "
    f"({LLAMA_CPP.requirement})",
    room="0.2 GB",
)


def folder_in(cache: Path) -> Path:
    """Return the folder of the converters, whether it exists or not."""
    return cache / "llama.cpp" / f"{LLAMA_CPP.version}-{LLAMA_CPP.sha256[:12]}"


def converters_dir(cache: Path) -> Path:
    """Return the folder of the converters, and make it if it does not exist.

    Args:
        cache: The user's cache. Several processes may call this at the same time.

    Raises:
        ConverterError: There is no pip, registry or room, or what came is not what was asked for.
    """
    return bring(folder_in(cache), [LLAMA_CPP, IMPORTED], _make, WORDS)


def _make(files: Sequence[Path], out: Path) -> None:
    """Take out the scripts, and the package that they import."""
    source, wheel = files
    inside = f"{LLAMA_CPP.stem}/vendor/llama.cpp/"
    with tarfile.open(source) as packed:
        for member in packed:
            name = member.name.removeprefix(inside)
            if name != member.name and _is_needed(name) and (file := packed.extractfile(member)):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).write_bytes(file.read())
    with zipfile.ZipFile(wheel) as packed_wheel:
        packed_wheel.extractall(out / PACKAGES)


def _is_needed(name: str) -> bool:
    path = PurePosixPath(name)
    return any(path.is_relative_to(part) for part in NEEDED)
