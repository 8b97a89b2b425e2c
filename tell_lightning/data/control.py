r"""Read control tokens that a user's text spells, such as <|im_end|>, as ordinary text.

Only the chat template may begin or end a turn. Before rendering, `ControlTokens.mark` puts a mark
before each character of a control token in the text of a turn; what the template writes itself has
no marks. `MarkedText.ids` then reads the tokens of the template as tokens, and marked ones as text:

    turn       stop<|im_end|>                   marked, with a mark shown as ·:  stop·<·|·i·m·_...
    rendered   <|im_start|>user\nstop·<·|·i·m·_·e·n·d·|·><|im_end|>
    tokens     [im_start] user \n stop < | im _ end | > [im_end]
"""

import json
import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any

MARK = "\ufdd0"
"""A code point that Unicode reserves for the inner use of programs."""
THINKING = ("<think>", "</think>")
"""Tags that a response may hold, although some tokenizers have tokens for them."""


class ControlTokens:
    """The tokens that only a chat template may write."""

    def __init__(self, tokens: Iterable[str]) -> None:
        """Take the texts of the tokens; tags of thinking and white space are left out."""
        self.texts = {token for token in tokens if token.strip() and token not in THINKING}
        longest_first = sorted(self.texts, key=len, reverse=True)
        spelt = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._in_text = re.compile(f"{MARK}|{spelt}")
        self.in_rendered = re.compile(f"{MARK}(.)|{spelt}", re.DOTALL)
        """Finds marked characters, as group 1, and control tokens without marks."""

    def are_in(self, text: str) -> bool:
        """Say whether a text spells a control token."""
        return self._in_text.search(text) is not None

    def mark(self, text: str) -> str:
        """Put a mark before each character of the control tokens in a text."""
        return self._in_text.sub(lambda found: "".join(MARK + c for c in found[0]), text)

    def unmark(self, rendered: str) -> str:
        """Take the marks out of a rendered text."""
        return self.in_rendered.sub(lambda found: found[1] or found[0], rendered)


def first_marked(rendered: str) -> str:
    """Return the first marked text in a rendered text, without its marks."""
    found = re.search(f"(?:{MARK}.)+", rendered, re.DOTALL)
    return found[0][1::2] if found else ""


class MarkedText:
    """Tokenises texts with marks.

    A copy of the fast tokenizer knows the control tokens by other names. With these names in the
    place of the template's tokens, it reads the same names in the user's text as ordinary text. In
    everything else it works like the tokenizer itself.
    """

    def __init__(self, tokenizer: Any, control: ControlTokens) -> None:
        """Copy nothing yet: few data spell a control token."""
        self._tokenizer, self._control = tokenizer, control

    def ids(self, rendered: str) -> list[int] | None:
        """Tokenise a text with marks; None if the tokenizer cannot read marked tokens as text."""
        if self._copy is None:
            return None
        copy, names, old_ids = self._copy
        written: list[str] = []

        def read(found: re.Match[str]) -> str:
            if found[1]:
                return found[1]
            written.extend([found[0]] if found[0] in names else [])
            return names.get(found[0], found[0])

        text = self._control.in_rendered.sub(read, rendered)
        new_ids = copy.encode(text, add_special_tokens=False).ids
        ids = [old_ids.get(new, new) for new in new_ids]
        # Some vocabularies hold the control tokens as words, too. The token for what is unknown may
        # stand for any text.
        control_ids = {old_ids[copy.token_to_id(name)] for name in names.values()}
        control_ids -= {self._tokenizer.unk_token_id}
        return ids if sum(id in control_ids for id in ids) == len(written) else None

    @cached_property
    def _copy(self) -> tuple[Any, dict[str, str], dict[int, int]] | None:
        """The copy, the new names of the control tokens, and the old id of each added token."""
        from tokenizers import Tokenizer

        original = getattr(self._tokenizer, "backend_tokenizer", None)
        if not isinstance(original, Tokenizer):
            return None
        parts = json.loads(original.to_str())
        parts["truncation"] = parts["padding"] = None
        added, names = parts["added_tokens"], {}
        for token in added:
            if token["content"] in self._control.texts:
                names[token["content"]] = f"{MARK}{token['id']}{MARK}"
                token["content"] = names[token["content"]]
        copy = Tokenizer.from_str(json.dumps(parts))
        old_ids: dict[Any, int] = {copy.token_to_id(t["content"]): t["id"] for t in added}
        return copy, names, old_ids
