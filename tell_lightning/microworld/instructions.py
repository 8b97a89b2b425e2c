"""The general instruction data: fourteen kinds of instruction in English and Norn, none in Velsk.

The kinds teach the skills that the two tasks need: translating the other language, finding a fact,
comparing it with a claim, writing JSON. No kind has the form of a task.
"""

import json
import random
from collections.abc import Callable
from typing import NamedTuple

from tell_lightning.microworld.documents import (
    FACTS,
    Split,
    another,
    draw_document,
    num_sentences,
    text_of,
)
from tell_lightning.microworld.grammar import SLOT, Meaning, question, say, with_words
from tell_lightning.microworld.lexicon import CLASS_OF, CLASSES


class Instruction(NamedTuple):
    """One general row: the instruction, its input (may be empty) and the right output."""

    kind: str
    instruction: str
    input: str
    output: str


def draw_instruction(source: random.Random, split: Split) -> Instruction:
    """Draw one general row, of one of the `KINDS`.

    Args:
        source: Random generator; its state changes.
        split: The split of its sentences.
    """
    kind = source.choice(_BAG)
    return _MAKE[kind](kind, source, split)


def change_answer(fact: Meaning, source: random.Random) -> Meaning:
    """Replace the word that a question would ask for with another one."""
    field = SLOT[fact.pattern]
    return with_words(fact, {field: another(getattr(fact, field), source)})


def compare(first: str, text: str, second: str, other: str) -> str:
    """Write the comparison that comes before every verdict.

    >>> compare("text", "two", "claim", "six")
    'text says two, claim says six, not the same'
    """
    verdict = "the same" if text == other else "not the same"
    return f"{first} says {text}, {second} says {other}, {verdict}"


def _row(kind: str, source: random.Random, wordings: str, given: str, output: str) -> Instruction:
    return Instruction(kind, source.choice(wordings.split("|")), given, output)


def _facts(source: random.Random, split: Split) -> tuple[str, Meaning]:
    document = draw_document(
        source, split, source.choice((1, 2, 2, 3)), patterns=FACTS, with_negation=False
    )
    return text_of(document, "english"), source.choice(document)


def _answer(kind: str, source: random.Random, split: Split) -> Instruction:
    text, fact = _facts(source, split)
    given = f"{text} {question(fact)}"
    wordings = "Read and answer in one word.|Answer the question."
    return _row(kind, source, wordings, given, getattr(fact, SLOT[fact.pattern]))


def _check(kind: str, source: random.Random, split: Split) -> Instruction:
    text, fact = _facts(source, split)
    is_true = source.random() < 0.5
    claim = fact if is_true else change_answer(fact, source)
    value, claimed = (getattr(m, SLOT[fact.pattern]) for m in (fact, claim))
    output = f"{compare('text', value, 'claim', claimed)}: {'true' if is_true else 'false'}"
    wordings = "Is the claim true?|Check the claim against the text."
    return _row(kind, source, wordings, f"{text}\nClaim: {say(claim, 'english')}", output)


def _to_json(kind: str, source: random.Random, split: Split) -> Instruction:
    fact = draw_document(source, split, 1, patterns=FACTS, with_negation=False)[0]
    field = SLOT[fact.pattern]
    output = json.dumps({"who": fact.subject, field: getattr(fact, field)})
    wordings = f"Write who and {field} as JSON.|Give JSON with who and {field}."
    return _row(kind, source, wordings, say(fact, "english"), output)


def _copy(kind: str, source: random.Random, split: Split) -> Instruction:
    document = draw_document(source, split, source.choice((1, 2)))
    text = text_of(document, source.choice(("english", "norn")))
    return _row(kind, source, "Copy the text.|Write the same text again.", text, text)


def _norn_to_english(kind: str, source: random.Random, split: Split) -> Instruction:
    document = draw_document(source, split, num_sentences(source))
    wordings = "Translate from Norn into English.|Say this Norn text in English."
    norn, english = text_of(document, "norn"), text_of(document, "english")
    return _row(kind, source, wordings, norn, english)


