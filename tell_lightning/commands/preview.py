"""What the scores of a run can say, shown before training: references and baselines as answers.

    translate: BLEU of 64 dev rows: references 100.0, copy source 0.6
    The adapter of the best BLEU on dev is kept.

A mistake in the settings of scoring, or a reference that cannot be used, is an error here, where
nothing has been trained yet.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tell_lightning.callbacks.settings import EvalSettings
from tell_lightning.data.evaluation_rows import EvaluationRows
from tell_lightning.metrics.kinds.base import ScoringKind
from tell_lightning.metrics.kinds.registry import BUILT_IN
from tell_lightning.metrics.predictions import MetricError
from tell_lightning.metrics.score import baseline_answers, check_rows, primary_score, users_errors
from tell_lightning.metrics.score_facts import ScoreFacts, facts_of

if TYPE_CHECKING:
    from tell_lightning.data.prepared import PreparedData


def scoring_lines(data: "PreparedData", settings: EvalSettings) -> list[str]:
    """Check every row that will be scored, and say what each task's first score can be.

    Args:
        data: The data of the run, opened.
        settings: The `eval` section.

    Raises:
        MetricError: A row or a setting that cannot be scored, or a score that is 0 even for perfect
            answers.
    """
    lines: list[str] = []
    scores: dict[str, str] = {}
    for name in data.settings.tasks:
        shown = False
        for split, most in (("dev", settings.dev_rows), ("test", settings.test_rows)):
            rows = data.evaluation[split].get(name)
            if rows is None or not len(rows) or (split == "test" and not settings.test):
                continue
            with _task_named(name, split):
                kind = check_rows(rows.scoring, rows.perfect_answers())
            if shown:
                continue
            with _task_named(name, "train"), users_errors(kind):
                lines += _unreadable(name, kind, data.trained_answers(name))
            with _task_named(name, split), users_errors(kind):
                found = _Preview(kind, rows, most)
                scores |= {name: found.facts.label} if split == "dev" else {}
                lines.append(f"{name}: {found.words(split)}")
                lines += [f"note: data.tasks.{name}.{note}" for note in found.notes()]
            shown = True
    return [*lines, *_choice(scores, settings)] if lines else []


def print_lines(lines: list[str]) -> None:
    """Print what `scoring_lines` found; its notes to standard error."""
    for line in lines:
        print(line, file=sys.stderr if line.startswith("note: ") else sys.stdout)


class _Preview:
    """The first score of a task, for its references and for its baselines as the answers."""

    def __init__(self, kind: ScoringKind, rows: EvaluationRows, most: int | None) -> None:
        self.kind = kind
        self.facts: ScoreFacts = facts_of(kind.primary, kind.facts)
        answers = [
            replace(each, prediction=kind.perfect(each.reference or ""))
            for each in rows.perfect_answers()[:most]
        ]
        self.rows = len(answers)
        self.references = [answer.reference or "" for answer in answers]
        self.best = primary_score(kind, answers)
        self.baselines = {
            name: primary_score(kind, baseline_answers(name, baseline, answers))
            for name, baseline in kind.scoring.baselines.items()
        }
        if kind.scoring.kind in BUILT_IN and self.facts.selection(self.best) == 0:
            raise MetricError(
                f"scoring.primary: perfect answers must score above 0, got {kind.primary} "
                f"{self.facts.written(self.best)} for the references themselves. Choose another "
                f"score, such as scoring.primary: {_other(kind)}."
            )

    def words(self, split: str) -> str:
        """Say what the score can be."""
        scores = {"references": self.best, **self.baselines}
        told = ", ".join(
            f"{name.replace('_', ' ')} {self.facts.written(value)}{self.facts.unit}"
            for name, value in scores.items()
        )
        scoring = self.kind.scoring
        how = f" ({scoring.tokenize})" if scoring.kind == "translation" else ""
        return f"{self.facts.label}{how} of {self.rows:,} {split} rows: {told}"

    def notes(self) -> Iterator[str]:
        """Say what in the settings hardly fits the rows."""
        yield from self.kind.notes(self.references)
        best = self.facts.selection(self.best)
        for name, value in self.baselines.items():
            if self.facts.selection(value) >= best:
                yield (
                    f"scoring.baselines.{name}: it scores {self.facts.written(value)}, the "
                    f"references themselves {self.facts.written(self.best)}, so there is nothing "
                    "to learn by this score. Choose another scoring.primary, or other rows."
                )


def _unreadable(name: str, kind: ScoringKind, trained: Sequence[str]) -> Iterator[str]:
    """Look for training responses that would not be read, were they a model's answers.

    Raises:
        MetricError: None of them would be.
    """
    faults = [
        text
        for text in trained
        if kind.verdict(kind.read(text), kind.read(text, reference=True)) == "unreadable"
    ]
    if not faults:
        return
    fault = (
        f"responses must be answers that scoring.kind: {kind.scoring.kind} can read, got "
        f"{faults[0]!r:.80} (in {len(faults):,} of {len(trained):,} rows). Correct the rows, "
        "scoring.label_key or scoring.labels; plain labels are scoring.kind: classification."
    )
    if len(faults) == len(trained):
        raise MetricError(fault)
    yield f"note: data.tasks.{name}.train: {fault}"


def _other(kind: ScoringKind) -> str:
    """Name a score that may be chosen instead: character n-grams where words are too few."""
    return "chrf" if kind.primary.startswith("bleu") else kind.table[0]


def _choice(scores: dict[str, str], settings: EvalSettings) -> Iterator[str]:
    """Say by which score the adapter is chosen."""
    if settings.select == "last" or not scores:
        why = "eval.select: last" if scores else "there are no dev rows"
        yield f"The adapter of the last step is kept: {why}."
    elif len(scores) == 1:
        yield f"The adapter with the best {next(iter(scores.values()))} on dev is kept."
    else:
        yield (
            f"The adapter with the best mean of {', '.join(scores.values())} on dev, each from 0 "
            "to 1, is kept."
        )


@contextmanager
def _task_named(name: str, split: str) -> Iterator[None]:
    """Name the task and the split in an error."""
    try:
        yield
    except MetricError as error:
        place = "." if str(error).startswith("scoring.") else f".{split}: "
        raise MetricError(f"data.tasks.{name}{place}{error}") from error
