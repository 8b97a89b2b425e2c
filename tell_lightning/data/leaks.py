"""Rows that must not be trained on: found by a hash of their normalised text.

Enters: the records of the tasks and tests with their anchors, and the general records. Leaves:
the general records without those that a task or test also holds. Two texts are the same when they
agree but for case, white space and compatible characters; near-duplicates are not looked for.
Costs 20 microseconds and 16 bytes a text.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence

from tell_lightning.data.anchors import Anchor, strip_anchor
from tell_lightning.data.records import Record
from tell_lightning.errors import TellError


class LeakError(TellError):
    """A dev or test row among the training rows of its task."""


def normalised_hash(text: str) -> bytes:
    r"""Hash a text regardless of case, white space and compatible characters.

    >>> normalised_hash("Is it  SO?\n") == normalised_hash("is it so?")
    True
    >>> normalised_hash("is it so?") == normalised_hash("is it so")
    False
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return hashlib.blake2b(" ".join(folded.split()).encode(), digest_size=16).digest()


def drop_leaks(
    general: Sequence[Record], protected: Sequence[tuple[Record, Anchor]]
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Split general records into those to keep and those that a task or test set holds.

    A record is dropped when one of its prompts, or its prompts and response together, are those
    of a protected record, compared with the anchor and without it.

    Args:
        general: Records of one general source.
        protected: Records of task and test sets, each with the anchor of its task.

    Returns:
        The records to keep and the dropped ones, both in their old order.
    """
    known: set[bytes] = set()
    for record, anchor in protected:
        for prompt in _prompts(record, anchor):
            known.add(normalised_hash(prompt))
            known.add(normalised_hash(f"{prompt} {record.response or ''}"))
    kept: list[Record] = []
    dropped: list[Record] = []
    for record in general:
        texts = [turn.content for turn in record.turns if turn.role == "user"]
        texts.append(" ".join(texts))
        texts.append(f"{texts[-1]} {record.response or ''}")
        leaks = any(normalised_hash(text) in known for text in texts)
        (dropped if leaks else kept).append(record)
    return tuple(kept), tuple(dropped)


def check_disjoint(train: Sequence[Record], held_out: Sequence[Record], anchor: Anchor) -> None:
    """Check that no held-out prompt is also a training prompt, with or without the anchor.

    Raises:
        LeakError: Two records have the same prompt; both places are named.
    """
    known = {normalised_hash(prompt): r for r in train for prompt in _prompts(r, anchor)}
    for record in held_out:
        for prompt in _prompts(record, anchor):
            same = known.get(normalised_hash(prompt))
            if same is not None:
                raise LeakError(
                    f"{record.where}: a held-out row must not be among the task's training rows, "
                    f"got the prompt of {same.where}. Remove one of the two."
                )


def _prompts(record: Record, anchor: Anchor) -> Iterator[str]:
    """Yield the user's text as it is, without the anchor, and with it."""
    turns = [turn.content for turn in record.turns if turn.role == "user"]
    bare = [strip_anchor(text, anchor) for text in turns]
    yield " ".join(turns)
    yield " ".join(bare)
    if anchor.text and anchor.position == "suffix":
        yield " ".join(f"{text} {anchor.text}" for text in bare)
    elif anchor.text and anchor.position == "prefix":
        yield " ".join(f"{anchor.text} {text}" for text in bare)
