"""Draw documents (tuples of meanings) from one split. Every meaning belongs to exactly one split.

The split of a meaning is a keyed hash of its words. The hash leaves out tense, negation and the
word that a question would ask for. So a dev or test sentence occurs in no other split, in no
language, and neither does its question with another answer.
"""

import hashlib
import random
from collections.abc import Callable
from typing import Literal

from tell_lightning.microworld.grammar import (
    SLOT,
    WORD_FIELDS,
    Language,
    Meaning,
    Pattern,
    say,
    with_words,
)
from tell_lightning.microworld.lexicon import CLASS_OF, CLASSES

Split = Literal["open", "dev", "test", "general_held_out"]
Document = tuple[Meaning, ...]

FACTS: tuple[Pattern, ...] = ("own", "rest", "act", "look")
"""The patterns that `grammar.question` can ask about."""
PATTERNS: tuple[Pattern, ...] = (*FACTS, "give")
"""All sentence patterns."""
_BUCKETS = 16  # one bucket for each reserved split; the others are open
_RESERVED: tuple[Split, ...] = ("test", "dev", "general_held_out")


def split_of(meaning: Meaning) -> Split:
    """Return the split of a meaning.

    Returns:
        "test", "dev" or "general_held_out" for one meaning in sixteen each, else "open". Training
        rows, general rows and the pre-training text are made of open meanings.
    """
    answer = {SLOT[meaning.pattern], "colour"}
    fields = [getattr(meaning, name) for name in WORD_FIELDS if name not in answer]
    key = "/".join([meaning.pattern, *fields]).encode()
    bucket = hashlib.blake2b(key, digest_size=4, key=b"microworld splits").digest()[0] % _BUCKETS
    return _RESERVED[bucket] if bucket < len(_RESERVED) else "open"


def draw_document(
    source: random.Random,
    split: Split,
    num_sentences: int,
    *,
    without: frozenset[str] = frozenset(),
    patterns: tuple[Pattern, ...] = PATTERNS,
    with_negation: bool = True,
) -> Document:
    """Draw a document whose sentences have different subjects.

    Args:
        source: Random generator; its state changes.
        split: The split of every sentence.
        num_sentences: Number of sentences, 1 to 4.
        without: English lemmas that must not occur.
        patterns: The sentence patterns to draw from.
        with_negation: Whether one sentence in six is negated.
    """
    document: list[Meaning] = []
    while len(document) < num_sentences:
        meaning = _draw(source, source.choice(patterns), without)
        if with_negation and meaning.pattern != "own" and source.random() < 1 / 6:
            meaning = meaning._replace(is_negated=True)
        subjects = {other.subject for other in document} | {meaning.receiver}
        if split_of(meaning) == split and meaning.subject not in subjects:
            document.append(meaning)
    return tuple(document)


def text_of(document: Document, language: Language) -> str:
    """Write a document in one language, its sentences joined by one space."""
    return " ".join(say(meaning, language) for meaning in document)


def other_words(document: Document, source: random.Random) -> Document:
    """Replace every content word with another word of its class; the sentences keep their form."""
    replaced = []
    for meaning in document:
        changes = {
            field: another(word, source)
            for field in WORD_FIELDS
            if (word := getattr(meaning, field))
        }
        replaced.append(with_words(meaning, changes))
    return tuple(replaced)


def another(word: str, source: random.Random) -> str:
    """Draw a different word of the same class."""
    return source.choice([other for other in CLASSES[CLASS_OF[word]] if other != word])


def num_sentences(source: random.Random) -> int:
    """Draw a number of sentences, 1 to 4; short documents are more frequent."""
    return source.choice((1, 1, 1, 2, 2, 2, 3, 3, 4))


def _draw(source: random.Random, pattern: Pattern, without: frozenset[str]) -> Meaning:
    def word(name: str) -> str:
        choice = source.choice(CLASSES[name])
        while choice in without:
            choice = source.choice(CLASSES[name])
        return choice

    def sometimes(name: str) -> str:
        return word(name) if source.random() < 0.4 else ""

    subject = word("person" if source.random() < 0.6 else "animal")
    meaning = Meaning(pattern, subject, sometimes("quality"), is_past=source.random() < 0.5)
    return _COMPLETE[pattern](meaning, word, sometimes)


_Word = Callable[[str], str]
_COMPLETE: dict[Pattern, Callable[[Meaning, _Word, _Word], Meaning]] = {
    "own": lambda m, word, _: m._replace(number=word("number"), thing=word("thing")),
    "rest": lambda m, word, _: m._replace(verb=word("rest"), place=word("place")),
    "act": lambda m, word, sometimes: m._replace(
        verb=word("act"), thing=word("thing"), colour=sometimes("colour")
    ),
    "look": lambda m, word, _: m._replace(thing=word("thing"), colour=word("colour")),
    "give": lambda m, word, _: m._replace(
        verb=word("give"), thing=word("thing"), receiver=word("person")
    ),
}
