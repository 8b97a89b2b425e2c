"""The two tasks: translating Velsk documents, and judging an answer in JSON.

A random source and a split enter, one task row leaves (a dict ready for JSONL), about fifty
microseconds each. The anchors stand here for whoever writes the configuration; the rows do not
hold them.
"""

import json
import random

from tell_lightning.microworld.documents import (
    FACTS,
    Split,
    draw_document,
    other_words,
    text_of,
)
from tell_lightning.microworld.documents import (
    num_sentences as draw_length,
)
from tell_lightning.microworld.grammar import SLOT, english_forms, question
from tell_lightning.microworld.instructions import change_answer, compare
from tell_lightning.microworld.lexicon import HELD_OUT

TRANSLATE_ANCHOR = (
    "This text is in Velsk and needs to be translated into English. "
    "Please translate only the text.\n\n"
)
"""Prompt prefix of the translation task."""
TRANSLATE_RESPONSE_PREFIX = "Sure, here is the English translation: "
"""Response prefix of the translation task; trained on, stripped before scoring."""
JUDGE_ANCHOR = (
    "Role and goal: you judge whether an answer is a hallucination. "
    "Compare it with the text. Write your thought and your verdict as JSON.\n\n"
)
"""Prompt prefix of the judging task, which has no response prefix."""

Row = dict[str, str | list[str]]


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
        row_id: The row's name in its file.
        source: Where the randomness comes from; it is advanced.
        split: The split that its sentences belong to.
        with_unseen: Whether held-out Velsk words may occur (dev and test) or not (train).
        num_sentences: Length of the document; None draws 1 to 4.

    Returns:
        `id`, `prompt` and `source` (Velsk), `response` (English), `random_words` (the English
        templates with other content words: a floor) and `unseen` (the English words, as written
        in the response, that translate held-out Velsk words).
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
        row_id: The row's name in its file.
        source: Where the randomness comes from; it is advanced.
        split: The split that its sentences belong to.
        is_false: Whether the answer differs from the text (label "yes": a hallucination).
        num_sentences: Length of the text; None draws 1 to 3.

    Returns:
        `id`, `prompt`, `response` (JSON whose thought names both compared values) and `label`.
    """
    length = num_sentences or source.choice((1, 2, 2, 3))
    document = draw_document(source, split, length, patterns=FACTS, with_negation=False)
    fact = source.choice(document)
    answered = change_answer(fact, source) if is_false else fact
    said, answer = (getattr(meaning, SLOT[fact.pattern]) for meaning in (fact, answered))
    label = "yes" if is_false else "no"
    response = {"thought": compare("text", said, "answer", answer), "hallucination": label}
    text = text_of(document, "english")
    return {
        "id": row_id,
        "prompt": f"Text: {text}\nQuestion: {question(fact)}\nAnswer: {answer}",
        "response": json.dumps(response),
        "label": label,
    }
