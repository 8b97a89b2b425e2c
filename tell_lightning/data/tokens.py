"""Examples become token rows; which tokens are supervised is decided here.

Enters: examples and the renderer. Leaves: `TokenRow(input_ids, supervised)`. Labels are not
shifted here: `model.loss` does that, in one place.

    <|user|> Translate: tovi ...<|end|> <|assistant|> The dog ...<|end|>
    .................. context, not trained ......... ##### trained ####

The prompt is tokenised by itself, exactly as generation does it; the response follows it. Nothing
adds special tokens a second time. Costs two tokeniser calls an example, batched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tell_lightning.data.anchors import Anchor, Example, anchor_record
from tell_lightning.data.permutation import Indices
from tell_lightning.data.records import Record, Turn
from tell_lightning.data.settings import Overlong
from tell_lightning.data.templates import Renderer
from tell_lightning.data.variants import Variant, apply_anchor
from tell_lightning.errors import TellError


class TokenError(TellError):
    """An example that cannot be trained on."""


class TokenRow(NamedTuple):
    """One example in tokens; `supervised[i]` says whether token i is a target."""

    input_ids: list[int]
    supervised: list[bool]


class Lengths(NamedTuple):
    """Tokens of every row of a source, in all and supervised; arrays of one length, int32."""

    tokens: NDArray[np.int32]
    label_tokens: NDArray[np.int32]

    def take(self, rows: Indices) -> "Lengths":
        """Return the lengths of some rows."""
        return Lengths(self.tokens[rows], self.label_tokens[rows])


@dataclass(frozen=True)
class Encoded:
    """The token rows of records and what was left out.

    Attributes:
        rows: Token rows, in order.
        records: Index into the records given, for each row.
        dropped: One line for each example left out.
        truncated: How many prompts were cut.
    """

    rows: list[TokenRow]
    records: list[int]
    dropped: tuple[str, ...]
    truncated: int


class Encoder:
    """Turns examples into tokens with one tokenizer and one renderer."""

    def __init__(self, tokenizer: Any, renderer: Renderer) -> None:
        """Keep the tokenizer; nothing is changed in it."""
        self.tokenizer = tokenizer
        self.renderer = renderer

    def encode(self, examples: Sequence[Example]) -> list[TokenRow]:
        """Tokenise conversations with their responses.

        Args:
            examples: Examples whose last turn is the assistant's.

        Returns:
            One row each, at least one supervised token in it, the end of turn among them.

        Raises:
            TokenError: An example has no supervised token.
        """
        rendered = [self.renderer.segments(example) for example in examples]
        texts = [
            text
            for segments in rendered
            for text in accumulate(segment.text for segment in segments)
        ]
        ids = iter(self._tokenise(texts))
        rows: list[TokenRow] = []
        for example, segments in zip(examples, rendered, strict=True):
            row = TokenRow([], [])
            for segment in segments:
                new = self._behind(row.input_ids, next(ids), segment.text)
                row.input_ids.extend(new)
                row.supervised.extend([segment.supervised] * len(new))
            # The first token has no token before it that could predict it.
            if not any(row.supervised[1:]):
                raise TokenError(
                    f"{example.where}: an example needs a response token to train on, got none "
                    "after tokenising. Remove the row or check the tokenizer's chat template."
                )
            rows.append(row)
        return rows

    def prompt_ids(self, examples: Sequence[Example]) -> list[list[int]]:
        """Tokenise prompts up to and including the generation prompt."""
        return self._tokenise([self.renderer.prompt_text(example) for example in examples])

    def begun_ids(self, examples: Sequence[Example], beginning: str) -> list[list[int]]:
        """Tokenise prompts and the beginning of their response, as training has them in a row.

        Args:
            examples: Examples with or without a response.
            beginning: What every response begins with; white space at its end is left to the
                token that follows.
        """
        begun = [_answered(example, beginning.strip()) for example in examples]
        prompts = [self.renderer.prompt_text(example) for example in begun]
        answers = []
        for example in begun:
            answer = self.renderer.segments(example)[-1].text
            answers.append(answer[: answer.index(beginning.strip()) + len(beginning.strip())])
        texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        known = self._tokenise(prompts)
        return [
            ids + self._behind(ids, through, answer)
            for ids, through, answer in zip(known, self._tokenise(texts), answers, strict=True)
        ]

    def _behind(self, known: list[int], through: list[int], text: str) -> list[int]:
        """Return the ids of a text that stands behind known ones.

        A token that straddles the border would make the prompt differ from generation.
        """
        return (
            through[len(known) :] if through[: len(known)] == known else self._tokenise([text])[0]
        )

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of plain texts."""
        return [len(ids) for ids in self._tokenise(texts)]

    def token_id(self, text: str, where: str) -> int:
        """Return the id of a text that is one token.

        Raises:
            TokenError: It is none, or several.
        """
        (ids,) = self._tokenise([text])
        if len(ids) == 1:
            return ids[0]
        # Some tokenizers begin every text with a space; behind a letter they do not.
        letter, behind = self._tokenise(["a", f"a{text}"])
        if behind[:-1] == letter:
            return behind[-1]
        raise TokenError(
            f"{where}: each must be one token of the tokenizer, got {text!r}, which is "
            f"{len(ids)}. Give a text that the tokenizer knows as a whole."
        )

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids


