"""Answers side by side: reference, base, tuned, with what differs marked.

Enters: the predictions files of a run. Leaves: for each task its first rows, in the order of the
file and not chosen, and how many answers of all rows are right. Only the rows that are shown are
compared word by word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tell_lightning.metrics.labels import read_gold, read_label, read_object
from tell_lightning.metrics.settings import Scoring
from tell_lightning.report.contents import RunContents
from tell_lightning.report.differences import LEAST_SHARE, Piece, mark_differences

SHOWN = 20
"""Rows of a task on the page."""
MOST_LETTERS = 6000
"""Letters of a text on the page; the file has the rest."""
FOLDED_LETTERS = 600
"""A longer text is folded, so many letters of it stay in view."""


@dataclass(frozen=True)
class Text:
    """An answer, or the reference, ready to be marked up."""

    pieces: list[Piece]
    verdict: str = ""
    """A judge's: right, wrong or unreadable; else exact for an answer equal to its reference."""
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
        return _compared(task, split, kept, run.scoring(task), before, after, files)
    return None


AnswersById = Mapping[str, Mapping[str, Any]]


def _compared(
    task: str,
    split: str,
    step: int | None,
    scoring: Scoring,
    before: AnswersById,
    after: AnswersById,
    files: list[str],
) -> TaskAnswers:
    ids = list(after or before)
    rows = []
    for name in ids[:SHOWN]:
        both = [rows.get(name) for rows in (before, after)]
        known = next(row for row in reversed(both) if row is not None)
        reference = _string(known.get("reference"))
        listed = known.get(scoring.words_field) if scoring.words_field else None
        base, tuned = (_answer(row, reference, scoring) if row else None for row in both)
        rows.append(
            Answered(
                name,
                ", ".join(map(str, listed)) if isinstance(listed, list) else "",
                _reference(reference, scoring) if reference is not None else None,
                base,
                tuned,
            )
        )
    counts = [
        (who, _count(rows_of, scoring))
        for who, rows_of in (("base", before), ("tuned", after))
        if rows_of
    ]
    names = [f"predictions/{stem}.jsonl" for stem in files]
    return TaskAnswers(task, split, step, len(ids), rows, counts, names)


def _reference(reference: str, scoring: Scoring) -> Text:
    if scoring.kind != "judge":
        return _folded([Piece("same", reference)])
    label = read_gold(reference, scoring.label_key, scoring.labels)
    return _folded([Piece("same", _thought(reference, scoring))], label=label or "")


def _answer(row: Mapping[str, Any], reference: str | None, scoring: Scoring) -> Text:
    answer = _string(row.get("prediction")) or ""
    if scoring.kind == "judge":
        label = _label(row, scoring)
        verdict = _verdict(row, scoring)
        ours = _thought(answer, scoring)
        theirs = _thought(reference, scoring) if reference is not None else ours
        return _marked(theirs, ours, verdict=verdict, label=label or "")
    if reference is None:
        return _folded([Piece("same", answer)])
    return _marked(reference, answer, verdict=_verdict(row, scoring))


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


def _verdict(row: Mapping[str, Any], scoring: Scoring) -> str:
    """Say whether an answer is right, where that can be said of it alone."""
    reference = _string(row.get("reference"))
    if reference is None:
        return ""
    if scoring.kind != "judge":
        return "exact" if (row.get("prediction") or "").strip() == reference.strip() else ""
    label = _label(row, scoring)
    if label is None:
        return "unreadable"
    gold = read_gold(reference, scoring.label_key, scoring.labels)
    return "right" if label == gold else "wrong"


def _count(rows: AnswersById, scoring: Scoring) -> str:
    verdicts = [_verdict(row, scoring) for row in rows.values()]
    if scoring.kind != "judge":
        return f"{verdicts.count('exact'):,} equal to the reference"
    return ", ".join(
        f"{verdicts.count(kind):,} {kind}" for kind in ("right", "wrong", "unreadable")
    )


def _label(row: Mapping[str, Any], scoring: Scoring) -> str | None:
    """Return the label that is saved, or of an older file the one that its answer holds."""
    if "label" in row:
        return _string(row["label"])
    answer = _string(row.get("prediction")) or ""
    return read_label(answer, scoring.label_key, scoring.labels)


def _thought(text: str, scoring: Scoring) -> str:
    """Return the thought of an answer; all of a text that holds none."""
    thought = (read_object(text) or {}).get(scoring.thought_key)
    return thought if isinstance(thought, str) and thought else text


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None
