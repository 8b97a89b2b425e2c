"""Check that a server's prompts, made by an exported chat template, are those of `predict`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tell_lightning.data.evaluation_rows import EvaluationRows, build
from tell_lightning.data.prediction_rows import settle_anchor
from tell_lightning.data.records import Conversation, Record
from tell_lightning.data.tokens import Encoder
from tell_lightning.data.variants import Variant
from tell_lightning.export.anchor_file import TaskPrompt
from tell_lightning.metrics.settings import Scoring


@dataclass(frozen=True)
class PromptCheck:
    """How many rows of a task have the prompt of `predict`, plain and with the anchor put on."""

    rows: int
    alike: int
    spelt: int
    """Rows with another prompt because their text spells a control token."""
    first_other: str
    """The first row with another prompt for another reason; empty if there is none."""


def check_prompts(
    encoder: Encoder,
    tokenizer: Any,
    records: Sequence[Record],
    task: TaskPrompt,
    variant: Variant,
    keywords: Mapping[str, str],
) -> PromptCheck:
    """Render rows as a server does, and compare the token ids with those of `predict`.

    Args:
        encoder: Tokenizer and renderer of the training.
        tokenizer: The exported tokenizer, with the exported template.
        records: The rows. Each is sent without its anchor, as callers would, and with it.
        task: How `predict` prompts the task.
        variant: The form of the anchor that prompts carry.
        keywords: `chat_template_kwargs` of the requests.
    """
    alike, spelt, first_other = 0, 0, ""
    for record in records:
        forms = {
            settle_anchor(record, task.anchor, kind, free=True)[0].prompt_turns: record
            for kind in ("none", variant)
        }
        if all(
            server_prompt(tokenizer, form, keywords)
            == list(predict_rows(encoder, [form], task, variant, max_new_tokens=1).prompts[0])
            for form in (Record(record.id, record.where, turns, record.row) for turns in forms)
        ):
            alike += 1
        elif encoder.renderer.spells_control(record):
            spelt += 1
        else:
            first_other = first_other or record.where
    return PromptCheck(len(records), alike, spelt, first_other)


def predict_rows(
    encoder: Encoder,
    records: Sequence[Record],
    task: TaskPrompt,
    variant: Variant,
    *,
    max_new_tokens: int | None = None,
) -> EvaluationRows:
    """Return rows as `predict` answers them.

    Args:
        encoder: Tokenizer and renderer of the training.
        records: The rows, all of them with the anchor or all without.
        task: How `predict` prompts the task.
        variant: The form of the anchor that prompts carry.
        max_new_tokens: Longest answer in tokens; None: as in training.
    """
    settled = [settle_anchor(record, task.anchor, variant, free=True) for record in records]
    return build(
        encoder,
        [record for record, _ in settled],
        task="",
        anchor=settled[0][1],
        variant=variant,
        scoring=Scoring(),
        max_new_tokens=max_new_tokens or task.max_new_tokens,
        min_new_tokens=min(task.min_new_tokens, max_new_tokens or task.max_new_tokens),
        stop_tokens=task.stop_tokens,
        forced=task.force_response_prefix,
    )


def server_prompt(
    tokenizer: Any, conversation: Conversation, keywords: Mapping[str, str]
) -> list[int]:
    """Return the token ids that a server makes of a conversation, without its last response."""
    ids: list[int] = tokenizer.apply_chat_template(
        messages(conversation), add_generation_prompt=True, return_dict=False, **keywords
    )
    return ids


def messages(conversation: Conversation) -> list[dict[str, str]]:
    """Return what a caller sends: the turns before the response."""
    return [{"role": turn.role, "content": turn.content} for turn in conversation.prompt_turns]