def _answered(example: Example, response: str) -> Example:
    """Give a conversation this response, in place of the one that it may have."""
    asked = example.turns[:-1] if example.turns[-1].role == "assistant" else example.turns
    return replace(example, turns=(*asked, Turn("assistant", response)))


def encode_source(
    encoder: Encoder,
    records: Sequence[Record],
    anchor: Anchor,
    *,
    name: str,
    variant: Variant,
    max_tokens: int,
    overlong: Overlong,
) -> Encoded:
    """Tokenise records of a source and settle over-long examples.

    Args:
        encoder: Tokenizer and renderer.
        records: All of the source's records, or some.
        anchor: The task's anchor; an empty one for general sources.
        name: Configuration key of the source, for messages.
        variant: Which form of the anchor the examples carry.
        max_tokens: Longest example.
        overlong: error, drop, or truncate_prompt.

    Raises:
        TokenError: An over-long example under `error`, or one that cannot be cut to fit.
    """

    def make(record: Record) -> Example:
        return apply_anchor(record, anchor, variant)

    rows = encoder.encode([make(record) for record in records])
    kept: list[TokenRow] = []
    indices: list[int] = []
    dropped: list[str] = []
    truncated = 0
    for index, (record, row) in enumerate(zip(records, rows, strict=True)):
        length = len(row.input_ids)
        if length > max_tokens and overlong == "error":
            raise TokenError(
                f"{record.where}: an example must fit data.max_tokens {max_tokens}, got {length} "
                f"tokens. Raise data.max_tokens, or set {name}.overlong: truncate_prompt or drop."
            )
        if length > max_tokens and overlong == "drop":
            dropped.append(f"{record.where}: {length} tokens, more than {max_tokens}, left out")
            continue
        if length > max_tokens:
            row = _truncate_prompt(encoder, record, anchor, variant, max_tokens)
            truncated += 1
        kept.append(row)
        indices.append(index)
    return Encoded(kept, indices, tuple(dropped), truncated)


def _truncate_prompt(
    encoder: Encoder, record: Record, anchor: Anchor, variant: Variant, max_tokens: int
) -> TokenRow:
    """Cut the end of the last user turn; the response, the anchor and the template stay whole."""
    example = apply_anchor(record, anchor, variant)
    *before, asked, response = example.turns
    text = anchor_record(record, anchor, anchored=False).turns[-2].content
    behind = anchor.position == "suffix" or variant == "end"
    start = 0 if behind else len(asked.content) - len(text)
    first, end = start + len(text) - len(text.lstrip()), start + len(text)

    def attempt(characters: int) -> TokenRow:
        cut = Turn("user", asked.content[: first + characters] + asked.content[end:])
        return encoder.encode([replace(example, turns=(*before, cut, response))])[0]

    fitting = _largest(end - first, lambda size: len(attempt(size).input_ids) <= max_tokens)
    if fitting is None:
        raise TokenError(
            f"{record.where}: response, anchor and template alone are longer than data.max_tokens "
            f"{max_tokens}. Raise data.max_tokens or remove the row."
        )
    return attempt(fitting)


def _largest(upper: int, fits: Callable[[int], bool]) -> int | None:
    """Return the largest value in 1..upper that fits, by bisection."""
    low, high, best = 1, upper, None
    while low <= high:
        middle = (low + high) // 2
        if fits(middle):
            low, best = middle + 1, middle
        else:
            high = middle - 1
    return best
