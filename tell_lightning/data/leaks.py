"""Rows that must not be trained on: found by a hash of their normalised text.

Enters: the records of the tasks and tests with their anchors, and general records one by one.
Leaves: whether a task or test also holds one. Two texts are the same when they agree but for case,
white space and compatible characters; near-duplicates are not looked for. Costs 20 microseconds a
text, and 16 bytes a protected one.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

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


class Protected:
    """What general records must not hold: the prompts of tasks, tests and held-out sets.

    Attributes:
        digest: Changes with any of the texts, not with their order.
    """

    def __init__(self, records: Iterable[tuple[Record, Anchor]]) -> None:
        """Hash the texts of records, each with the anchor of its task and without it."""
        self._hashes: set[bytes] = set()
        for record, anchor in records:
            for prompt in _prompts(record, anchor):
                self._hashes.add(normalised_hash(prompt))
                self._hashes.add(normalised_hash(f"{prompt} {record.response or ''}"))
        self.digest = hashlib.blake2b(b"".join(sorted(self._hashes)), digest_size=16).hexdigest()

    def holds(self, record: Record) -> bool:
        """Say whether a prompt of a record, or its prompts and response, are protected."""
        if not self._hashes:
            return False
        prompts = [turn.content for turn in record.turns if turn.role == "user"]
        whole = " ".join(prompts)
        texts = {*prompts, whole, f"{whole} {record.response or ''}"}
        return any(normalised_hash(text) in self._hashes for text in texts)


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
