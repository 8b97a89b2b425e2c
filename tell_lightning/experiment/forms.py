"""What the values of an experiment's YAML files may be, and the check of a mapping against it.

The forms are tables of our own: jsonargparse would read strings in free settings as YAML once more
('1e-3' would become a number), and so change what a configuration's digest is made of.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tell_lightning.errors import TellError, did_you_mean


class SpecificationError(TellError):
    """An experiment that is not written as it must be."""


@dataclass(frozen=True)
class Form:
    """What a value may be."""

    says: str
    """The same in words, after `must be`."""
    holds: Callable[[Any], bool]
    example: str
    """A value of this form, as YAML."""


def check_keys(
    where: str,
    values: Any,
    needed: Mapping[str, Form],
    optional: Mapping[str, Form] | None = None,
) -> None:
    """Check that a mapping has its keys, no other ones, and values of the right form.

    Args:
        where: The file and, after a colon, the place in it; a key is appended to it.
        values: The values at this place.
        needed: The keys that must be given.
        optional: The keys that may be given.

    Raises:
        SpecificationError: The first thing that is wrong.
    """
    known = {**needed, **(optional or {})}
    if not isinstance(values, Mapping):
        raise SpecificationError(
            f"{where.rstrip('.: ')}: must be a mapping, got {values!r:.60}. Give it the keys "
            f"{', '.join(known)}."
        )
    for key, value in values.items():
        if key not in known:
            raise SpecificationError(
                f"{where}{key}: must be one of {', '.join(known)}, got '{key}'. "
                f"{did_you_mean(str(key), list(known)) or 'Remove it.'}"
            )
        if not known[key].holds(value):
            raise SpecificationError(
                f"{where}{key}: must be {known[key].says}, got {value!r:.60}. "
                f"Write {key}: {known[key].example}."
            )
    for key in needed:
        if key not in values:
            raise SpecificationError(
                f"{where}{key}: must be given, got nothing. Write {key}: {known[key].example}."
            )


def check_plain(where: str, value: Any) -> None:
    """Check that a value holds only what JSON can hold: YAML also has dates, sets and other keys.

    Args:
        where: The file and, after a colon, the place in it.
        value: What stands there.

    Raises:
        SpecificationError: The first value that JSON cannot hold.
    """
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                raise SpecificationError(
                    f"{where}: keys must be text, got {key!r:.60}. Put the key in quotes."
                )
            check_plain(f"{where}.{key}", each)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            check_plain(f"{where}[{number}]", each)
    elif not isinstance(value, str | int | float | None):
        raise SpecificationError(
            f"{where}: must be text, a number, true, false, null, a list or a mapping, got "
            f"{value!r:.60}. Put it in quotes."
        )


def is_whole(value: Any, least: int = 0) -> bool:
    """Return whether a value is a whole number of at least `least`; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def one_of(names: Collection[str]) -> Form:
    """Return the form of a name that must be known."""
    return Form(f"one of {', '.join(names)}", lambda value: value in names, next(iter(names), ""))


def list_of(names: Collection[str], file: str) -> Form:
    """Return the form of a list of names that must be known, from another file."""
    return Form(
        f"a list of names from {file} ({', '.join(names)})",
        lambda value: isinstance(value, list) and all(name in names for name in value),
        f"[{next(iter(names), '')}]",
    )


TEXT = Form("text", lambda value: isinstance(value, str), "a few words")
NUMBER = Form(
    "a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool), "1.0"
)
YES_NO = Form("true or false", lambda value: isinstance(value, bool), "true")
LIST = Form("a list", lambda value: isinstance(value, list), "[]")
MAPPING = Form("a mapping", lambda value: isinstance(value, Mapping), "{}")
SETTINGS = Form(
    "a mapping of dotted keys",
    lambda value: value is None or isinstance(value, Mapping),
    "{model.optimizer.lr: 0.004}",
)
