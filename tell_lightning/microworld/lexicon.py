"""The words of the world: English lemmas by class, and their Norn and Velsk forms.

The invented forms come from a fixed seed. The committed base model has learned them, so after a
change of a list here it must be pre-trained again. One fifth of the lemmas of each class is held
out: their Velsk forms occur in dev and test documents and in the pre-training text, but in no
training rows.
"""

import random

HELD_OUT_SHARE = 0.2


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CLASSES: dict[str, tuple[str, ...]] = {
    "person": _words(
        "baker king farmer sailor teacher doctor child painter hunter miller singer guard weaver "
        "smith nurse driver priest poet cook widow thief monk tailor potter"
    ),
    "animal": _words("fox wolf horse dog cat goat bear crow owl hen mouse pig donkey frog swan"),
    "thing": _words(
        "lamp boat basket hat book chair drum cup key rope stone apple coat wheel bell mirror "
        "ladder letter sword bottle candle blanket hammer spoon ring barrel coin flute net shoe "
        "table jar plate broom pillow carpet"
    ),
    "place": _words(
        "garden forest harbour kitchen tower market castle village field swamp cellar church barn "
        "cave mill tent valley desert"
    ),
    "colour": _words("red blue green black white yellow grey brown pink golden"),
    "quality": _words("old young tall small happy sad brave lazy proud quiet clever poor"),
    "number": _words("two three four five six seven eight nine ten"),
    "act": _words(
        "see carry paint find follow clean push repair watch hold throw lift draw lose catch count "
        "wash break buy steal"
    ),
    "rest": _words("sleep sing wait dance work kneel cry hide play walk sit dream"),
    "give": _words("give sell send show bring lend"),
}
"""The English lemmas of each class, 162 content words in all."""

CLASS_OF: dict[str, str] = {word: name for name, words in CLASSES.items() for word in words}
"""The class of each English lemma; no lemma has two."""

_IRREGULAR_PAST = {
    "see": "saw", "find": "found", "hold": "held", "throw": "threw", "draw": "drew",
    "lose": "lost", "catch": "caught", "break": "broke", "buy": "bought", "steal": "stole",
    "sleep": "slept", "sing": "sang", "kneel": "knelt", "cry": "cried", "hide": "hid",
    "sit": "sat", "dream": "dreamt", "give": "gave", "sell": "sold", "send": "sent",
    "bring": "brought", "lend": "lent", "carry": "carried",
}  # fmt: skip
_IRREGULAR_PRESENT = {
    "carry": "carries", "push": "pushes", "watch": "watches", "catch": "catches",
    "wash": "washes", "cry": "cries",
}  # fmt: skip


def present(verb: str) -> str:
    """Return the third person singular of an English verb.

    >>> present("carry"), present("see")
    ('carries', 'sees')
    """
    return _IRREGULAR_PRESENT.get(verb, verb + "s")


def past(verb: str) -> str:
    """Return the past tense of an English verb.

    >>> past("see"), past("paint"), past("dance")
    ('saw', 'painted', 'danced')
    """
    return _IRREGULAR_PAST.get(verb) or (verb + "d" if verb.endswith("e") else verb + "ed")


def _norn_form(random_source: random.Random) -> str:
    onset = random_source.choice(_words("b br d dr f fl g gr h j k kn r sk st sv th tr"))
    vowel = random_source.choice(_words("a e o u y"))
    return onset + vowel + random_source.choice(_words("ft gd ld lk lm nd ng nt rd rk rn rth sk"))


def _velsk_form(random_source: random.Random) -> str:
    first = random_source.choice("vlszmtpn") + random_source.choice("aeiou")
    return first + random_source.choice("lrskvmz") + random_source.choice("aeiou")


def _invent(language: str, taken: set[str]) -> dict[str, str]:
    """Invent a different form for every lemma, in the sounds of one language."""
    random_source = random.Random(f"tell_lightning microworld lexicon/{language}")
    form = {"norn": _norn_form, "velsk": _velsk_form}[language]
    words: dict[str, str] = {}
    for lemma in CLASS_OF:
        candidate = form(random_source)
        while candidate in taken:
            candidate = form(random_source)
        taken.add(candidate)
        words[lemma] = candidate
    return words


def _hold_out() -> frozenset[str]:
    chosen: list[str] = []
    for name, words in CLASSES.items():
        random_source = random.Random(f"tell_lightning microworld held out/{name}")
        chosen += random_source.sample(words, round(HELD_OUT_SHARE * len(words)))
    return frozenset(chosen)


_taken = set(CLASS_OF) | {"sold", "sent", "lent", "told"}
NORN: dict[str, str] = _invent("norn", _taken)
"""The form of each English lemma in Norn, the high-resource invented language."""
VELSK: dict[str, str] = _invent("velsk", _taken)
"""The form of each English lemma in Velsk, the low-resource invented language."""
HELD_OUT: frozenset[str] = _hold_out()
"""English lemmas whose Velsk forms occur in no training rows."""
