"""Answers side by side: reference, base, tuned, with what differs marked.

Of each task the first rows of its predictions files are shown, in the order of the file and not
chosen; how many answers are right is counted over all rows. Only the rows that are shown are
compared word by word. What an answer says, and whether it is right, the task's scoring kind knows.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tell_lightning.metrics.kinds.base import Reading, ScoringKind
from tell_lightning.metrics.kinds.registry import reading_kind
from tell_lightning.metrics.predictions import MetricError
from tell_lightning.metrics.settings import Scoring
from tell_lightning.report.contents import RunContents
from tell_lightning.report.differences import LEAST_SHARE, Piece, mark_differences
from tell_lightning.report.labels import LabelTables, label_tables

SHOWN = 20
"""Rows of a task on the page."""
MOST_LETTERS = 6000
"""Letters of a text on the page; the file has the rest."""
FOLDED_LETTERS = 600
"""A longer text is folded, so many letters of it stay in view."""
COUNTED = {"exact": "equal to the reference"}
"""What a verdict is called where it is counted, if not by its own word."""


@dataclass(frozen=True)
class Text:
    """An answer, or the reference, ready to be marked up."""

    pieces: list[Piece]
    verdict: str = ""
    """Right, wrong or unreadable, or exact for an answer equal to its reference."""
    label: str = ""
    note: str = ""
    preview: tuple[Piece, ...] = ()
    """The beginning of a text that is folded; empty where it is short."""


@dataclass(frozen=True)
class Answered:
    """One row with what was answered."""

    id: str
    words: str
    """The words that the row lists, where the task has such."""
    reference: Text | None
    base: Text | None
    tuned: Text | None


@dataclass(frozen=True)
class TaskAnswers:
    """The rows of one task."""

    task: str
    split: str
    step: int | None
    """Of the adapter that gave the tuned answers."""
    total: int
    rows: list[Answered]
    counts: list[tuple[str, str]]
    """Base and tuned, each with how many answers are right."""
    files: list[str]
    labels: LabelTables | None
    """Precision, recall and confusion, where the answers are labels."""


def task_answers(run: RunContents) -> list[TaskAnswers]:
    """Put the answers of each task side by side, of test where there are any, else of dev."""
    return [found for task in run.tasks if (found := _of_task(run, task)) is not None]


def _of_task(run: RunContents, task: str) -> TaskAnswers | None:
    stems = set(run.prediction_stems())
    for split in ("test", "dev"):
        base = f"{split}-{task}-base"
        steps = {
            int(number): stem
            for stem in stems
            if stem.startswith(f"{split}-{task}-step-")
            and (number := stem.rpartition("-")[2]).isdecimal()
        }
        kept = run.selected_step if run.selected_step in steps else max(steps, default=None)
        if base not in stems and kept is None:
            continue
        before = run.predictions(base) or {}
        after = (run.predictions(steps[kept]) or {}) if kept is not None else {}
        files = [*([base] if before else []), *([steps[kept]] if kept is not None else [])]
        return _compared(run, task, split, kept, before, after, files)
    return None


Row = Mapping[str, Any]
AnswersById = Mapping[str, Row]


def _compared(
    run: RunContents,
    task: str,
    split: str,
    step: int | None,
    before: AnswersById,
    after: AnswersById,
    files: list[str],
) -> TaskAnswers:
    scoring = run.scoring(task)
    kind = _kind(scoring, [*before.values(), *after.values()])
    found = {who: rows for who, rows in (("base", before), ("tuned", after)) if rows}
    ids = list(after or before)
    rows = []
    for name in ids[:SHOWN]:
        both = [rows.get(name) for rows in (before, after)]
        known = next(row for row in reversed(both) if row is not None)
        reference = _string(known.get("reference"))
        listed = known.get(scoring.words_field) if scoring.words_field else None
        base, tuned = (_answer(row, reference, kind) if row else None for row in both)
        rows.append(
            Answered(
                name,
                ", ".join(map(str, listed)) if isinstance(listed, list) else "",
                _reference(reference, kind) if reference is not None else None,
                base,
                tuned,
            )
        )
    names = [f"predictions/{stem}.jsonl" for stem in files]
    read = {who: _readings(rows.values(), kind) for who, rows in found.items()}
    labels = label_tables({who: _labels(pairs) for who, pairs in read.items()})
    counts = [(who, _count(pairs, kind)) for who, pairs in read.items()]
    return TaskAnswers(task, split, step, len(ids), rows, counts, names, labels)


def _kind(scoring: Scoring, rows: Sequence[Row]) -> ScoringKind:
    """Build the kind that reads the answers; labels that are not given are those of the rows."""
    kind = reading_kind(scoring)
    references = [text for row in rows if (text := _string(row.get("reference"))) is not None]
    labels = [label for row in rows if (label := _string(row.get("label"))) is not None]
    with suppress(MetricError):
        return reading_kind(kind.settled(references, labels))
    return kind


def _reference(reference: str, kind: ScoringKind) -> Text:
    reading = kind.read(reference, reference=True)
    return _folded([Piece("same", reading.text)], label=reading.label or "")


def _answer(row: Row, reference: str | None, kind: ScoringKind) -> Text:
    ours, label = _read(row, kind), _read(row, kind).label or ""
    if reference is None:
        return _folded([Piece("same", ours.text)], label=label)
    theirs = kind.read(reference, reference=True)
    verdict = kind.verdict(ours, theirs)
    if theirs.label is not None and theirs.text == reference:  # no more than a label
        return _folded([Piece("same", ours.text)], verdict=verdict, label=label)
    return _marked(theirs.text, ours.text, verdict=verdict, label=label)


def _read(row: Row, kind: ScoringKind) -> Reading:
    """Read an answer, with the label that is saved, or of an older file the one that it gives."""
    reading = kind.read(_string(row.get("prediction")) or "")
    return replace(reading, label=_string(row["label"])) if "label" in row else reading


Readings = list[tuple[Reading, Reading]]
"""What answers and their references say."""


def _readings(rows: Iterable[Row], kind: ScoringKind) -> Readings:
    """Read all rows that have a reference."""
    return [
        (_read(row, kind), kind.read(reference, reference=True))
        for row in rows
        if (reference := _string(row.get("reference"))) is not None
    ]


def _count(pairs: Readings, kind: ScoringKind) -> str:
    """Count the verdicts."""
    verdicts = [kind.verdict(*pair) for pair in pairs]
    return ", ".join(
        f"{verdicts.count(verdict):,} {COUNTED.get(verdict, verdict)}" for verdict in kind.verdicts
    )


def _labels(pairs: Readings) -> list[tuple[str, str | None]]:
    """Return the right and the read label of each row that has a right one."""
    return [(right.label, answer.label) for answer, right in pairs if right.label is not None]


def _marked(reference: str, answer: str, *, verdict: str, label: str = "") -> Text:
    if not answer:
        return Text([], verdict, label, "empty")
    pieces, share = mark_differences(reference[:MOST_LETTERS], answer[:MOST_LETTERS])
    note = ""
    if share < LEAST_SHARE:
        note = "not marked: too little in common"
    if (rest := len(answer) - MOST_LETTERS) > 0:
        note = f"{rest:,} more letters in the file"
    return _folded(pieces, verdict=verdict, label=label, note=note)


def _folded(pieces: list[Piece], *, verdict: str = "", label: str = "", note: str = "") -> Text:
    preview, letters = [], 0
    for piece in pieces:
        room = FOLDED_LETTERS - letters
        preview.append(piece if len(piece.text) <= room else Piece(piece.kind, piece.text[:room]))
        letters += len(piece.text)
        if letters > FOLDED_LETTERS:
            return Text(pieces, verdict, label, note, tuple(preview))
    return Text(pieces, verdict, label, note)


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None
