"""A table of answers for the dashboard, each beside its prompt and reference, with its score.

The first answers of an evaluation go to every logger that takes tables. The score of a row is what
the task's scoring kind says of one answer.
"""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl

from tell_lightning.data.anchors import Example
from tell_lightning.data.evaluation_rows import EvaluationRows
from tell_lightning.metrics.kinds.registry import kind_of
from tell_lightning.metrics.predictions import Prediction

LONGEST = 2000
"""Characters of a text in a table; a longer one ends in an ellipsis."""


def log_samples(
    trainer: pl.Trainer,
    key: str,
    rows: EvaluationRows,
    predictions: Sequence[Prediction],
    most: int,
) -> None:
    """Send a table of answers to the loggers of this process that take tables.

    Args:
        trainer: Has the loggers.
        key: Name of the table.
        rows: What was asked.
        predictions: What was answered, one for each row or for the first ones.
        most: Answers to send, from the first on.
    """
    loggers = [logger for logger in trainer.loggers if hasattr(logger, "log_table")]
    if loggers and predictions[:most] and trainer.is_global_zero:
        columns, data = samples_table(rows, predictions[:most])
        for logger in loggers:
            logger.log_table(key, columns=columns, data=data, step=trainer.global_step)


def samples_table(
    rows: EvaluationRows, predictions: Sequence[Prediction]
) -> tuple[list[str], list[list[Any]]]:
    """Return the columns of the table, and one row an answer: text, numbers and yes or no alone."""
    prompts = {example.id: prompt_text(example) for example in rows.examples}
    kind = kind_of(rows.scoring)
    table: list[dict[str, Any]] = []
    for prediction in predictions:
        answer, reference = prediction.prediction, prediction.reference or ""
        shown = {
            "prompt": prompts[prediction.id],
            "prediction": answer,
            "reference": reference,
        }
        shown = {name: shorten(value) for name, value in shown.items()}
        table.append({"id": prediction.id} | shown | kind.columns(answer, reference))
    return list(table[0]), [list(row.values()) for row in table]


def prompt_text(example: Example) -> str:
    """Return what the model is asked: every turn but the answer."""
    *before, last = example.turns
    turns = before if last.role == "assistant" else example.turns
    return "\n\n".join(turn.content for turn in turns)


def shorten(long: str) -> str:
    """Cut a text that is too long for a table.

    >>> len(shorten("a" * 9999)), shorten("short")
    (2000, 'short')
    """
    return long if len(long) <= LONGEST else long[: LONGEST - 1] + "…"
