"""Answer a task's rows, on one process or on many, and bring the answers together.

Enters: a model and a task's rows. Leaves: one `Prediction` a row, in the order of the rows, the
same on every rank: rows are dealt out by index, gathered, and de-duplicated by index.
"""

from collections.abc import Sequence
from typing import Any

from torch import distributed

from tell_lightning.data.evaluation_rows import EvaluationRows
from tell_lightning.generation.greedy import generate
from tell_lightning.metrics.predictions import Prediction, strip_prefix


def answer_rows(
    model: Any,
    tokenizer: Any,
    rows: EvaluationRows,
    *,
    batch_tokens: int,
    most: int | None = None,
    rank: int = 0,
    world: int = 1,
) -> list[Prediction]:
    """Generate an answer to every row.

    Args:
        model: The causal LM.
        tokenizer: Its tokenizer.
        rows: A task's rows.
        batch_tokens: Tokens of a batch, padding and answers included.
        most: Answer the first rows only; None for all.
        rank: This process.
        world: Processes that share the rows.

    Returns:
        The predictions of all rows, on every rank.
    """
    chosen = range(len(rows) if most is None else min(most, len(rows)))
    mine = chosen[rank::world]
    generated = generate(
        model,
        tokenizer,
        [rows.prompts[index] for index in mine],
        stop_ids=rows.stop_ids,
        max_new_tokens=rows.max_new_tokens,
        batch_tokens=batch_tokens,
    )
    answers: list[tuple[int, Prediction]] = []
    for index, answer in zip(mine, generated, strict=True):
        text, found = strip_prefix(answer.text, rows.response_prefix)
        record = rows.records[index]
        prediction = Prediction(
            id=record.id,
            prediction=text,
            reference=rows.references[index],
            row=record.row,
            stopped=answer.stopped,
            prefix_found=found,
            new_tokens=len(answer.token_ids),
        )
        answers.append((index, prediction))
    by_index = dict(_gather(answers, world))
    assert sorted(by_index) == list(chosen)
    return [by_index[index] for index in chosen]


def _gather(answers: list[tuple[int, Prediction]], world: int) -> Sequence[tuple[int, Prediction]]:
    if world == 1:
        return answers
    shares: list[Any] = [None] * world
    distributed.all_gather_object(shares, answers)
    return [answer for share in shares for answer in share]
