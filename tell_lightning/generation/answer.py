"""Answer a task's rows on one or several processes, and gather the predictions on every rank."""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, TypeVar

from torch import distributed

from tell_lightning.data.evaluation_rows import EvaluationRows
from tell_lightning.data.permutation import derive_key
from tell_lightning.generation.batched import Budget, generate
from tell_lightning.generation.decoding import Decoding
from tell_lightning.generation.prefix import Prefix
from tell_lightning.metrics.predictions import Prediction, strip_prefix

Gathered = TypeVar("Gathered")


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
    answered: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """Generate an answer to every row.

    Args:
        model: The causal LM.
        tokenizer: Its tokenizer.
        rows: A task's rows.
        budget: Tokens of a batch; lowered if memory runs out.
        prefix: The prefix of earlier calls with this model; None for the first call.
        most: Number of rows to answer, from the first; None for all.
        temperature: 0: greedy; above 0: tokens are drawn.
        seed: The run's seed. The draws of a row only depend on it and on the row's id.
        rank: Rank of this process.
        world: Number of processes that share the rows.
        answered: Called after each batch of this process with its number of rows.

    Returns:
        The predictions of all rows in their order, the same on every rank.
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
        answered=answered,
    )
    answers: list[tuple[int, Prediction]] = []
    for index, answer in zip(mine, generated, strict=True):
        text, prefix_found = strip_prefix(answer.text, rows.response_prefix)
        record = rows.records[index]
        prediction = Prediction(
            id=record.id,
            prediction=text,
            reference=rows.references[index],
            row=record.row,
            stopped=answer.stopped,
            prefix_found=prefix_found,
            new_tokens=len(answer.token_ids),
            prompt_tokens=len(rows.prompts[index]),
            prompt_sha256=prompt_digest(rows.prompts[index]),
            logprob=answer.logprob,
            near_ties=answer.near_ties,
        )
        answers.append((index, prediction))
    by_index = dict(gather(answers, world))
    assert sorted(by_index) == list(chosen)
    return [by_index[index] for index in chosen]


def prompt_digest(ids: Sequence[int]) -> str:
    """Digest the token ids of a prompt: the SHA-256 of their JSON list without spaces."""
    return sha256(json.dumps(list(ids), separators=(",", ":")).encode()).hexdigest()


def gather(answers: list[Gathered], world: int) -> list[Gathered]:
    """Return what all processes have, in the order of their ranks; a collective if world > 1."""
    if world == 1:
        return answers
    shares: list[Any] = [None] * world
    distributed.all_gather_object(shares, answers)
    return [answer for share in shares for answer in share]
