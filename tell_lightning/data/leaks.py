"""Rows that must not be trained on: found by a hash of their normalised text."""

from collections.abc import Sequence
from dataclasses import dataclass

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.records import Record
from tell_lightning.errors import TellError


class LeakError(TellError):
    """A dev or test row among the training rows of its task."""


@dataclass(frozen=True, slots=True)
class TaskRows:
    """Records of a task with the anchor that they carry or get."""

    records: Sequence[Record]
    anchor: Anchor = Anchor()


@dataclass(frozen=True, slots=True)
class Leak:
    """A general record that is a task's."""

    record: Record
    same_as: Record


def normalised_hash(text: str) -> bytes:
    """Hash of the text regardless of case, white space and compatible characters."""
    raise NotImplementedError


def drop_leaks(
    general: Sequence[Record], protected: Sequence[TaskRows]
) -> tuple[tuple[Record, ...], tuple[Leak, ...]]:
    """Split general records into those to keep and those that a task or test set holds."""
    raise NotImplementedError


def check_disjoint(train: TaskRows, held_out: TaskRows) -> None:
    """Raise LeakError where a held-out prompt is also a training prompt."""
    raise NotImplementedError
