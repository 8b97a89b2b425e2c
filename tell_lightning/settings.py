"""Turn plain values from YAML, the command line or Python into typed settings. Needs no torch.

jsonargparse checks names and types. This module rewrites its messages into the form of our errors,
`where: rule, got value. What to do.`
"""

import difflib
import math
import re
from argparse import ArgumentError
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from jsonargparse import ArgumentParser

from tell_lightning.errors import TellError

DEMO = "microworld"
"""The shipped configuration that is used if the command line names no file."""
SHIPPED = {file.stem: str(file) for file in Path(__file__).with_name("configs").glob("*.yaml")}
"""The file of each shipped configuration, by name."""
EXTENDS = "extends"
"""Key of a file: the name of the shipped configuration that the file changes."""
Settings = TypeVar("Settings")
Files = Mapping[str, Mapping[str, Any]]
"""Values by file name; the empty name is the command line."""


class ConfigError(TellError):
    """Settings that cannot be read or do not fit together."""


def as_settings(cls: type[Settings], value: object, where: str) -> Settings:
    """Return an instance of a settings class, made from a dictionary of its fields if necessary.

    Args:
        cls: A dataclass of settings.
        value: An instance of `cls`, or a mapping of its fields (settings or mappings inside it
            are accepted, too).
        where: The key that an error names, such as `model.lora`.

    Raises:
        ConfigError: A field does not exist or has the wrong type, or the value is no mapping.

    >>> from tell_lightning.model.settings import LoraSettings
    >>> as_settings(LoraSettings, {"rank": 4}, "lora").rank
    4
    """
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where}: must be {cls.__name__} or a dictionary of its fields, got {value!r:.60}. "
            f"Write {cls.__name__}(...) or {{...}}."
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=cls)
    try:
        parsed = parser.parse_object({"x": plain(value)})
    except ArgumentError as error:
        text = re.sub(r"(?<=[\"' ])x(?=[.'])", where, str(error))
        raise ConfigError(explain(text, {where, *field_names(cls)}, {})) from error
    settings: Settings = parser.instantiate_classes(parsed).x
    return settings


def plain(value: Any) -> Any:
    """Turn settings into dictionaries, also those inside dictionaries and lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


@dataclass(frozen=True)
class Range:
    """The numbers that a key may have.

    >>> str(Range(0, 1)), str(Range(above=0)), str(Range(0, below=1))
    ('from 0 to 1', 'above 0', 'at least 0 and below 1')
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether a number is allowed; what is not finite never is."""
        return (
            -math.inf < value < math.inf
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Say which numbers are allowed, as a message does after `must be`."""
        if self.least is not None and self.most is not None:
            return f"from {self.least} to {self.most}"
        words = {"at least": self.least, "at most": self.most, "above": self.above}
        words["below"] = self.below
        return " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)


Ranges = Mapping[str, Range]
"""Ranges by dotted key; `*` stands for any name, as in `tasks.*.max_new_tokens`."""


def check_ranges(values: Mapping[str, Any], ranges: Ranges, section: str) -> None:
    """Check that every number is in its range.

    Args:
        values: The values of a section, as plain mappings; null and text are not checked.
        ranges: The ranges of its keys.
        section: The name of the section, for an error.

    Raises:
        ConfigError: A number is not in its range.
    """
    for key, allowed in ranges.items():
        for path, value in _values_at(values, key.split("."), section):
            if isinstance(value, int | float) and not allowed.holds(value):
                raise ConfigError(
                    f"{path}: must be {allowed}, got {value}. "
                    f"See `python -m tell_lightning help {path}`."
                )


def _values_at(values: Any, keys: list[str], path: str) -> Iterator[tuple[str, Any]]:
    if not keys:
        for value in values if isinstance(values, list | tuple) else [values]:
            yield path, value
    elif isinstance(values, Mapping):
        names = list(values) if keys[0] == "*" else [name for name in keys[:1] if name in values]
        for name in names:
            yield from _values_at(values[name], keys[1:], f"{path}.{name}")


def field_names(*classes: type) -> set[str]:
    """Return the field names of settings classes and of the settings classes inside them."""
    names: set[str] = set()
    for cls in classes:
        hints = get_type_hints(cls)
        for field in fields(cls):
            names.add(field.name)
            names |= field_names(*_dataclasses_in(hints[field.name]))
    return names


