"""A hundred short prompts that no training source may hold, to see if a base's chat changes."""

from functools import cache
from importlib.resources import files


@cache
def prompts() -> tuple[str, ...]:
    """Read the prompts."""
    text = (files("tell_lightning") / "callbacks/probe.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
