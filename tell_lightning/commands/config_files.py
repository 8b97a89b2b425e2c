"""The YAML files of a command line, read before they are parsed, so that errors can name them."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tell_lightning.files import read_yaml
from tell_lightning.settings import ConfigError


def config_paths(arguments: list[str]) -> list[str]:
    """Return the files given by -c or --config.

    >>> config_paths(["-c", "a.yaml", "--config=b.yaml", "--run.name=x"])
    ['a.yaml', 'b.yaml']
    """
    flags = ("-c", "--config")
    paths = []
    for argument, following in pairwise([*arguments, ""]):
        name, has_value, value = argument.partition("=")
        if argument in flags and not following:
            raise ConfigError("-c: needs a configuration file, got none. Write -c FILE.")
        if name in flags:
            paths.append(value if has_value else following)
    return paths


def read_config(path: str) -> Mapping[str, Any]:
    """Read a configuration file as plain values.

    Raises:
        ConfigError: It is missing, no UTF-8, no YAML, or holds no keys.
    """
    if not Path(path).is_file():
        raise ConfigError(
            f"-c: must name a configuration file, got '{path}', which is not there "
            f"(looked in {Path.cwd()}). Check the path."
        )
    return read_yaml(Path(path), ConfigError)


def without_default_tasks(arguments: list[str]) -> list[str]:
    """Clear the default's tasks or general sources first where a file gives its own.

    Otherwise one that has the name of a default one would silently inherit what it leaves out.
    """
    given: list[Any] = [read_config(path).get("data") for path in config_paths(arguments)]
    cleared = [
        f"--data.{section}={{}}"
        for section in ("tasks", "general")
        if any(isinstance(data, Mapping) and section in data for data in given)
    ]
    return [*cleared, *arguments]
