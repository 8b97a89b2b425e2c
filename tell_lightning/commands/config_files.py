"""The YAML files of a command line, read before they are parsed, so that errors can name them.

`-c` takes a path, or the name of a shipped configuration: one of `tell_lightning/configs/`.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tell_lightning.files import read_yaml
from tell_lightning.settings import EXTENDS, SHIPPED, ConfigError

_FLAG = "--config="


def config_paths(arguments: Iterable[str]) -> list[str]:
    """Return the files given by -c or --config.

    >>> config_paths(["-c", "a.yaml", "--config=b.yaml", "--run.name=x"])
    ['a.yaml', 'b.yaml']
    """
    return [word.removeprefix(_FLAG) for word in file_words(arguments) if word.startswith(_FLAG)]


def read_config(path: str) -> Mapping[str, Any]:
    """Read a configuration file as plain values.

    Args:
        path: The file, or the name of a shipped configuration.

    Raises:
        ConfigError: It is missing, no UTF-8, no YAML, or holds no keys.
    """
    file = Path(SHIPPED.get(path, path))
    if not file.is_file():
        raise ConfigError(
            f"-c: must name a configuration file, got '{path}', which is not there "
            f"(looked in {Path.cwd()}). Check the path; the shipped ones are: {', '.join(SHIPPED)}."
        )
    return read_yaml(file, ConfigError)


def with_shipped(arguments: Iterable[str], default: str | None) -> list[str]:
    """Replace the names of shipped configurations by their files.

    A configuration that a file extends comes before all files. Where a later file gives tasks or
    general sources of its own, they replace those of the shipped configuration.

    Args:
        arguments: The files and keys of a command line.
        default: The shipped configuration to use if no file is given; None: none.
    """
    words = list(file_words(arguments))
    given = config_paths(words)
    wanted = [read_config(path).get(EXTENDS) for path in given] if given else [default]
    flag = f"--{EXTENDS}"
    wanted += [
        word.removeprefix(f"{flag}=")
        for before, word in pairwise(["", *words])
        if before == flag or word.startswith(f"{flag}=")
    ]
    first = [name for name in dict.fromkeys(wanted) if name in SHIPPED and name not in given]
    words = [*(f"{_FLAG}{name}" for name in first), *words]
    expanded: list[str] = []
    for place, word in enumerate(words):
        name = word.removeprefix(_FLAG)
        if word.startswith(_FLAG) and name in SHIPPED:
            expanded += [f"{_FLAG}{SHIPPED[name]}", *_replaced(config_paths(words[place + 1 :]))]
        else:
            expanded.append(word)
    return expanded


def _replaced(later: Iterable[str]) -> list[str]:
    """Return the options that clear the sections which later files give."""
    given: list[Any] = [read_config(path).get("data") for path in later]
    return [
        f"--data.{section}={{}}"
        for section in ("tasks", "general")
        if any(isinstance(data, Mapping) and section in data for data in given)
    ]


def file_words(arguments: Iterable[str]) -> Iterator[str]:
    """Write every file as one word, `--config=FILE`; leave the other words as they are."""
    words = iter(arguments)
    for word in words:
        flag, has_value, value = word.partition("=")
        if flag not in {"-c", "--config"}:
            yield word
        elif file := value if has_value else next(words, ""):
            yield f"{_FLAG}{file}"
        else:
            raise ConfigError("-c: needs a configuration file, got none. Write -c FILE.")
