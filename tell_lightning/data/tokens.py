"""Tokenise examples, and decide which tokens are supervised.

    <|user|> Translate: tovi ...<|end|> <|assistant|> The dog ...<|end|>
    .................. context, not trained ......... ##### trained ####

The prompt is tokenised alone, exactly as in generation; the response follows it. The template has
written the special tokens, so the tokenizer adds none. Labels are shifted later, in `model.loss`.
"""

from bisect import bisect_left
from collections.abc import Sequence
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
    """The tokens of one example; `supervised[i]` says whether token i is a target."""

    input_ids: list[int]
    supervised: list[bool]


class Lengths(NamedTuple):
    """The numbers of tokens and of supervised tokens of each row of a source: int32 arrays."""

    tokens: NDArray[np.int32]
    label_tokens: NDArray[np.int32]

    def take(self, rows: Indices) -> "Lengths":
        """Return the lengths of some rows."""
        return Lengths(self.tokens[rows], self.label_tokens[rows])


@dataclass(frozen=True)
class Encoded:
    """The token rows of records.

    Attributes:
        rows: Token rows, in the order of the records.
        records: For each row, the index of its record.
        dropped: One line for each record left out.
        truncated: Number of prompts that were cut.
    """

    rows: list[TokenRow]
    records: list[int]
    dropped: tuple[str, ...]
    truncated: int


class Encoder:
    """Turns examples into tokens with one tokenizer and one renderer."""

    def __init__(self, tokenizer: Any, renderer: Renderer) -> None:
        """Keep the tokenizer unchanged."""
        self.tokenizer = tokenizer
        self.renderer = renderer

    def encode(self, examples: Sequence[Example]) -> list[TokenRow]:
        """Tokenise conversations with their responses.

        Args:
            examples: Examples that end in an assistant turn.

        Returns:
            A row for each example. Its supervised tokens include the end of each response turn.

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
            # No token stands before the first one to predict it.
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
        """Tokenise prompts with the beginning of their response, as in a training row.

        Args:
            examples: Examples with or without a response.
            beginning: The beginning of every response. White space at its end is left out, as it
                usually belongs to the next token.
        """
        beginning = beginning.strip()
        begun = [
            replace(example, turns=(*example.prompt_turns, Turn("assistant", beginning)))
            for example in examples
        ]
        prompts = [self.renderer.prompt_text(example) for example in begun]
        answers = []
        for example in begun:
            answer = self.renderer.segments(example)[-1].text
            answers.append(answer[: answer.index(beginning) + len(beginning)])
        texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        known = self._tokenise(prompts)
        return [
            ids + self._behind(ids, joined, answer)
            for ids, joined, answer in zip(known, self._tokenise(texts), answers, strict=True)
        ]

    def _behind(self, known: list[int], joined: list[int], text: str) -> list[int]:
        """Return the ids of a text that follows the known ids.

        Args:
            known: The ids of the text before.
            joined: The ids of both texts, tokenised together.
            text: The text. It is tokenised alone if a token of `joined` crosses the border: the
                prompt would differ from the one in generation.
        """
        if joined[: len(known)] == known:
            return joined[len(known) :]
        return self._tokenise([text])[0]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of plain texts."""
        return [len(ids) for ids in self._tokenise(texts)]

    def token_id(self, text: str, where: str) -> int:
        """Return the id of a text that is one token.

        Raises:
            TokenError: The text is no token, or several.
        """
        (ids,) = self._tokenise([text])
        if len(ids) == 1:
            return ids[0]
        # Some tokenizers put a space before every text, but not after a letter.
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
    """Tokenise records of a source, and drop or cut those that are too long.

    Args:
        encoder: Tokenizer and renderer.
        records: Some or all records of the source.
        anchor: The task's anchor; an empty one for general sources.
        name: Configuration key of the source, for messages.
        variant: The form of the anchor that the examples carry.
        max_tokens: Longest example.
        overlong: error, drop, or truncate_prompt.

    Raises:
        TokenError: An example is too long under `error`, or cannot be cut to fit.
    """
    rows = encoder.encode([apply_anchor(record, anchor, variant) for record in records])
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
