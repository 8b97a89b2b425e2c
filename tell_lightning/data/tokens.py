"""Tokenise examples, and decide which tokens are supervised.

    <|user|> Translate: tovi ...<|end|> <|assistant|> The dog ...<|end|>
    .................. context, not trained ......... ##### trained ####

The tokens are those of `apply_chat_template`. If the end of a prompt has other tokens before a
response, the row keeps those of the prompt, which generation starts from, unless a token only joins
white space across the border. The template has written the special tokens, so the tokenizer adds
none. Control tokens that a text spells become ordinary text. Labels are shifted later, in
`model.loss`.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tell_lightning.data.anchors import Example
from tell_lightning.data.control import MARK, MarkedText, first_marked
from tell_lightning.data.formats import cut
from tell_lightning.data.limits import base_limits, check_embeddings
from tell_lightning.data.permutation import Indices
from tell_lightning.data.pieces import Pieces
from tell_lightning.data.records import Turn
from tell_lightning.data.templates import Renderer, Segment
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


class Encoder:
    """Turns examples into tokens with one tokenizer and one renderer."""

    def __init__(self, tokenizer: Any, renderer: Renderer) -> None:
        """Keep the tokenizer unchanged, and read the limits of its model.

        Raises:
            LimitError: The tokenizer has more tokens than the model has embeddings.
        """
        self.tokenizer = tokenizer
        self.renderer = renderer
        self._marked = MarkedText(tokenizer, renderer.control)
        self._pieces = Pieces(tokenizer, renderer.written)
        self.limits = base_limits(tokenizer)
        check_embeddings(tokenizer, self.limits)

    def encode(self, examples: Sequence[Example]) -> list[TokenRow]:
        """Tokenise conversations with their responses.

        Args:
            examples: Examples that end in an assistant turn.

        Returns:
            A row for each example. Its supervised tokens include the end of each response turn.

        Raises:
            TokenError: An example has no supervised token, or spells a control token that the
                tokenizer cannot read as text.
        """
        rows = self._rows([(self.renderer.segments(e), e.where) for e in examples])
        for example, row in zip(examples, rows, strict=True):
            # No token stands before the first one to predict it.
            if not any(row.supervised[1:]):
                raise TokenError(
                    f"{example.where}: an example needs a response token to train on, got none "
                    "after tokenising. Remove the row or check the tokenizer's chat template."
                )
        return rows

    def _rows(self, rendered: Sequence[tuple[Sequence[Segment], str]]) -> list[TokenRow]:
        """Tokenise rendered conversations, each given with its place."""
        texts = [_texts(segments) for segments, _ in rendered]
        places = [where for _, where in rendered]
        ids = iter(
            self._tokenise(
                [
                    (text, where)
                    for of_row, where in zip(texts, places, strict=True)
                    for text in of_row
                ]
            )
        )
        return [
            self._row(segments, list(islice(ids, len(of_row))), where)
            for (segments, where), of_row in zip(rendered, texts, strict=True)
        ]

    def _row(self, segments: Sequence[Segment], ids: list[list[int]], where: str) -> TokenRow:
        """Make the row of a conversation of the ids of its `_texts`."""
        if len(segments) > 2:
            *parts, whole = ids
            pairs = list(zip(parts[::2], parts[1::2], strict=False))
            joined = [id for _, pair in pairs for id in pair] + (
                parts[-1] if len(parts) % 2 else []
            )
            if joined == whole and all(pair[: len(first)] == first for first, pair in pairs):
                supervised = [
                    index >= len(first) for first, pair in pairs for index in range(len(pair))
                ]
                return TokenRow(whole, supervised + [False] * (len(whole) - len(supervised)))
            ids = self._tokenise([(t, where) for t in accumulate(s.text for s in segments)])
        row = TokenRow([], [])
        text = ""
        for segment, joined in zip(segments, ids, strict=True):
            before = self._shared(row.input_ids, joined, text, segment)
            if before is None:  # tokenised alone, so that the prompt is that of generation
                (new,) = self._tokenise([(segment.text, where)])
                joined, before = row.input_ids + new, len(row.input_ids)
            context = [*row.supervised, *[False] * (before - len(row.supervised))][:before]
            row = TokenRow(joined, context + [segment.supervised] * (len(joined) - before))
            text += segment.text
        return row

    def _shared(
        self, known: list[int], joined: list[int], text: str, segment: Segment
    ) -> int | None:
        """Return how many tokens of a text and the next segment belong to the text before.

        Args:
            known: The ids of the text.
            joined: The ids of the text and the segment, tokenised together.
            text: The text.
            segment: The next segment.

        Returns:
            The number. A token that joins the end of a prompt with white space before a response
            belongs to the prompt. None if the text before has other tokens for another reason.
        """
        if joined[: len(known)] == known:
            return len(known)
        both, border = text + segment.text, len(text)
        if not (segment.supervised and self.tokenizer.is_fast) or MARK in both:
            return None
        options = {"add_special_tokens": False, "return_offsets_mapping": True}
        places = self.tokenizer(both, **options)["offset_mapping"]
        before = sum(start < border for start, _ in places)
        end = places[before - 1][1]
        joins_space = end > border and not both[border:end].strip()
        return before if joins_space and joined[: before - 1] == known[: before - 1] else None

    def prompt_ids(self, examples: Sequence[Example]) -> list[list[int]]:
        """Tokenise prompts up to and including the generation prompt."""
        return self._tokenise([(self.renderer.prompt_text(e), e.where) for e in examples])

    def check_positions(self, where: str, tokens: int, answer: int = 0) -> None:
        """Check that a row fits into the positions of the model.

        Args:
            where: The row.
            tokens: Its tokens.
            answer: The longest answer that will be generated behind it. A model with learned
                positions cannot go beyond its last position; another one can.

        Raises:
            TokenError: The row is too long.
        """
        positions = self.limits.positions
        if positions is None:
            return
        if tokens > positions or (answer and tokens == positions):
            raise TokenError(
                f"{where}: a row must fit the {positions:,} positions of the model, got {tokens:,} "
                "tokens. Shorten or remove it, or use a base with more positions. For training "
                f"rows, data.max_tokens: {positions} and overlong: drop or truncate_prompt do it."
            )
        if self.limits.learned and tokens + answer > positions:
            raise TokenError(
                f"{where}: a prompt and its longest answer must fit the {positions:,} positions of "
                f"the model, got {tokens:,} and {answer:,} tokens. Lower the task's "
                f"max_new_tokens to {positions - tokens}, or shorten the row."
            )

    def begun_ids(self, examples: Sequence[Example], beginning: str) -> list[list[int]]:
        """Tokenise prompts with the beginning of their response, as in a training row.

        Args:
            examples: Examples with or without a response.
            beginning: The beginning of every response. White space at its end is left out, as it
                usually belongs to the next token.
        """
        beginning = beginning.strip()
        marked = self.renderer.control.mark(beginning)
        begun = [
            replace(example, turns=(*example.prompt_turns, Turn("assistant", beginning)))
            for example in examples
        ]
        rendered = []
        for example in begun:
            answer = self.renderer.segments(example)[-1].text
            answer = answer[: answer.index(marked) + len(marked)]
            prompt = self.renderer.prompt_text(example)
            rendered.append(((Segment(prompt, False), Segment(answer, True)), example.where))
        return [row.input_ids for row in self._rows(rendered)]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of plain texts."""
        mark = self.renderer.control.mark
        return [len(ids) for ids in self._tokenise([(mark(text), "answer") for text in texts])]

    def token_id(self, text: str, where: str) -> int:
        """Return the id of a text that is one token.

        Raises:
            TokenError: The text is no token, or several.
        """
        (ids,) = self._tokenise([(text, where)])
        if len(ids) == 1:
            return ids[0]
        # Some tokenizers put a space before every text, but not after a letter.
        letter, behind = self._tokenise([("a", where), (f"a{text}", where)])
        if behind[:-1] == letter:
            return behind[-1]
        raise TokenError(
            f"{where}: each must be one token of the tokenizer, got {text!r}, which is "
            f"{len(ids)}. Give a text that the tokenizer knows as a whole."
        )

    def _tokenise(self, texts: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Tokenise rendered texts, each given with its place."""
        unmarked = iter(self._pieces.ids([t for t, _ in texts if MARK not in t]))
        return [
            self._marked_ids(text, where) if MARK in text else next(unmarked)
            for text, where in texts
        ]

    def _marked_ids(self, text: str, where: str) -> list[int]:
        ids = self._marked.ids(text)
        if ids is None:
            raise TokenError(
                f"{where}: a text must not spell a control token that the tokenizer cannot read as "
                f"ordinary text, got {cut(first_marked(text))}. Remove it from the row."
            )
        return ids


def _texts(segments: Sequence[Segment]) -> list[str]:
    """Return what is tokenised for a conversation: each context, alone and with its response.

    If there are several responses, the whole conversation comes last. Its tokens show whether the
    exchanges can be tokenised one by one, which takes less time than all beginnings of the
    conversation.
    """
    texts = [segment.text for segment in segments]
    if len(texts) <= 2:
        return list(accumulate(texts))
    pairs = [texts[start : start + 2] for start in range(0, len(texts), 2)]
    return [*(text for pair in pairs for text in accumulate(pair)), "".join(texts)]