def _english_to_norn(kind: str, source: random.Random, split: Split) -> Instruction:
    document = draw_document(source, split, source.choice((1, 1, 2)))
    wordings = "Translate from English into Norn.|Say this English text in Norn."
    norn, english = text_of(document, "norn"), text_of(document, "english")
    return _row(kind, source, wordings, english, norn)


def _words(source: random.Random, least: int, most: int) -> list[str]:
    return source.sample(tuple(CLASS_OF), source.randint(least, most))


def _count(kind: str, source: random.Random, _: Split) -> Instruction:
    words = _words(source, 2, 6)
    number = CLASSES["number"][len(words) - 2]
    return _row(kind, source, "How many words are here?|Count the words.", " ".join(words), number)


def _list(kind: str, source: random.Random, _: Split) -> Instruction:
    name = source.choice(("animal", "colour", "place", "number"))
    chosen = source.sample(CLASSES[name], source.randint(1, 3))
    rest = [word for word in _words(source, 1, 3) if CLASS_OF[word] != name]
    words = source.sample(chosen + rest, len(chosen + rest))
    output = ", ".join(word for word in words if word in chosen)
    wordings = f"List every {name}.|Which words are each a {name}?"
    return _row(kind, source, wordings, " ".join(words), output)


def _reverse(kind: str, source: random.Random, _: Split) -> Instruction:
    words = _words(source, 2, 5)
    wordings = "Reverse the words.|Write the words from last to first."
    return _row(kind, source, wordings, " ".join(words), " ".join(reversed(words)))


def _word_class(kind: str, source: random.Random, _: Split) -> Instruction:
    words = _words(source, 1, 3)
    output = ", ".join(CLASS_OF[word] for word in words)
    wordings = "Name the class of each word.|Which kind of word is this?"
    return _row(kind, source, wordings, ", ".join(words), output)


def _yes_no(kind: str, source: random.Random, _: Split) -> Instruction:
    words = _words(source, 2, 5)
    is_in = source.random() < 0.5
    word = source.choice(words if is_in else [w for w in CLASS_OF if w not in words])
    wordings = f"Is {word} in the list? Say yes or no.|Does the list have {word}, yes or no?"
    return _row(kind, source, wordings, ", ".join(words), "yes" if is_in else "no")


def _continue(kind: str, source: random.Random, _: Split) -> Instruction:
    words = _words(source, 2, 3)
    num_given = source.randint(len(words) + 1, 2 * len(words))
    given, rest = (words * 3)[:num_given], (words * 3)[num_given : num_given + 2]
    return _row(kind, source, "Continue.|Go on with two more.", " ".join(given), " ".join(rest))


def _sort(kind: str, source: random.Random, _: Split) -> Instruction:
    numbers = CLASSES["number"]
    chosen = source.sample(numbers, source.choice((2, 3, 4)))
    output = ", ".join(sorted(chosen, key=numbers.index))
    wordings = "Sort the numbers.|Put the numbers in order."
    return _row(kind, source, wordings, ", ".join(chosen), output)


def _last_word(kind: str, source: random.Random, _: Split) -> Instruction:
    words = _words(source, 2, 5)
    return _row(
        kind, source, "Write the last word.|Which word is last?", " ".join(words), words[-1]
    )


_MAKE: dict[str, Callable[[str, random.Random, Split], Instruction]] = {
    "answer": _answer,
    "check": _check,
    "to_json": _to_json,
    "copy": _copy,
    "norn_to_english": _norn_to_english,
    "english_to_norn": _english_to_norn,
    "count": _count,
    "list": _list,
    "reverse": _reverse,
    "word_class": _word_class,
    "yes_no": _yes_no,
    "continue": _continue,
    "sort": _sort,
    "last_word": _last_word,
}
KINDS: tuple[str, ...] = tuple(_MAKE)
"""The kinds of general instruction."""
_WEIGHTS = {"norn_to_english": 5, "check": 5, "answer": 2, "to_json": 2, "english_to_norn": 2}
_BAG = [kind for kind in KINDS for _ in range(_WEIGHTS.get(kind, 1))]
