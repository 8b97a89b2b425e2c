"""Brings llama.cpp's own converters from the package registry, once for all exports.

The source package of `llama-cpp-python` holds llama.cpp at a fixed commit, with the scripts that
convert a model or an adapter to GGUF. pip downloads it, with the settings that it has here; it is
checked, and neither built nor installed. The scripts run in a process of their own, under this
Python with its torch and transformers, and with `sentencepiece`, which they import.

    llama.cpp/<version>-<digest>/         convert_hf_to_gguf.py, convert_lora_to_gguf.py, ...
    llama.cpp/.<version>-<digest>/        while it is made: packages and the draft
    llama.cpp/.<version>-<digest>.lock    one process makes it, others wait
"""

import os
import shutil
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from tell_lightning.errors import TellError
from tell_lightning.files import follow_umask, full_disk, in_turn
from tell_lightning.processes import run_to_end
from tell_lightning.progress import Progress

NEEDED = (
    *("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion", "gguf-py/gguf"),
    *("LICENSE", "gguf-py/LICENSE"),
)
"""What is taken out of llama.cpp: 2 MB."""
IMPORTED = "sentencepiece==0.2.3"
"""A package that the scripts import, for every model; it has a wheel for each platform."""
PACKAGES = "packages"
"""The folder of imported packages."""


@dataclass(frozen=True)
class SourcePackage:
    """A source package of the registry with llama.cpp in it."""

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"

    @property
    def inside(self) -> str:
        """Where llama.cpp lies in the package."""
        return f"{self.name.replace('-', '_')}-{self.version}/vendor/llama.cpp/"


LLAMA_CPP = SourcePackage(
    "llama-cpp-python",
    "0.3.36",
    "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
)
"""llama.cpp at commit 0c1e57098, 77 MB to download. Both are under MIT."""


class ConverterError(TellError):
    """llama.cpp's converters cannot be brought from the registry."""


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
    folder = folder_in(cache)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock")
        with in_turn(lock, "waiting for another process that brings llama.cpp's converters"):
            if not folder.is_dir():
                _make(folder, LLAMA_CPP)
    except OSError as error:
        raise _no_room(folder, full_disk(error) or error.strerror or str(error)) from error
    return folder


def _make(folder: Path, source: SourcePackage) -> None:
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    try:
        downloads, out = draft / "downloads", draft / "out"
        downloads.mkdir(parents=True)
        sys.stderr.write(
            f"llama.cpp's converters are brought from the package registry, once, to {folder}\n"
        )
        with Progress("downloading llama.cpp's converters"):
            _download(source, downloads, folder)
        _unpack(source, downloads, out)
        follow_umask(out)
        os.replace(out, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _download(source: SourcePackage, downloads: Path, folder: Path) -> None:
    """Have pip download both packages; of the source package it checks the digest itself."""
    if find_spec("pip") is None:
        raise ConverterError(
            f"--format gguf: needs pip to bring llama.cpp's converters, got a Python without it "
            f"({sys.executable}). Run {sys.executable} -m ensurepip, or copy {folder} from a "
            "machine that has it."
        )
    asked = downloads / "source.txt"
    asked.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    pip = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--progress-bar=off"),
        *("--no-input", "--disable-pip-version-check", "--dest", str(downloads)),
    ]
    for words in (
        [f"--no-binary={source.name}", "--requirement", str(asked)],
        ["--only-binary=:all:", IMPORTED],
    ):
        said = run_to_end([*pip, *words], {"TMPDIR": str(downloads)})
        if said is None:
            continue
        if reason := full_disk(OSError(said)):
            raise _no_room(folder, reason)
        raise ConverterError(
            f"--format gguf: llama.cpp's converters must come from the package registry on first "
            f"use ({source.requirement}), got from pip: {_pip_error(said)}. Check the network and "
            f"`pip config list`, or copy {folder} from a machine that has it."
        )


def _pip_error(said: str) -> str:
    """Return what pip gives as the reason."""
    if "DO NOT MATCH THE HASHES" in said:
        return "a file of that name with another SHA-256"
    lines = said.strip().splitlines() or ["nothing"]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (errors or lines)[-1].removeprefix("ERROR: ").rstrip(".")


def _unpack(source: SourcePackage, downloads: Path, out: Path) -> None:
    """Take out the scripts, and the package that they import."""
    (archive,) = downloads.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        for member in packed:
            name = member.name.removeprefix(source.inside)
            if name != member.name and _is_needed(name) and (file := packed.extractfile(member)):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).write_bytes(file.read())
    (wheel,) = downloads.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed_wheel:
        packed_wheel.extractall(out / PACKAGES)


def _is_needed(name: str) -> bool:
    path = PurePosixPath(name)
    return any(path.is_relative_to(part) for part in NEEDED)


def _no_room(folder: Path, reason: str) -> ConverterError:
    return ConverterError(
        f"--format gguf: llama.cpp's converters must be written once, 0.2 GB in {folder.parent}, "
        f"got: {reason}. Free some room, or set XDG_CACHE_HOME to another folder."
    )
