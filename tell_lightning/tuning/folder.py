"""The folder of a search: what it holds, whom it belongs to, and what it is about.

study.db                 the study, unless another storage is named
progress.json            what the study is about, the time spent, the prices
trials/, trials.csv      what came of each trial
folds/, fits/            rows of the folds; results of the fits of the verdict
best.yaml, adapter/ ...  the best configuration, and what `fit` leaves of its run
.work/                   while it runs: the folders of the trials under way
"""

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tell_lightning.errors import TellError
from tell_lightning.files import as_json, locked, write_whole

APART = ("run", "tune.seeds", "data.root", "data.cache_dir", "data.num_workers", "eval.samples")
"""Keys that a study does not depend on; where the data lie does not matter, what they are does."""


class TuneFolderError(TellError):
    """A folder that cannot be used."""


@dataclass(frozen=True)
class TuneFolder:
    """The paths in the folder of a search."""

    path: Path

    @property
    def progress(self) -> Path:
        """What is known of the search, and how far it is."""
        return self.path / "progress.json"

    @property
    def url(self) -> str:
        """The storage of the study where none is named."""
        return f"sqlite:///{(self.path / 'study.db').resolve()}"

    def read(self) -> dict[str, Any]:
        """Return what `progress.json` holds; nothing before the first search.

        Raises:
            TuneFolderError: It is damaged.
        """
        if not self.progress.is_file():
            return {}
        try:
            found: dict[str, Any] = json.loads(self.progress.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TuneFolderError(
                f"{self.progress}: must be JSON, got: {error}. Give another --folder."
            ) from error
        return found

    def write(self, **facts: Any) -> None:
        """Add facts to `progress.json`."""
        write_whole(self.progress, as_json({**self.read(), **facts}, indent=1).encode())

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Give a folder for what is under way; what a killed process has left there is deleted."""
        place = self.path.resolve() / ".work"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(exist_ok=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def opened(path: Path, about: Mapping[str, Any]) -> Iterator[TuneFolder]:
    """Take a folder for this process alone, and check that it is about the same thing.

    Args:
        path: The folder; it is made if it is missing.
        about: What `about` returned.

    Raises:
        TuneFolderError: It cannot be made, holds something else, or another process uses it.
    """
    folder = TuneFolder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        others = sorted(each.name for each in path.iterdir() if each.name != ".lock")
    except OSError as error:
        raise TuneFolderError(
            f"--folder: must be a folder to write to, got '{path}': {error.strerror}. Give another."
        ) from error
    if others and "progress.json" not in others:
        raise TuneFolderError(
            f"--folder: must be the folder of a search, or a new one, got '{path}' with "
            f"{others[0]} in it. Give another one."
        )
    refusal = TuneFolderError(
        f"--folder: must be the folder of a search that is not running, got '{path}', which "
        "another process uses. For more processes in one search use --workers; for more machines "
        "give each a folder of its own, and all the same --storage."
    )
    with locked(path / ".lock", refusal):
        known = folder.read()
        other = _difference(known.get("about", {}), about) if known else ""
        if other and not any((path / "trials").glob("*.json")):  # nothing has come of it yet
            folder.progress.unlink()
            (path / "study.db").unlink(missing_ok=True)
            known, other = {}, ""
        if other:
            raise TuneFolderError(
                f"--folder: must be the folder of a search of this configuration and data, got "
                f"'{path}', whose {other}. Give another one."
            )
        if not known:
            folder.write(about=dict(about), owner=uuid.uuid4().hex, seconds=0.0)
        yield folder


def about(values: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """Return what a study is about, by dotted key: settings, and digests of the data.

    Args:
        values: The whole configuration.
        digests: Digest of each set of rows and of the base, by the key that names it.
    """
    flat = dict(_flat(values, ""))
    kept = {
        key: value
        for key, value in flat.items()
        if not any(key == apart or key.startswith(f"{apart}.") for apart in APART)
        and key not in digests
    }
    return {**kept, **{key: digest[:16] for key, digest in digests.items()}}


def digest_of(about: Mapping[str, Any]) -> str:
    """Digest what a study is about."""
    text = json.dumps(dict(sorted(about.items())), default=str)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _flat(value: Any, above: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inside in value.items():
            yield from _flat(inside, f"{above}.{key}" if above else str(key))
    else:
        yield above, value


def _difference(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name the first key that differs; nothing if none does."""
    plain = json.loads(as_json(dict(wanted)))
    for key in sorted({*known, *plain}):
        if known.get(key) != plain.get(key):
            return f"{key} is {known.get(key)!r:.40}, here {plain.get(key)!r:.40}"
    return ""
