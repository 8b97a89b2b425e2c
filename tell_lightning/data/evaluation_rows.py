"""The rows that a task is evaluated on, ready for generation.

Enters: records of a dev or test split. Leaves: `EvaluationRows`: prompts in tokens with the same
anchor and template as in training, references without the response prefix, and how to score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tell_lightning.data.anchors import Anchor, Example, reference_text
from tell_lightning.data.records import Record
from tell_lightning.data.tokens import Encoder
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

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.records)


def default_max_new_tokens(encoder: Encoder, examples: Sequence[Example]) -> int:
    """Allow a quarter more than the longest known answer, and eight tokens at least."""
    answers = [
        example.turns[-1].content for example in examples if example.turns[-1].role == "assistant"
    ]
    return int(max(encoder.count(answers), default=256) * 1.25) + 8


def references(records: Sequence[Record], anchor: Anchor) -> tuple[str | None, ...]:
    """Return the gold answers without the response prefix."""
    return tuple(reference_text(record, anchor) for record in records)
