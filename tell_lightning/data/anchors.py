"""Records with their anchor: a fixed text on every user turn, a fixed start of every response."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tell_lightning.data.records import Record, Turn
from tell_lightning.errors import TellError

Position = Literal["prefix", "suffix", "system"]


class AnchorError(TellError):
    """An anchor that a row lacks, has twice, or that cannot be read back."""


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """The fixed text of a task. ``Anchor()`` is none."""

    text: str = ""
    """Text that stands on every user turn of the task."""
    position: Position = "prefix"
    """Before the prompt, behind it, or in the system turn."""
    response_prefix: str = ""
    """Fixed start of every response: trained on, and stripped before scoring."""
    present: bool = False
    """Whether the data already carry the anchor; then every row is checked for it."""
    separator: str = "\n\n"
    """What stands between the anchor and the prompt."""


@dataclass(frozen=True, slots=True)
class Example:
    """A record with its anchor, or without it where the arm says so: pure text."""

    id: str
    where: str
    turns: tuple[Turn, ...]
    row: Mapping[str, object]


def anchor_record(
    record: Record | Example, anchor: Anchor, *, anchored: bool, check_reference: bool = True
) -> Example:
    """Add the anchor, or strip it. check_reference=False: a reference without the response prefix is fine."""
    raise NotImplementedError


def strip_anchor(text: str, anchor: Anchor) -> str:
    """Take the anchor off one prompt text, where it is there."""
    raise NotImplementedError


def strip_response_prefix(text: str, anchor: Anchor) -> str:
    """Take the response prefix off a generated or given response, and the outer white space."""
    raise NotImplementedError


def reference_text(record: Record | Example, anchor: Anchor) -> str | None:
    """The last assistant text without the response prefix and outer white space; None without one."""
    raise NotImplementedError


def anchor_digest(anchor: Anchor) -> str:
    """Name the anchor by its content; ``present`` says something of the data and is left out."""
    raise NotImplementedError


def anchor_to_json(anchor: Anchor) -> dict[str, object]:
    """The content of ``anchor.json``."""
    raise NotImplementedError


def anchor_from_json(data: object, *, where: str) -> Anchor:
    """Read ``anchor_to_json`` back, checked."""
    raise NotImplementedError
