"""What several configuration files, and their folders, mean for the sources of data.

Every file may give tasks and general sources; they add up. A relative `data.root` is a folder
beside the file that names it. The saved configuration of a run is only a start: a later file
replaces its tasks and sources, and its paths stay as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.commands.config_files import file_words, read_config
from tell_lightning.data.formats import cut
from tell_lightning.files import GivenTwiceError, expanded, parse_yaml
from tell_lightning.microworld.world import WORLDS
from tell_lightning.settings import ConfigError

_SECTIONS = {"tasks": ("train", "dev", "test"), "general": ("train", "generate", "held_out")}
"""The keys of a section that say where rows are."""


def joined(arguments: Sequence[str]) -> list[str]:
    """Add the options that keep what a later file would replace, and that place `data.root`.

    Args:
        arguments: The files and keys of a command line.

    Returns:
        The arguments; each file is followed by the options that it needs.

    Raises:
        ConfigError: Two files give a task or source of one name different rows, or a typed value
            has a key twice.
    """
    known: dict[str, dict[str, tuple[str, Any]]] = {section: {} for section in _SECTIONS}
    words: list[str] = []
    for word in file_words(arguments):
        words.append(word)
        flag, has_value, value = word.partition("=")
        if flag == "--config":
            words += _options(value, known)
        elif has_value:
            _check_typed(flag, value)
    return words


def _options(file: str, known: dict[str, dict[str, tuple[str, Any]]]) -> Iterator[str]:
    """Yield the options to add after a file; its tasks and sources become known."""
    path = Path(file)
    if not path.is_file() or (path.parent / "run.json").is_file():
        return
    data = read_config(file).get("data")
    if not isinstance(data, Mapping):
        return
    if isinstance(root := data.get("root"), str) and root not in WORLDS:
        yield f"--data.root={_placed(root, path.parent)}"
    for section, rows in _SECTIONS.items():
        given = data.get(section)
        if not isinstance(given, Mapping):
            continue
        for name, (first, value) in known[section].items():
            if name not in given:
                text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
                yield f"--data.{section}.{name}={text}"
            else:
                _check_rows(f"data.{section}.{name}", rows, (first, value), (file, given[name]))
        known[section] |= {name: (file, value) for name, value in given.items()}


def _placed(root: str, folder: Path) -> Path:
    """Return a root beside its file; below the working directory, where only that one exists."""
    place = expanded(root)
    beside = folder.resolve() / place
    return place.resolve() if place.is_dir() and not beside.is_dir() else beside


def _check_rows(
    key: str, rows: Sequence[str], first: tuple[str, Any], second: tuple[str, Any]
) -> None:
    """Check that a task or source that two files change has its rows from one of them.

    Args:
        key: The key of the task or source.
        rows: The keys below it that say where rows are.
        first: The earlier file, and its value.
        second: The later one.
    """
    values = [value if isinstance(value, Mapping) else {} for _, value in (first, second)]
    for name in rows:
        old, new = (value.get(name) for value in values)
        if None not in (old, new) and old != new:
            raise ConfigError(
                f"{second[0]}: {key}.{name}: rows must be given in one file, got {cut(new)} here "
                f"and {cut(old)} in {first[0]}. Rename one of the two, or type --{key}.{name}=... "
                "to replace the rows."
            )


def _check_typed(flag: str, value: str) -> None:
    try:
        parse_yaml(value)
    except GivenTwiceError as error:
        raise ConfigError(f"{flag}: {error}") from error
    except yaml.YAMLError:
        return  # the parser of the configuration says what is wrong
