"""Tokenise the records of a source: give each its anchor, and settle what is too long or refused.

A record becomes one row. Where the chat template changes earlier turns, each response of a
conversation becomes a row of its own.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tell_lightning.data.anchors import Anchor, Example, anchor_record
from tell_lightning.data.records import Record, Turn
from tell_lightning.data.settings import Overlong
from tell_lightning.data.templates import Renderer, TemplateError
from tell_lightning.data.tokens import Encoder, TokenError, TokenRow
from tell_lightning.data.variants import Variant, apply_anchor


@dataclass(frozen=True)
class Encoded:
    """The token rows of records.

    Attributes:
        rows: Token rows, in the order of the records.
        records: For each row, its record, or the part of it that the row ends with.
        dropped: One line for each row left out, as it is too long.
        bad: One line for each row that cannot be rendered or tokenised, if such rows are skipped.
        counts: Numbers of rows that something was done to, by what it was.
    """

    rows: list[TokenRow]
    records: list[Record]
    dropped: tuple[str, ...]
    bad: tuple[str, ...]
    counts: Counter[str]


def encode_source(
    encoder: Encoder,
    records: Sequence[Record],
    anchor: Anchor,
    *,
    name: str,
    variant: Variant,
    max_tokens: int,
    overlong: Overlong,
    skip: bool = False,
) -> Encoded:
    """Tokenise records of a source, and drop or cut those that are too long.

    Args:
        encoder: Tokenizer and renderer.
        records: Some or all records of the source.
        anchor: The task's anchor; an empty one for general sources.
        name: Configuration key of the source, for messages.
        variant: The form of the anchor that the examples carry.
        max_tokens: Longest example.
        overlong: error, drop, or truncate_prompt.
        skip: Whether rows that cannot be rendered or tokenised are left out.

    Raises:
        TokenError: An example is too long under `error`, cannot be cut to fit, or has no tokens to
            train on.
        TemplateError: The chat template cannot render an example.
    """
    counts: Counter[str] = Counter()
    parts: list[Record] = []
    examples: list[Example] = []
    for record in records:
        example = apply_anchor(record, anchor, variant)
        counts["control_text"] += encoder.renderer.spells_control(example)
        counts["without_thinking"] += encoder.renderer.strips_thinking(example)
        counts["system_in_prompt"] += (
            encoder.renderer.folds_system and example.turns[0].role == "system"
        )
        pieces = _split(encoder.renderer, record, example)
        parts += pieces
        whole = len(pieces) == 1
        examples += [example] if whole else [apply_anchor(p, anchor, variant) for p in pieces]
    counts["extra_rows"] = len(parts) - len(records)
    bad: list[str] = []
    try:
        rows = encoder.encode(examples)
    except (TemplateError, TokenError):
        if not skip:
            raise
        parts, rows, bad = _encode_each(encoder, parts, examples)
    kept: list[tuple[Record, TokenRow]] = []
    dropped: list[str] = []
    for part, row in zip(parts, rows, strict=True):
        length = len(row.input_ids)
        if length > max_tokens and overlong == "error":
            raise TokenError(
                f"{part.where}: an example must fit data.max_tokens {max_tokens}, got {length} "
                f"tokens. Raise data.max_tokens, or set {name}.overlong: truncate_prompt or drop."
            )
        if length > max_tokens and overlong == "drop":
            dropped.append(f"{part.where}: {length} tokens, more than {max_tokens}, left out")
            continue
        if length > max_tokens:
            row = _truncate_prompt(encoder, part, anchor, variant, max_tokens)
            counts["truncated"] += 1
        kept.append((part, row))
    return Encoded(
        [row for _, row in kept],
        [part for part, _ in kept],
        tuple(dropped),
        tuple(bad),
        counts,
    )


def _encode_each(
    encoder: Encoder, parts: Sequence[Record], examples: Sequence[Example]
) -> tuple[list[Record], list[TokenRow], list[str]]:
    """Encode examples one by one; return a line for each that cannot be encoded."""
    good: list[Record] = []
    rows: list[TokenRow] = []
    bad: list[str] = []
    for part, example in zip(parts, examples, strict=True):
        try:
            rows += encoder.encode([example])
            good.append(part)
        except (TemplateError, TokenError) as error:
            bad.append(str(error))
    return good, rows, bad


def _split(renderer: Renderer, record: Record, example: Example) -> list[Record]:
    """Cut a record into one for each row, usually one."""
    ends = renderer.split(example)
    if len(ends) == 1:
        return [record]
    missing = [len(example.turns) - end for end in ends]
    return [
        replace(
            record,
            id=f"{record.id}/{number}",
            turns=record.turns[: len(record.turns) - behind],
            last_only=True,
        )
        for number, behind in enumerate(missing, start=1)
    ]


def _truncate_prompt(
    encoder: Encoder, record: Record, anchor: Anchor, variant: Variant, max_tokens: int
) -> TokenRow:
    """Cut the end of the last user turn, but no part of the response, anchor or template."""
    example = apply_anchor(record, anchor, variant)
    *before, prompt, response = example.turns
    text = anchor_record(record, anchor, anchored=False).turns[-2].content
    anchor_is_last = anchor.position == "suffix" or variant == "end"
    start = 0 if anchor_is_last else len(prompt.content) - len(text)
    first, end = start + len(text) - len(text.lstrip()), start + len(text)

    def attempt(characters: int) -> TokenRow:
        cut = Turn("user", prompt.content[: first + characters] + prompt.content[end:])
        return encoder.encode([replace(example, turns=(*before, cut, response))])[0]

    def fits(characters: int) -> bool:
        return len(attempt(characters).input_ids) <= max_tokens

    longest = end - first
    # The range falls: its first element that fits is the most characters that fit.
    fitting = longest - bisect_left(range(longest, 0, -1), True, key=fits)
    if not fitting:
        raise TokenError(
            f"{record.where}: response, anchor and template alone are longer than data.max_tokens "
            f"{max_tokens}. Raise data.max_tokens or remove the row."
        )
    return attempt(fitting)
