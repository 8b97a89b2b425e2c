"""Say which of the rows that a model wrote itself are fit to train on; pure functions of the texts.

    "Can you write a poem about rain?"   kept
    "Can you write a poem about Rain"    near repeat: of its words, 7 in 10 are those of another
    "Hi"                                 short prompt
    "Name a fruit." "Apple apple apple apple apple apple ..."   looping answer

A row with a fault is counted by the name of the fault. What is true of an answer is not looked at.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tell_lightning.data.control import ControlTokens
from tell_lightning.metrics.characters import UNSPACED

LEAST_LETTERS = 8
"""Letters and digits of a prompt."""
MOST_CHARACTERS = 2_000
"""Characters of a prompt."""
SAME_WORDS = 0.7
"""Share of common words among all words of two prompts from which on one repeats the other."""
LEAST_OF_SCRIPT = 0.8
"""Share of the letters of a text that must be of one script."""
LOOP_WORDS = 4
"""Words in a row that are compared to find loops."""
LEAST_DISTINCT = 0.75
"""Share of such word sequences that must differ; fluent text has more than 0.9."""

_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")


class Prompts:
    """The prompts so far, to find exact and near repeats among them.

    Two sets of words have a Jaccard similarity of s or more only if, of the first in any fixed
    order of all words, they share one: of n words, the first n - ceil(s n) + 1. So only prompts
    that share such a word are compared. Long words come first, for they are rarer.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        """Start with prompts that must not be repeated, too."""
        self._sets: list[frozenset[str]] = []
        self._by_word: defaultdict[str, list[int]] = defaultdict(list)
        for text in known:
            self.add(text)

    def add(self, text: str) -> None:
        """Remember a prompt."""
        found = frozenset(words(text))
        for word in _first(found):
            self._by_word[word].append(len(self._sets))
        self._sets.append(found)

    def repeat_of(self, text: str) -> str:
        """Return 'repeat' or 'near repeat' if a prompt says what an earlier one does, else ''."""
        closest = max(self._alike(frozenset(words(text))).values(), default=0.0)
        if closest < SAME_WORDS:
            return ""
        return "repeat" if closest == 1 else "near repeat"

    def repeated_by(self, text: str) -> list[int]:
        """Return the numbers of the earlier prompts, from 0, that a prompt repeats, nearly or not.

        >>> Prompts(["Is it red now?", "Name a fruit."]).repeated_by("is it red")
        [0]
        """
        alike = self._alike(frozenset(words(text)))
        return sorted(place for place, share in alike.items() if share >= SAME_WORDS)

    def _alike(self, found: frozenset[str]) -> dict[int, float]:
        """Compare a set of words with the earlier ones that may be like it."""
        others = {place for word in _first(found) for place in self._by_word[word]}
        return {place: _similarity(found, self._sets[place]) for place in others}


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case; characters of scripts without spaces are words.

    >>> words("Is it SO? 北京")
    ['is', 'it', 'so', '北', '京']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def prompt_fault(text: str, *, ended: bool, control: ControlTokens) -> str:
    """Say what is wrong with a prompt by itself; '' if nothing is.

    Args:
        text: The prompt.
        ended: Whether its turn ended, instead of reaching the limit of tokens.
        control: The tokens that only the template may write.
    """
    if control.are_in(text):
        return "control tokens"
    if not ended:
        return "unfinished prompt"
    if sum(map(str.isalnum, text)) < LEAST_LETTERS:
        return "short prompt"
    if len(text) > MOST_CHARACTERS:
        return "long prompt"
    if loops(text):
        return "looping prompt"
    return "mixed scripts" if main_script(text)[1] < LEAST_OF_SCRIPT else ""


def answer_fault(prompt: str, answer: str, *, ended: bool, control: ControlTokens) -> str:
    """Say what is wrong with an answer; '' if nothing is.

    Args:
        prompt: What it answers; it has no fault.
        answer: The answer.
        ended: Whether its turn ended, instead of reaching the limit of tokens.
        control: The tokens that only the template may write.
    """
    if control.are_in(answer):
        return "control tokens"
    if not answer.strip():
        return "empty answer"
    if loops(answer):
        return "looping answer"
    if not ended:
        return "unfinished answer"
    if words(answer) == words(prompt):
        return "answer that copies"
    script, share = main_script(answer)
    if share < LEAST_OF_SCRIPT:
        return "mixed scripts"
    return "another script" if script not in {"", main_script(prompt)[0]} else ""


def loops(text: str) -> bool:
    """Say whether a text says the same again and again.

    >>> loops("It is red. " * 9), loops("It is red, and it is round.")
    (True, False)
    """
    found = words(text)
    runs = [tuple(found[at : at + LOOP_WORDS]) for at in range(len(found) - LOOP_WORDS + 1)]
    return len(runs) >= 2 * LOOP_WORDS and len(set(runs)) < LEAST_DISTINCT * len(runs)


def main_script(text: str) -> tuple[str, float]:
    """Return the script of most letters of a text, by their Unicode names, and its share.

    Chinese, Japanese and Korean count as one script. A text without letters has none, of share 1.

    >>> main_script("Привет, world"), main_script("2 + 2")
    (('CYRILLIC', 0.5454545454545454), ('', 1.0))
    """
    letters = filter(str.isalpha, unicodedata.normalize("NFKC", text))
    scripts = Counter(map(_script, letters))
    if not scripts:
        return "", 1.0
    ((script, count),) = scripts.most_common(1)
    return script, count / scripts.total()


def told(counts: Counter[str]) -> str:
    """List faults with their numbers, the most frequent first.

    >>> told(Counter({"short prompt": 2, "repeat": 1300}))
    '1,300 repeat, 2 short prompt'
    """
    return ", ".join(f"{count:,} {fault}" for fault, count in counts.most_common())


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "OTHER").partition(" ")[0]
    return "CJK" if name in {"HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"} else name


def _first(found: frozenset[str]) -> Sequence[str]:
    """Return the words by which a similar set must be found."""
    in_order = sorted(found, key=lambda word: (-len(word), word))
    # A product such as 0.7 * 10 may come out a little above its value.
    return in_order[: len(found) - math.ceil(SAME_WORDS * len(found) - 1e-9) + 1]


def _similarity(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of common words among all words of two sets (Jaccard)."""
    return len(one & other) / len(one | other)
