r"""Tokenise rendered texts in pieces, each piece that texts share only once.

A piece begins with a token that the template writes. A prompt, and the prompt with its response,
differ in one piece:

    <|im_start|>user\nWhy?   <|im_end|>\n   <|im_start|>assistant\n
    <|im_start|>user\nWhy?   <|im_end|>\n   <|im_start|>assistant\nBecause.   <|im_end|>

A tokenizer takes its added tokens out of a text before it reads what is between them, each stretch
for itself. So the tokens of a text are those of its pieces, one after the other. Texts are only cut
before tokens for which this holds whatever stands around them (`borders`); where a tokenizer has
none, a text is one piece.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any


class Pieces:
    """Tokenises texts like a tokenizer itself."""

    def __init__(self, tokenizer: Any, written: Iterable[str]) -> None:
        """Choose where texts are cut.

        Args:
            tokenizer: A Hugging Face tokenizer.
            written: The tokens that the chat template writes.
        """
        self._tokenizer = tokenizer
        chosen = sorted(borders(tokenizer, written), key=len, reverse=True)
        self._cut = re.compile("|".join(map(re.escape, chosen))) if chosen else None

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise texts, as they are: without special tokens around them."""
        if self._cut is None:
            return self._whole(list(texts)) if texts else []
        places: dict[str, int] = {}
        cut = [[places.setdefault(p, len(places)) for p in self._split(text)] for text in texts]
        ids = self._each(list(places))
        return [list(chain.from_iterable([ids[place] for place in of_text])) for of_text in cut]

    def _each(self, pieces: list[str]) -> list[list[int]]:
        backend = self._tokenizer.backend_tokenizer
        if backend.truncation or backend.padding:  # the call takes them away
            return self._whole(pieces) if pieces else []
        return [found.ids for found in backend.encode_batch_fast(pieces, add_special_tokens=False)]

    def _whole(self, texts: list[str]) -> list[list[int]]:
        encoded = self._tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _split(self, text: str) -> list[str]:
        assert self._cut is not None
        starts = [found.start() for found in self._cut.finditer(text)]
        if not starts:
            return [text]
        pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
        return [text[: starts[0]], *pieces] if starts[0] else pieces


def borders(tokenizer: Any, written: Iterable[str]) -> set[str]:
    """Return the tokens before which a text can be cut without a change of its tokens.

    Such a token is found in the text as it stands, takes no white space and no letters around it
    into account, and no other added token can cover a part of it.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    is_ours = type(tokenizer).__module__.startswith("transformers.")
    if not (isinstance(backend, Tokenizer) and is_ours) or tokenizer.split_special_tokens:
        return set()
    added = list(backend.get_added_tokens_decoder().values())
    if any(token.single_word for token in added):
        return set()
    texts = [token.content for token in added]
    alone = {t.content for t in added if not (t.normalized or t.lstrip or t.rstrip)}
    return {
        token
        for token in alone.intersection(written)
        if token.strip() == token and not any(_covers(text, token) for text in texts)
    }


def _covers(other: str, token: str) -> bool:
    """Say whether an added token that is found first can take a part of a token.

    >>> _covers("<|end|><", "<|im_end|>"), _covers("<|im_end|>", "<|im_end|>")
    (True, False)
    """
    if other != token and token in other:
        return True
    sizes = range(1, min(len(other), len(token)))
    return any(other.endswith(token[:size]) for size in sizes)