def explain(text: str, keys: Collection[str], files: Files) -> str:
    """Rewrite a message of jsonargparse into the form of our errors.

    Args:
        text: The message of jsonargparse.
        keys: The names that exist, dotted or not, for "Did you mean".
        files: The values of each file, used to name the file of a wrong key.
    """
    flat = " ".join(text.split())
    inside = ".".join(re.findall(r'Parser key "([^"]+)"', flat))
    above = f"{inside}." if inside else ""
    if match := re.search(r"Group '([^']+)' does not accept option '([^']+)'", flat):
        return _unknown(f"{above}{match[1]}.{match[2]}", keys, files)
    if match := re.search(r"Option '([^']+)' is not accepted", flat):
        return _unknown(above + match[1], keys, files)
    if match := re.search(r"[Uu]nrecognized arguments: (\S+)", flat):
        return _unrecognised(match[1], keys, files)
    if match := re.search(r"following arguments are required: (\S+)", flat):
        cure = f"Add it to a configuration file, or write --{match[1]}=VALUE."
        return f"{place(match[1], files)}: must be given, got nothing. {cure}"
    value = re.search(r"(?:Got|Given) value: (.+?)(?: Given| Subclass types|$)", flat)
    if inside and value:
        types = re.findall(r"Expected an? (.+?)(?= Got| - |\. | Given|$)", flat)
        wanted = " or ".join(dict.fromkeys(_type_name(name) for name in types)) or "of its type"
        advice = f"See `python -m tell_lightning help {inside}`."
        if "str" in wanted and value[1] in {"True", "False"}:
            advice = "Put it in quotes: YAML reads yes and no as true and false."
        return f"{place(inside, files)}: must be {wanted}, got {value[1]}. {advice}"
    if match := re.search(r"Unable to load config ['\"](.*?)['\"](?: |$)", flat):
        return (
            f"{place(inside, files)}: must be a mapping of keys, got "
            f"{match[1]}. Write KEY: VALUE lines below it."
        )
    reason = flat.partition("error: ")[2] or flat or "could not be read"
    return f"configuration: must fit together, got: {reason}. See `python -m tell_lightning help`."


def place(key: str, files: Files) -> str:
    """Say where a key is, for the beginning of a message: `file: key`, or `key` alone."""
    return ": ".join(part for part in locate(key, files) if part)


def locate(key: str, files: Files) -> tuple[str, str]:
    """Find the file and the full dotted path of a key. `key` may be only the end of the path.

    >>> locate("tasks.shape", {"a.yaml": {"data": {"tasks": {"halu": {"shape": 1}}}}})
    ('a.yaml', 'data.tasks.halu.shape')
    """
    last = key.rpartition(".")[2]
    for name, values in reversed(list(files.items())):
        for path in _paths(values, ""):
            if path == key or path.endswith(f".{key}"):
                return name, path
            if path.rpartition(".")[2] == last and set(key.split(".")) <= set(path.split(".")):
                return name, path
    return "", key


def _dataclasses_in(hint: Any) -> Iterable[type]:
    if is_dataclass(hint):
        return [hint] if isinstance(hint, type) else []
    return [cls for part in get_args(hint) for cls in _dataclasses_in(part)]


def _unrecognised(argument: str, keys: Collection[str], files: Files) -> str:
    if argument.startswith("-"):
        return _unknown(argument.lstrip("-").partition("=")[0], keys, files)
    return (
        f"command line: options must start with '--', got '{argument}'. "
        "Write --KEY=VALUE for a key, -c FILE for a configuration."
    )


def _unknown(key: str, keys: Collection[str], files: Files) -> str:
    def alike(path: str) -> float:
        return difflib.SequenceMatcher(None, path, key).ratio()

    parts = key.split(".")
    known = {part for path in keys for part in path.split(".")}
    wrong = next((part for part in parts if part not in known), parts[-1])
    close = [
        max((path for path in sorted(keys) if path.split(".")[-1] == name), key=alike, default=name)
        for name in difflib.get_close_matches(wrong, sorted(known), n=1)
    ]
    known_keys = "See `python -m tell_lightning help` for the keys."
    advice = f"Did you mean '{close[0]}'?" if close else known_keys
    return f"{place(key, files)}: must be a key of the configuration, got '{wrong}'. {advice}"


def _type_name(name: str) -> str:
    short = name.removeprefix("<class '").removesuffix("'>").replace("NoneType", "null")
    return short.removeprefix("typing.").replace("Literal[", "one of [")


def _paths(values: Any, above: str) -> Iterator[str]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            path = f"{above}.{key}" if above else str(key)
            yield path
            yield from _paths(value, path)
