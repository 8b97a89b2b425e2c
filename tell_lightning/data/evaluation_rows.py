"""The rows that a task is evaluated on, ready for generation and scoring.

Prompts have the same anchor and template as in training; references have no response prefix.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tell_lightning.data.anchors import Anchor, Example, reference_text
from tell_lightning.data.records import Record
from tell_lightning.data.settings import Task
from tell_lightning.data.tokens import Encoder, TokenError
from tell_lightning.data.variants import Variant, apply_anchor, variant_prefix
from tell_lightning.metrics.kinds.registry import kind_of
from tell_lightning.metrics.predictions import MetricError, Prediction
from tell_lightning.metrics.settings import Scoring

MOST_TOKENS = 8_192
"""Of a prompt behind task examples and its answer; also where a base has more positions."""


@dataclass(frozen=True)
class EvaluationRows:
    """The rows of one task and split, in the order of the file."""

    task: str
    records: tuple[Record, ...]
    examples: tuple[Example, ...]
    prompts: tuple[tuple[int, ...], ...]
    references: tuple[str | None, ...]
    response_prefix: str
    stop_ids: tuple[int, ...]
    max_new_tokens: int
    scoring: Scoring
    min_new_tokens: int = 0
    variant: Variant = "given"
    forced: str = ""
    """The beginning of every answer, which stands at the end of the prompt."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.records)

    def perfect_answers(self) -> list[Prediction]:
        """Take the references for answers, to see what the best possible answers score."""
        return [
            Prediction(
                id=record.id,
                prediction=reference or "",
                reference=reference,
                row=record.row,
                stopped=True,
                prefix_found=None,
                new_tokens=0,
            )
            for record, reference in zip(self.records, self.references, strict=True)
        ]


def build(
    encoder: Encoder,
    records: Sequence[Record],
    *,
    task: str,
    anchor: Anchor,
    variant: Variant,
    scoring: Scoring,
    max_new_tokens: int,
    min_new_tokens: int = 0,
    stop_tokens: Sequence[str] = (),
    forced: bool = False,
) -> EvaluationRows:
    """Render and tokenise the prompts of a task's rows.

    Args:
        encoder: Tokenizer and renderer.
        records: The rows, with or without a response.
        task: The task's name.
        anchor: The task's anchor.
        variant: The form of the anchor that the prompts carry, as in training.
        scoring: How the answers are scored.
        max_new_tokens: Longest answer in tokens.
        min_new_tokens: Shortest answer in tokens.
        stop_tokens: Texts of one token each that end an answer, besides the end of the turn.
        forced: Whether answers are forced to begin with the response prefix.

    Raises:
        TokenError: A stop text is not one token, `min_new_tokens` is above `max_new_tokens`, or a
            prompt is longer than the positions of the model.
    """
    if not 0 <= min_new_tokens <= max_new_tokens:
        raise TokenError(
            f"data.tasks.{task}.min_new_tokens: must be 0 to max_new_tokens ({max_new_tokens}), "
            f"got {min_new_tokens}. Lower it, or raise max_new_tokens."
        )
    where = f"data.tasks.{task}.stop_tokens"
    own_stop_ids = [encoder.token_id(text, where) for text in stop_tokens]
    examples = tuple(evaluation_example(record, anchor, variant) for record in records)
    prefix = variant_prefix(anchor, variant)
    beginning = prefix if forced and prefix.strip() else ""
    prompts = _prompts(encoder, examples, beginning)
    _check_positions(encoder, examples, prompts, max_new_tokens)
    return EvaluationRows(
        task=task,
        records=tuple(records),
        examples=examples,
        prompts=prompts,
        references=tuple(reference_text(record, anchor) for record in records),
        response_prefix="" if beginning else prefix,
        stop_ids=tuple(dict.fromkeys((*encoder.renderer.stop_ids, *own_stop_ids))),
        max_new_tokens=max_new_tokens,
        scoring=scoring,
        min_new_tokens=min_new_tokens,
        variant=variant,
        forced=beginning,
    )


