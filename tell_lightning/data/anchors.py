r"""Put the anchor of a task on its records, or take it off.

An anchor is a fixed text on every user turn and a fixed start of every response. If the data
already carry it, each row is checked for it. A record whose anchor was put on or taken off is an
example.

>>> from tell_lightning.data.records import Record
>>> record = Record("1", "d.jsonl:1", (Turn("user", "Halló"), Turn("assistant", "Hello")), {})
>>> anchor = Anchor(text="Translate into English.", response_prefix="In English: ")
>>> for turn in anchor_record(record, anchor, anchored=True).turns:
...     print(turn.role, repr(turn.content))
user 'Translate into English.\n\nHalló'
assistant 'In English: Hello'
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

from tell_lightning.data.formats import cut
from tell_lightning.data.records import Conversation, Turn
from tell_lightning.errors import TellError
from tell_lightning.metrics.predictions import split_thinking

Position = Literal["prefix", "suffix", "system"]
_ROLES = {"prefix": "user", "suffix": "user", "system": "system"}


class AnchorError(TellError):
    """An anchor that a row lacks, has twice, or that cannot be read back."""


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """The fixed text of a task. ``Anchor()`` stands for no anchor."""

    text: str = ""
    """Text added to every user turn of the task."""
    position: Position = "prefix"
    """prefix: before the prompt; suffix: after it; system: in the system turn."""
    response_prefix: str = ""
    """Fixed start of every response: trained on, and stripped before scoring."""
    present: bool = False
    """Whether the data already carry the anchor; then every row is checked for it."""
    separator: str = "\n\n"
    """Text between the anchor and the prompt."""


@dataclass(frozen=True, slots=True)
class Example(Conversation):
    """A record with its anchor, or without it where the arm trains without an anchor."""


def anchor_record(
    record: Conversation, anchor: Anchor, *, anchored: bool, check_reference: bool = True
) -> Example:
    """Put the anchor on a record, or take it off.

    In data that already carry the anchor, the white space around it may vary.

    Args:
        record: The record as read.
        anchor: The anchor of its task.
        anchored: Whether the example carries the anchor.
        check_reference: Whether the response is checked for the response prefix. False for rows
            whose response only serves as a reference.

    Raises:
        AnchorError: The row lacks the anchor although ``present`` is true, carries it although
            ``present`` is false, or holds nothing else.
    """
    turns = record.turns
    if not (anchor.text or anchor.response_prefix or any(map(_is_blank, turns))):
        return Example(record.id, record.where, turns, record.row, record.last_only)
    if anchor.text and anchor.position == "system" and turns[0].role != "system":
        turns = (Turn("system", ""), *turns)
    role = _ROLES[anchor.position]
    done = []
    for turn in turns:
        content = turn.content
        if turn.role == role and anchor.text:
            content = _mark_prompt(content, anchor, anchored, f"{record.where}: the {role} turn")
        elif turn.role == "assistant" and anchor.response_prefix:
            content = _mark_response(content, anchor, anchored, record.where, check_reference)
        if content.strip():
            done.append(Turn(turn.role, content))
        elif turn.role != "system":
            raise AnchorError(
                f"{record.where}: the {turn.role} turn must hold more than the anchor, "
                f"got {cut(turn.content)}. Correct or remove the row."
            )
    return Example(record.id, record.where, tuple(done), record.row, record.last_only)


def carries_anchor(record: Conversation, anchor: Anchor) -> bool:
    """Say whether a turn of the record already carries the anchor."""
    turns = [turn for turn in record.turns if turn.role == _ROLES[anchor.position]]
    return bool(anchor.text) and any(_carries(turn.content, anchor) for turn in turns)


def strip_anchor(text: str, anchor: Anchor) -> str:
    """Take the anchor off the text of a user turn, if the text carries it."""
    return text if anchor.position == "system" else _without(text, anchor)


def strip_response_prefix(text: str, anchor: Anchor) -> str:
    """Strip the thinking, the response prefix and the outer white space from a response."""
    text = split_thinking(text)[1]
    return text.strip().removeprefix(anchor.response_prefix.strip()).strip()


def reference_text(record: Conversation, anchor: Anchor) -> str | None:
    """Return the response of a record, stripped of its prefix; None if there is no response."""
    response = record.response
    return None if response is None else strip_response_prefix(response, anchor)


def anchor_digest(anchor: Anchor) -> str:
    """Digest the content of the anchor, without ``present``, which only describes the data."""
    content = {name: value for name, value in asdict(anchor).items() if name != "present"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def anchor_to_json(anchor: Anchor) -> dict[str, object]:
    """Return the content of ``anchor.json``."""
    return {**asdict(anchor), "digest": anchor_digest(anchor)}


def anchor_from_json(data: object, *, where: str) -> Anchor:
    """Read the content of ``anchor.json``. Its digest shows that nothing was changed by hand.

    Raises:
        AnchorError: A key is missing or unknown, or the digest is another one.
    """
    content = dict(data) if isinstance(data, Mapping) else {}
    digest = content.pop("digest", None)
    keys = [field.name for field in fields(Anchor)]
    if set(content) != set(keys) or not isinstance(content["present"], bool):
        raise AnchorError(
            f"{where}: an anchor must have the keys {', '.join(keys)} (true or false for present) "
            f"and digest, got {cut(data)}. Copy the adapter folder from its run again."
        )
    anchor = Anchor(**content)
    if anchor_digest(anchor) != digest:
        raise AnchorError(
            f"{where}: the digest must be that of the anchor, got {cut(digest)}: the file was "
            "changed by hand. The adapter was trained with the old anchor: copy the adapter folder "
            "from its run again."
        )
    return anchor


def _is_blank(turn: Turn) -> bool:
    return not turn.content or turn.content.isspace()


def _carries(text: str, anchor: Anchor) -> bool:
    core = anchor.text.strip()
    if anchor.position == "suffix":
        return text.rstrip().endswith(core)
    return text.lstrip().startswith(core)


def _without(text: str, anchor: Anchor) -> str:
    if not anchor.text or not _carries(text, anchor):
        return text
    core = anchor.text.strip()
    if anchor.position == "suffix":
        return text.rstrip().removesuffix(core).rstrip()
    return text.lstrip().removeprefix(core).lstrip()


def _mark_prompt(text: str, anchor: Anchor, anchored: bool, where: str) -> str:
    carries = _carries(text, anchor)
    side = "end" if anchor.position == "suffix" else "start"
    if anchor.present and not carries:
        got = cut(text[-60:] if side == "end" else text[:60])
        raise AnchorError(
            f"{where} must {side} with the anchor {cut(anchor.text)}, got {got}. "
            "Correct the row, or set anchor.present: false where no row carries it."
        )
    if anchor.present:
        return text if anchored else _without(text, anchor)
    if not anchored:
        return text
    if carries:
        raise AnchorError(
            f"{where} must get the anchor once, got data that already {side} with it: "
            f"{cut(text)}. Set anchor.present: true."
        )
    pair = (text, anchor.text) if side == "end" else (anchor.text, text)
    return anchor.separator.join(pair) if text else anchor.text


def _mark_response(
    text: str, anchor: Anchor, anchored: bool, where: str, check_reference: bool
) -> str:
    thinking, text = split_thinking(text)
    core = anchor.response_prefix.strip()
    carries = text.lstrip().startswith(core)
    if anchor.present:
        if not carries and check_reference:
            raise AnchorError(
                f"{where}: the assistant turn must start with the response prefix {cut(core)}, "
                f"got {cut(text)}. Correct the row, or set anchor.present: false."
            )
        if anchored or not carries:
            return thinking + text
        return thinking + text.lstrip().removeprefix(core).lstrip()
    if anchored and carries and check_reference:
        raise AnchorError(
            f"{where}: the assistant turn must get the response prefix once, got data that "
            f"already start with it: {cut(text)}. Set anchor.present: true, or leave it out."
        )
    prefix = anchor.response_prefix if anchored and not carries else ""
    return thinking + prefix + text
