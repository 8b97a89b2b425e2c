"""Answer a task's rows, on one process or on many, and bring the answers together.

Enters: a model and a task's rows. Leaves: one `Prediction` a row, in the order of the rows, the
same on every rank: rows are dealt out by index, gathered, and de-duplicated by index.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from torch import distributed

from tell_lightning.data.evaluation_rows import EvaluationRows
from tell_lightning.data.permutation import derive_key
from tell_lightning.generation.batched import Budget, generate
from tell_lightning.generation.decoding import Decoding
from tell_lightning.generation.prefix import Prefix
from tell_lightning.metrics.predictions import Prediction, strip_prefix


def answer_rows(
    model: Any,
    tokenizer: Any,
    rows: EvaluationRows,
    *,
    budget: Budget,
    prefix: Prefix | None = None,
    most: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
) -> list[Prediction]:
    """Generate an answer to every row.

    Args:
        model: The causal LM.
        tokenizer: Its tokenizer.
        rows: A task's rows.
        budget: Tokens of a batch; lowered where memory runs out.
        prefix: What this model has read of the prompts before these; None: there were none.
        most: Answer the first rows only; None for all.
        temperature: 0: greedy; above: tokens are drawn.
        seed: The run's seed; the draws of a row depend on it and on the row's id alone.
        rank: This process.
        world: Processes that share the rows.

    Returns:
        The predictions of all rows, on every rank.
    """
    chosen = range(len(rows) if most is None else min(most, len(rows)))
    mine = chosen[rank::world]
    prefix = prefix or Prefix()
    prefix.add([rows.prompts[index] for index in chosen])
    generated = generate(
        model,
        tokenizer,
        [rows.prompts[index] for index in mine],
        Decoding(
            stop_ids=rows.stop_ids,
            max_new_tokens=rows.max_new_tokens,
            min_new_tokens=rows.min_new_tokens,
            temperature=temperature,
        ),
        budget=budget,
        prefix=prefix,
        seeds=[derive_key(seed, "sampling", rows.records[index].id) for index in mine],
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
            prompt_tokens=len(rows.prompts[index]),
            prompt_sha256=prompt_digest(rows.prompts[index]),
            logprob=answer.logprob,
            near_ties=answer.near_ties,
        )
        answers.append((index, prediction))
    by_index = dict(_gather(answers, world))
    assert sorted(by_index) == list(chosen)
    return [by_index[index] for index in chosen]


def prompt_digest(ids: Sequence[int]) -> str:
    """Name a prompt by its token ids: the SHA-256 of their JSON list without spaces."""
    return sha256(json.dumps(list(ids), separators=(",", ":")).encode()).hexdigest()


def _gather(answers: list[tuple[int, Prediction]], world: int) -> Sequence[tuple[int, Prediction]]:
    if world == 1:
        return answers
    shares: list[Any] = [None] * world
    distributed.all_gather_object(shares, answers)
    return [answer for share in shares for answer in share]
