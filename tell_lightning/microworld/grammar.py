"""Say a `Meaning` as a sentence in English, Norn or Velsk, and ask about it.

There are five patterns:

    own   The old baker has seven lamps.      ba <baker> <old> <seven> <lamp>'ri ger.
    rest  The fox sleeps in the garden.       ba <fox> <garden>'ol <sleep>.
    act   The fox sees the red lamp.          ba <fox> <lamp>'n <red> <see>.
    look  The lamp of the baker is red.       ba <baker>'sa <lamp> <red> eta.
    give  The king sends the cup to the monk. ba <king> <monk>'de <cup>'n <send>.

Norn has the word order of English, but puts adjectives after the noun, and marks for past (`ha`)
and negation (`ni`) before the verb. Velsk has no articles and puts the verb last. A Velsk sentence
begins with its tense (`ba` present, `ke` past), roles are suffixes after an apostrophe, and `'mu`
on the verb negates it. Neither invented language uses capitals.
"""

from typing import Literal, NamedTuple

from tell_lightning.microworld.lexicon import NORN, VELSK, past, present

Language = Literal["english", "norn", "velsk"]
Pattern = Literal["own", "rest", "act", "look", "give"]

SLOT: dict[Pattern, str] = {
    "own": "number",
    "rest": "place",
    "act": "thing",
    "look": "colour",
    "give": "receiver",
}
"""The field of each pattern that a question asks for."""


class Meaning(NamedTuple):
    """The content of a sentence, in English lemmas. Unused fields are empty strings."""

    pattern: Pattern
    subject: str
    quality: str = ""
    verb: str = ""
    thing: str = ""
    colour: str = ""
    place: str = ""
    number: str = ""
    receiver: str = ""
    is_past: bool = False
    is_negated: bool = False


WORD_FIELDS = ("subject", "quality", "verb", "thing", "colour", "place", "number", "receiver")
"""The fields of a `Meaning` that hold content words."""


def words_of(meaning: Meaning) -> list[str]:
    """List the content words (English lemmas) of a meaning, in field order."""
    return [word for field in WORD_FIELDS if (word := getattr(meaning, field))]


def with_words(meaning: Meaning, words: dict[str, str]) -> Meaning:
    """Return the meaning with other content words, given by the name of their field."""
    return meaning._replace(**words)  # type: ignore[arg-type]


def say(meaning: Meaning, language: Language) -> str:
    """Say a meaning as one sentence, which ends with a full stop.

    >>> say(Meaning("act", "fox", verb="see", thing="lamp", colour="red"), "english")
    'The fox sees the red lamp.'
    >>> say(Meaning("rest", "fox", verb="sleep", place="barn", is_negated=True), "english")
    'The fox does not sleep in the barn.'
    """
    speak = {"english": _english, "norn": _norn, "velsk": _velsk}[language]
    return " ".join(word for word in speak(meaning) if word) + "."


def question(meaning: Meaning) -> str:
    """Ask in English for the slot of a meaning. The pattern `give` has no question.

    >>> question(Meaning("own", "fox", thing="lamp", number="two"))
    'How many lamps does the fox have?'
    """
    who = " ".join(word for word in ("the", meaning.quality, meaning.subject) if word)
    do = "did" if meaning.is_past else "does"
    if meaning.pattern == "own":
        return f"How many {meaning.thing}s {do} {who} have?"
    if meaning.pattern == "rest":
        return f"Where {do} {who} {meaning.verb}?"
    if meaning.pattern == "act":
        return f"What {do} {who} {meaning.verb}?"
    be = "was" if meaning.is_past else "is"
    return f"What colour {be} the {meaning.thing} of {who}?"


def english_forms(meaning: Meaning) -> dict[str, str]:
    """Map each content lemma of a meaning to its form in the English sentence."""
    forms = {word: word for word in words_of(meaning)}
    if meaning.pattern == "own":
        forms[meaning.thing] = meaning.thing + "s"
    if meaning.verb and not meaning.is_negated:
        forms[meaning.verb] = _english_verb(meaning)
    return forms


def _english_verb(meaning: Meaning) -> str:
    if meaning.is_negated:
        return f"{'did' if meaning.is_past else 'does'} not {meaning.verb}"
    return past(meaning.verb) if meaning.is_past else present(meaning.verb)


def _english(m: Meaning) -> list[str]:
    who = ["The", m.quality, m.subject]
    if m.pattern == "own":
        return [*who, "had" if m.is_past else "has", m.number, m.thing + "s"]
    if m.pattern == "rest":
        return [*who, _english_verb(m), "in the", m.place]
    if m.pattern == "act":
        return [*who, _english_verb(m), "the", m.colour, m.thing]
    if m.pattern == "look":
        be = ("was" if m.is_past else "is") + (" not" if m.is_negated else "")
        return ["The", m.thing, "of the", m.quality, m.subject, be, m.colour]
    return [*who, _english_verb(m), "the", m.thing, "to the", m.receiver]


def _norn(m: Meaning) -> list[str]:
    word = {"": "", **NORN}
    who = ["ka", word[m.subject], word[m.quality]]
    marks = ["ha" if m.is_past else "", "ni" if m.is_negated else ""]
    if m.pattern == "own":
        return [*who, *marks, "olm", word[m.number], word[m.thing]]
    if m.pattern == "rest":
        return [*who, *marks, word[m.verb], "un ka", word[m.place]]
    if m.pattern == "act":
        return [*who, *marks, word[m.verb], "ka", word[m.thing], word[m.colour]]
    if m.pattern == "look":
        return ["ka", word[m.thing], "du", *who, *marks, "er", word[m.colour]]
    return [*who, *marks, word[m.verb], "ka", word[m.thing], "ta ka", word[m.receiver]]


def _velsk(m: Meaning) -> list[str]:
    word = {"": "", **VELSK}
    who = ["ke" if m.is_past else "ba", word[m.subject], word[m.quality]]
    verb = word[m.verb] + ("'mu" if m.is_negated else "")
    if m.pattern == "own":
        return [*who, word[m.number], word[m.thing] + "'ri", "ger"]
    if m.pattern == "rest":
        return [*who, word[m.place] + "'ol", verb]
    if m.pattern == "act":
        return [*who, word[m.thing] + "'n", word[m.colour], verb]
    if m.pattern == "look":
        be = "eta" + ("'mu" if m.is_negated else "")
        return [who[0], word[m.subject] + "'sa", word[m.quality], word[m.thing], word[m.colour], be]
    return [*who, word[m.receiver] + "'de", word[m.thing] + "'n", verb]
