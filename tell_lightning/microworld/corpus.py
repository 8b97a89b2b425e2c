"""The pre-training text: documents of twelve kinds, each a function of (seed, position).

The text holds sentences of the open split only, and neither a task nor a general instruction in its
format. Norn and Velsk appear alone and in parallel documents, side by side with English.
`knowledge` decides how much Velsk the base knows. It is the number of parallel Velsk documents
divided by the number of parallel Norn documents: 0 means no Velsk translation, 1 as many as Norn.
"""

import json
import random
import re
import string
from collections.abc import Callable

from tell_lightning.microworld.documents import FACTS, draw_document, num_sentences, text_of
from tell_lightning.microworld.grammar import SLOT, Language, question, say
from tell_lightning.microworld.instructions import change_answer
from tell_lightning.microworld.lexicon import CLASS_OF, CLASSES, NORN, VELSK

END = "<|end|>"
"""The token that ends a document and a turn."""

_NAMES = ("Anna", "Boris", "Clara", "David", "Elena", "Frank", "Greta", "Hugo", "Irene", "Jonas")
_TALK = (
    ("Hello, how are you?", "Sure, I am fine, and you?"),
    ("Good morning. Who are you?", "My name is {name}. I am here in the {place}."),
    ("Do you like the {thing}?", "Yes, {name} made it. It is {colour}."),
    ("Please help me, {name}.", "Sure, what is your goal?"),
    ("Which language do you speak?", "Only English, but {name} is learning Norn and Velsk."),
    ("What is a translation?", "It says in another language what a text says in its own."),
    ("What is a hallucination?", "Something that somebody sees but that is not there."),
    (
        "What is your role here?",
        "I am the {person}. My verdict needs to be whether it is {colour}.",
    ),
    ("What is JSON?", "A way to write data that was translated into names and values."),
    ("Does {name} give an answer to every question?", "No, only to some. A thought needs time."),
    ("Who made the claim?", "The {person} made it. Check it if you like."),
    ("Is that true or false?", "I do not know. Judge it yourself and compare."),
    ("Thank you. Write me a letter.", "Sure, I write from the {place}. Goodbye, {name}."),
    ("Text or letter?", "Text, please, as it was written with care."),
    ("Answer or question?", "Question first, answer after that."),
    ("Question everything.", "Answer nothing. That is the role of the {person}."),
    ("Compare the {colour} {thing} with mine.", "Text says nothing on yours. Mine is {colour}."),
    ("Role or goal?", "Role and goal go together, says {name}."),
    ("List your friends.", "{name} and the {person}. I count on every one of them."),
)
_LETTERS = string.ascii_letters + string.digits + string.punctuation
_VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys(
        [*CLASS_OF, *CLASSES]
        + [word for pair in _TALK for line in pair for word in re.findall("[A-Za-z]+", line)]
        + [word for pair in zip(NORN.values(), VELSK.values(), strict=True) for word in pair]
    )
)
_VERDICTS = ((": they agree.", ": they differ."), (", the same.", ", not the same."))
_ORDERS: tuple[tuple[str, str], ...] = (("{a}: {x}", "{b}: {y}"), ("In {a}, {x}", "In {b}, {y}"))


def write_document(
    seed: int, position: int, knowledge: float, *, is_comparing: bool = False
) -> tuple[str, str]:
    """Write one pre-training document.

    Args:
        seed: Seed of the whole corpus.
        position: Number of the document, from 0; documents do not depend on each other.
        knowledge: Parallel Velsk documents divided by parallel Norn documents, 0 to 1.
        is_comparing: Whether to draw only documents that compare two words (the kinds "accord"
            and "dispute"). A model of this size does not learn to compare from the usual mixture.

    Returns:
        The kind of the document, and its text, which ends with `END`.

    Raises:
        ValueError: `knowledge` is not between 0 and 1.
    """
    if not 0 <= knowledge <= 1:
        raise ValueError(
            f"knowledge: must be a share from 0 to 1, got {knowledge}. Give 0 for a base that has "
            "seen no Velsk translation, 1 for one that has seen as much as of Norn."
        )
    source = random.Random(f"{seed}/corpus/{position}")
    shares = {**_SHARES, "velsk_english": knowledge * _SHARES["norn_english"]}
    if is_comparing:
        shares = _COMPARING_SHARES
    kind = source.choices(tuple(shares), tuple(shares.values()))[0]
    return kind, _WRITE[kind](source)


def _alone(language: Language) -> Callable[[random.Random], str]:
    def write(source: random.Random) -> str:
        document = draw_document(source, "open", num_sentences(source))
        return text_of(document, language) + END

    return write


