"""The rows that a task is evaluated on, ready for generation.

`EvaluationRows` are made of the records of a dev, test or prediction set: prompts in tokens with
the same anchor and template as in training, references without the response prefix, and how to
score.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tell_lightning.data.anchors import Anchor, Example, reference_text
from tell_lightning.data.records import Record
from tell_lightning.data.settings import Task
from tell_lightning.data.tokens import Encoder, TokenError
from tell_lightning.data.variants import Variant, apply_anchor, variant_prefix
from tell_lightning.metrics.kinds.registry import kind_of
from tell_lightning.metrics.predictions import MetricError
from tell_lightning.metrics.settings import Scoring


@dataclass(frozen=True)
class EvaluationRows:
    """One task's rows of one split, in the order of the file."""

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

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.records)


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
        variant: Which form of it the prompts carry, as in training.
        scoring: How the answers are scored.
        max_new_tokens: Longest answer in tokens.
        min_new_tokens: Tokens of an answer before it may end.
        stop_tokens: Texts of one token that end an answer beside the end of the turn.
        forced: Whether answers are made to begin with the response prefix.

    Raises:
        TokenError: A stop token that is none, or a least length above the longest.
    """
    if not 0 <= min_new_tokens <= max_new_tokens:
        raise TokenError(
            f"data.tasks.{task}.min_new_tokens: must be 0 to max_new_tokens ({max_new_tokens}), "
            f"got {min_new_tokens}. Lower it, or raise max_new_tokens."
        )
    where = f"data.tasks.{task}.stop_tokens"
    more = [encoder.token_id(text, where) for text in stop_tokens]
    examples = tuple(evaluation_example(record, anchor, variant) for record in records)
    response_prefix = variant_prefix(anchor, variant)
    if forced and response_prefix.strip():
        prompts, response_prefix = encoder.begun_ids(examples, response_prefix), ""
    else:
        prompts = encoder.prompt_ids(examples)
    return EvaluationRows(
        task=task,
        records=tuple(records),
        examples=examples,
        prompts=tuple(tuple(ids) for ids in prompts),
        references=tuple(reference_text(record, anchor) for record in records),
        response_prefix=response_prefix,
        stop_ids=tuple(dict.fromkeys((*encoder.renderer.stop_ids, *more))),
        max_new_tokens=max_new_tokens,
        scoring=scoring,
        min_new_tokens=min_new_tokens,
        variant=variant,
    )


def with_swapped_anchor(encoder: Encoder, rows: EvaluationRows, anchor: Anchor) -> EvaluationRows:
    """Take the anchor off the prompts of a task's rows, or put it on where they have none.

    The response prefix is still looked for and stripped, though it is not asked for any more; it
    is not forced.
    """
    variant: Variant = "given" if rows.variant == "none" else "none"
    examples = tuple(evaluation_example(record, anchor, variant) for record in rows.records)
    return replace(
        rows,
        examples=examples,
        prompts=tuple(tuple(ids) for ids in encoder.prompt_ids(examples)),
        response_prefix=anchor.response_prefix,
        variant=variant,
    )


def evaluation_example(record: Record, anchor: Anchor, variant: Variant) -> Example:
    """Put the anchor on a row to evaluate, or take it off.

    Its reference may lack the response prefix, which is stripped before scoring anyhow.
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
    """Allow a quarter more than the longest known answer and eight tokens, at least."""
    answers = [
        example.turns[-1].content for example in examples if example.turns[-1].role == "assistant"
    ]
    return int(max(encoder.count(answers), default=256) * 1.25) + 8