def with_swapped_anchor(encoder: Encoder, rows: EvaluationRows, anchor: Anchor) -> EvaluationRows:
    """Take the anchor off the prompts of a task's rows, or put it on if they have none.

    The response prefix is not forced. It is stripped from answers that begin with it.
    """
    variant: Variant = "given" if rows.variant == "none" else "none"
    examples = tuple(evaluation_example(record, anchor, variant) for record in rows.records)
    prompts = _prompts(encoder, examples)
    _check_positions(encoder, examples, prompts, rows.max_new_tokens)
    return replace(
        rows,
        examples=examples,
        prompts=prompts,
        response_prefix=anchor.response_prefix,
        variant=variant,
        forced="",
    )


def with_shots(
    encoder: Encoder, rows: EvaluationRows, shots: Sequence[Example]
) -> tuple[EvaluationRows, int]:
    """Put task examples before every prompt, as earlier turns of the conversation.

    System texts of the examples are left out; that of the row stays. All rows get the same
    examples in the same order.

    Args:
        encoder: Tokenizer and renderer.
        rows: A task's rows.
        shots: Examples with responses. The first ones are taken, as many as leave room for the
            longest prompt and its answer in the positions of the model and in `MOST_TOKENS`.

    Returns:
        The rows, and the number of examples before each prompt.

    Raises:
        TokenError: There are examples, but no room for a single one.
    """
    longest = max(range(len(rows)), key=lambda index: len(rows.prompts[index]))
    most = min(encoder.limits.positions or MOST_TOKENS, MOST_TOKENS)

    def fits(number: int) -> bool:
        example = _after(shots[:number], rows.examples[longest])
        (prompt,) = _prompts(encoder, [example], rows.forced)
        return len(prompt) + rows.max_new_tokens <= most

    # The range falls: its first element that fits is the most examples that fit.
    number = len(shots) - bisect_left(range(len(shots), 0, -1), True, key=fits)
    if shots and not number:
        raise TokenError(
            f"{rows.examples[longest].where}: a prompt behind a task example, and its answer, must "
            f"fit {most:,} tokens, got no room for an example. Shorten the row, or use a base with "
            f"more positions, of which at most {MOST_TOKENS:,} are used."
        )
    examples = tuple(_after(shots[:number], example) for example in rows.examples)
    prompts = _prompts(encoder, examples, rows.forced)
    return replace(rows, examples=examples, prompts=prompts), number


def _after(shots: Sequence[Example], example: Example) -> Example:
    """Put the turns of other examples before those of an example; its own system turn stays."""
    system = example.turns[:1] if example.turns[0].role == "system" else ()
    earlier = [turn for shot in shots for turn in shot.turns if turn.role != "system"]
    turns = (*system, *earlier, *example.turns[len(system) :])
    return replace(example, turns=turns, last_only=True)


def _prompts(
    encoder: Encoder, examples: Sequence[Example], beginning: str = ""
) -> tuple[tuple[int, ...], ...]:
    """Tokenise prompts, with the beginning of the answer if answers are forced to have one."""
    found = encoder.begun_ids(examples, beginning) if beginning else encoder.prompt_ids(examples)
    return tuple(tuple(ids) for ids in found)


def _check_positions(
    encoder: Encoder, examples: Sequence[Example], prompts: Sequence[Sequence[int]], answer: int
) -> None:
    for example, prompt in zip(examples, prompts, strict=True):
        encoder.check_positions(example.where, len(prompt), answer)


def evaluation_example(record: Record, anchor: Anchor, variant: Variant) -> Example:
    """Put the anchor on a row to evaluate, or take it off.

    The reference may lack the response prefix, because scoring strips it.
    """
    return apply_anchor(record, anchor, variant, check_reference=False)


def settled_scoring(task: Task, name: str, records: Sequence[Record]) -> Scoring:
    """Build the scoring kind of a task, and take from its rows what the settings leave to them.

    Args:
        task: The task's settings.
        name: Its name.
        records: All of its rows.

    Raises:
        MetricError: The scoring does not fit, or there is no such kind or class.
    """
    references = (reference_text(record, task.anchor) for record in records)
    try:
        return kind_of(task.scoring).settled(text for text in references if text is not None)
    except MetricError as error:
        if str(error).startswith("scoring."):
            raise MetricError(f"data.tasks.{name}.{error}") from error
        raise


def default_max_new_tokens(encoder: Encoder, examples: Sequence[Example]) -> int:
    """Return the longest known answer, a quarter more, plus eight tokens; 328 if none is known."""
    answers = [example.response for example in examples if example.response is not None]
    return int(max(encoder.count(answers), default=256) * 1.25) + 8
