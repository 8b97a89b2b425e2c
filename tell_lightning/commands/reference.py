"""Every key of the configuration with its type, default and meaning; the command `help`.

All of it is read from the settings classes and, for `trainer`, from the source of Lightning's
Trainer. No torch.
"""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser

from tell_lightning.commands.arguments import CommandParser
from tell_lightning.commands.check import (
    DECIDED_ELSEWHERE,
    SECTIONS,
    TRAINER_DEFAULTS,
    trainer_arguments,
)
from tell_lightning.errors import did_you_mean
from tell_lightning.settings import DEMO, EXTENDS, SHIPPED, ConfigError

NAME = "NAME"
"""Stands in a key for a name that the user chooses."""
DESCRIPTION = """
Explain keys of the configuration: what they mean, their types and their defaults.

KEY is a key (data.mixture.task_share), its last part (task_share), or a section (data.mixture).
Without KEY, all keys are listed.
"""
_PAGE = f"""# Every key of the configuration

This page is written by `make reference`, from the docstrings of the settings.
`python -m tell_lightning help KEY` shows one key, or all keys of a section.

A configuration file holds these keys nested, as YAML. On the command line they are written with
dots: `--data.mixture.task_share=0.1`. `{NAME}` stands for a name that you choose.
"""
_STEPS = "Optimizer steps of the run; not set: data.mixture.cycles says its length."
_TRAINER = "https://lightning.ai/docs/pytorch/stable/common/trainer.html"


@dataclass(frozen=True)
class Key:
    """One key of the configuration."""

    path: str
    type: str
    default: str | None
    """As YAML or JSON; None: it must be given."""
    meaning: str

    @property
    def group(self) -> str:
        """The path without its last part."""
        return self.path.rpartition(".")[0]

    @property
    def kind(self) -> str:
        """The type and the default in words."""
        default = "required" if self.default is None else f"default: {self.default}"
        return f"type: {self.type}, {default}"

    @property
    def default_in_code(self) -> str:
        """The default as Markdown."""
        return "(required)" if self.default is None else f"`{self.default}`"

    def fits(self, wanted: str) -> bool:
        """Return whether the key is the wanted one, below it, or ends with it."""
        mine, asked = self.path.split("."), wanted.split(".")
        from_start = len(asked) <= len(mine) and all(
            part in (NAME, other) for part, other in zip(mine, asked, strict=False)
        )
        return from_start or mine[-len(asked) :] == asked


def help(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.

    Raises:
        ConfigError: There is no such key.
    """
    parser = CommandParser("help", DESCRIPTION)
    parser.add_argument("key", nargs="?", metavar="KEY", help="a key, its last part, or a section")
    parser.add_argument("--markdown", action="store_true", help="print the page docs/reference.md")
    asked = parser.parse(arguments)
    if asked.markdown:
        print(markdown(), end="")
        return
    known = list(all_keys())
    found = [key for key in known if asked.key is None or key.fits(asked.key)]
    if not found:
        names = [*(key.path for key in known), *(key.path.rpartition(".")[2] for key in known)]
        advice = did_you_mean(asked.key, names) or "Give none to see all keys."
        raise ConfigError(f"help: KEY must be a key or a section, got '{asked.key}'. {advice}")
    print(listing(found), end="")


def keys_help() -> str:
    """Describe every key, for the end of a command's --help."""
    return f"The configuration:\n\n{listing(all_keys())}"


def listing(keys: Iterator[Key] | list[Key]) -> str:
    """Write keys for a terminal."""
    return "".join(f"  --{key.path}\n        {key.meaning} ({key.kind})\n" for key in keys)


def markdown() -> str:
    """Write the reference page: a table for each group of keys."""
    groups: dict[str, list[Key]] = {}
    for key in all_keys():
        groups.setdefault(key.group, []).append(key)
    parts = [_PAGE]
    for group, keys in groups.items():
        title = f"## `{group}`" if group else "## Top level"
        link = f"\nKeys of Lightning's [Trainer]({_TRAINER}).\n" if group == "trainer" else ""
        parts.append(
            f"{title}\n{link}\n| key | type | default | meaning |\n| --- | --- | --- | --- |"
        )
        parts += [
            f"| `{key.path}` | {_cell(key.type)} | {key.default_in_code} | {_cell(key.meaning)} |"
            for key in keys
        ]
        parts.append("")
    return "\n".join(parts)


def all_keys() -> Iterator[Key]:
    """List every key, in the order of the sections and of their fields."""
    shipped = " or ".join(SHIPPED)
    yield Key(
        EXTENDS,
        "text or null",
        "null",
        f"In a file: the shipped configuration that it changes, {shipped}. It is read before all "
        f"files, as with -c. {DEMO} is the demo.",
    )
    yield Key(
        "seed_everything",
        "whole number",
        "42",
        "Seed of the run, from 0 on. The seeds of the draw of examples, the order, the adapters "
        "and dropout are derived from it.",
    )
    for name, settings in SECTIONS.items():
        yield from _keys_of(settings, name)
    for name, (type_, meaning) in trainer_arguments().items():
        if name not in DECIDED_ELSEWHERE:
            ours = TRAINER_DEFAULTS.get(name)
            default = "Lightning's" if ours is None else _written(ours)
            meaning = _STEPS if name == "max_steps" else meaning
            yield Key(f"trainer.{name}", _named(type_), default, meaning)


def _keys_of(settings: type, path: str) -> Iterator[Key]:
    hints = get_type_hints(settings)
    told = docstring_parser.parse_from_object(settings).params
    meanings = {param.arg_name: " ".join((param.description or "").split()) for param in told}
    for field in fields(settings):
        hint, below = hints[field.name], f"{path}.{field.name}"
        if isinstance(hint, type) and is_dataclass(hint):
            yield from _keys_of(hint, below)
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        written = None if default is MISSING else _written(default)
        yield Key(below, _named(hint), written, meanings[field.name])
        if get_origin(hint) is dict:
            below = f"{below}.{NAME}"
        for inner in get_args(hint):
            if isinstance(inner, type) and is_dataclass(inner):
                yield from _keys_of(inner, below)


def _named(hint: Any) -> str:
    """Name a type as a user of YAML knows it.

    >>> _named(int | None), _named(tuple[str, ...]), _named(Literal["a", "b"])
    ('whole number or null', 'list of text', 'a or b')
    """
    if get_origin(hint) is Literal:
        return " or ".join(str(name) for name in get_args(hint))
    if get_origin(hint) in {Union, UnionType}:
        names = {_named(inner) for inner in get_args(hint)}
        # Python keeps the order of whichever equal union was written first.
        return " or ".join(sorted(names, key=lambda name: (name == "null", name)))
    if get_origin(hint) in {list, tuple}:
        inner = [arg for arg in get_args(hint) if arg is not ...]
        return f"list of {_named(inner[0])}"
    if get_origin(hint) is dict or is_dataclass(hint):
        return "mapping"
    words = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return {**words, NoneType: "null"}.get(hint, "any")


def _written(value: Any) -> str:
    """Write a default as YAML in one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple | dict):
        return str(list(value)) if not isinstance(value, dict) else "{}"
    if isinstance(value, str) and (not value or value != value.strip() or "\n" in value):
        return repr(value).replace("'", '"')
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