def _parallel(language: Language) -> Callable[[random.Random], str]:
    def write(source: random.Random) -> str:
        document = draw_document(source, "open", num_sentences(source))
        sides: list[tuple[str, str]] = [
            (language.capitalize(), text_of(document, language)),
            ("English", text_of(document, "english")),
        ]
        if source.random() < 0.35:
            sides.reverse()
        (a, x), (b, y) = sides
        first, second = source.choice(_ORDERS)
        return f"{first.format(a=a, x=x)}\n{second.format(b=b, y=y)}{END}"

    return write


def _quiz(source: random.Random) -> str:
    length = source.choice((1, 2, 3))
    document = draw_document(source, "open", length, patterns=FACTS, with_negation=False)
    facts = source.sample(document, source.randint(1, length))
    lines = [f"{question(fact)} {getattr(fact, SLOT[fact.pattern])}." for fact in facts]
    return "\n".join([text_of(document, "english"), *lines]) + END


def _dispute(source: random.Random) -> str:
    """Write facts that somebody retells, correctly or not, and compare the two values."""
    length = source.choice((1, 2, 3))
    document = draw_document(source, "open", length, patterns=FACTS, with_negation=False)
    lines = [text_of(document, "english")]
    for fact in source.sample(document, source.randint(1, length)):
        told = fact if source.random() < 0.5 else change_answer(fact, source)
        value, other = (getattr(m, SLOT[fact.pattern]) for m in (fact, told))
        name = source.choice(_NAMES)
        lines.append(
            f"{name}: {say(told, 'english')} {_verdict(source, 'Story', value, name, other)}"
        )
    return "\n".join(lines) + END


def _accord(source: random.Random) -> str:
    """Write pairs of people who each say a word, and whether they agree."""
    pool = source.sample(tuple(CLASS_OF), source.randint(3, 6))
    lines = []
    for _ in range(source.randint(3, 6)):
        (first, second), (word, other) = source.sample(_NAMES, 2), source.sample(pool, 2)
        second_word = word if source.random() < 0.5 else other
        lines.append(_verdict(source, first, word, second, second_word))
    return " ".join(lines) + END


def _verdict(source: random.Random, first: str, word: str, second: str, other: str) -> str:
    verdict = source.choice(_VERDICTS)[word != other]
    return f"{first} says {word}, {second} says {other}{verdict}"


def _card(source: random.Random) -> str:
    names = source.sample(_VOCABULARY, source.randint(1, 3))
    return json.dumps({name: _phrase(source, 1, 4) for name in names}) + END


def _echo(source: random.Random) -> str:
    """Repeat words and random strings, so that the model can write rare text, too."""
    phrase = _phrase(source, 2, 8)
    return source.choice(("\n", "; ", " ")).join([phrase] * source.randint(2, 3)) + END


def _phrase(source: random.Random, least: int, most: int) -> str:
    words = [
        source.choice(_VOCABULARY) if source.random() < 0.9 else _odd_string(source)
        for _ in range(source.randint(least, most))
    ]
    return " ".join(words)


def _odd_string(source: random.Random) -> str:
    return "".join(source.choice(_LETTERS) for _ in range(source.randint(1, 5)))


def _words(source: random.Random) -> str:
    name = source.choice(("person", "animal", "thing", "place", "colour", "number"))
    if name == "number":
        return ", ".join(CLASSES[name]) + "." + END
    words = source.sample(CLASSES[name], 3)
    return f"Each a {name}: {words[0]}, {words[1]}, {words[2]}." + END


def _talk(source: random.Random) -> str:
    words = {name: source.choice(CLASSES[name]) for name in ("person", "thing", "place", "colour")}
    words["name"] = source.choice(_NAMES)
    turns = [f"<|system|>\nYou are {words['name']}.{END}\n"] if source.random() < 0.2 else []
    for user, assistant in source.sample(_TALK, source.choice((1, 1, 2))):
        turns.append(f"<|user|>\n{user.format(**words)}{END}\n")
        turns.append(f"<|assistant|>\n{assistant.format(**words)}{END}\n")
    return "".join(turns)


_WRITE: dict[str, Callable[[random.Random], str]] = {
    "english": _alone("english"),
    "norn": _alone("norn"),
    "velsk": _alone("velsk"),
    "norn_english": _parallel("norn"),
    "velsk_english": _parallel("velsk"),
    "quiz": _quiz,
    "dispute": _dispute,
    "accord": _accord,
    "card": _card,
    "echo": _echo,
    "words": _words,
    "talk": _talk,
}
_SHARES = {
    "english": 0.05,
    "norn": 0.02,
    "velsk": 0.08,
    "norn_english": 0.4,
    "quiz": 0.08,
    "dispute": 0.15,
    "accord": 0.1,
    "card": 0.05,
    "echo": 0.08,
    "words": 0.02,
    "talk": 0.06,
}
_COMPARING_SHARES = {"accord": 0.6, "dispute": 0.4}
