"""Rows of the two tasks: translating Velsk documents, and judging an answer in JSON.

The anchors are defined here for those who write configurations; the rows do not contain them.
"""

import json
import random
from collections.abc import Callable, Mapping

from tell_lightning.microworld.documents import FACTS, Split, draw_document, other_words, text_of
from tell_lightning.microworld.documents import num_sentences as draw_length
from tell_lightning.microworld.grammar import SLOT, english_forms, question
from tell_lightning.microworld.instructions import change_answer, compare
from tell_lightning.microworld.lexicon import HELD_OUT

TRANSLATE_ANCHOR = (
    "This text is in Velsk and needs to be translated into English. "
    "Please translate only the text.\n\n"
)
"""Prompt prefix of the translation task."""
TRANSLATE_RESPONSE_PREFIX = "Sure, here is the English translation: "
"""Response prefix of the translation task; it is trained on and removed before scoring."""
JUDGE_ANCHOR = (
    "Role and goal: you judge whether an answer is a hallucination. "
    "Compare it with the text. Write your thought and your verdict as JSON.\n\n"
)
"""Prompt prefix of the judging task, which has no response prefix."""

Row = Mapping[str, object]
Make = Callable[[str, random.Random, int], Row]
"""Makes a row from its id, a random generator and its position in the file."""


def translate_row(
    row_id: str,
    source: random.Random,
    split: Split,
    *,
    with_unseen: bool,
    num_sentences: int | None = None,
) -> Row:
    """Draw a Velsk document with its English translation.

    Args:
        row_id: Id of the row.
        source: Random generator; its state changes.
        split: The split of its sentences.
        with_unseen: Whether held-out Velsk words may occur (in dev and test rows).
        num_sentences: Number of sentences; None draws 1 to 4.

    Returns:
        `id`, `prompt` and `source` (Velsk), `response` (English), `random_words` (a baseline: the
        same English sentences with other content words) and `unseen` (the English words of the
        response that translate held-out Velsk words).
    """
    without = frozenset() if with_unseen else HELD_OUT
    length = num_sentences or draw_length(source)
    document = draw_document(source, split, length, without=without)
    forms = [form for meaning in document for form in english_forms(meaning).items()]
    velsk = text_of(document, "velsk")
    return {
        "id": row_id,
        "prompt": velsk,
        "response": text_of(document, "english"),
        "source": velsk,
        "random_words": text_of(other_words(document, source), "english"),
        "unseen": sorted({form for lemma, form in forms if lemma in HELD_OUT}),
    }


def judge_row(
    row_id: str,
    source: random.Random,
    split: Split,
    *,
    is_false: bool,
    num_sentences: int | None = None,
) -> Row:
    """Draw a text, a question about it and an answer to judge.

    Args:
        row_id: Id of the row.
        source: Random generator; its state changes.
        split: The split of its sentences.
        is_false: Whether the answer contradicts the text (label "yes": a hallucination).
        num_sentences: Number of sentences of the text; None draws 1 to 3.

    Returns:
        `id`, `prompt`, `response` (JSON; its thought names both compared values) and `label`.
    """
    length = num_sentences or source.choice((1, 2, 2, 3))
    document = draw_document(source, split, length, patterns=FACTS, with_negation=False)
    fact = source.choice(document)
    claim = change_answer(fact, source) if is_false else fact
    value, answer = (getattr(meaning, SLOT[fact.pattern]) for meaning in (fact, claim))
    label = "yes" if is_false else "no"
    response = {"thought": compare("text", value, "answer", answer), "hallucination": label}
    text = text_of(document, "english")
    return {
        "id": row_id,
        "prompt": f"Text: {text}\nQuestion: {question(fact)}\nAnswer: {answer}",
        "response": json.dumps(response),
        "label": label,
    }


def translate_rows(split: Split, num_sentences: int | None = None) -> Make:
    """Return the maker of translation rows; held-out words occur in dev and test rows only."""
    return lambda row_id, source, _: translate_row(
        row_id, source, split, with_unseen=split != "open", num_sentences=num_sentences
    )


def judge_rows(split: Split, false_percent: int, num_sentences: int | None = None) -> Make:
    """Return the maker of judging rows; `false_percent` of them have a false answer."""

    def make(row_id: str, source: random.Random, index: int) -> Row:
        is_false = (index + 1) * false_percent // 100 > index * false_percent // 100
        return judge_row(row_id, source, split, is_false=is_false, num_sentences=num_sentences)

    return make
