"""The files of the three testbeds of `experiments/`: translate, judge and compose.

Short rows (one sentence, a short text, a list of words), so that a run takes seconds. A name and a
number of rows say what a file holds; `world.write_files` writes it. Beside the general rows in
full stand files that lack what one question asks about: fewer rows (nested: the first of the full
file), without translation, without checking, or of random words without any sense.
"""

import random
from collections.abc import Callable, Mapping

from tell_lightning.microworld.documents import Split
from tell_lightning.microworld.functions import PARTS, compose_row, general_row
from tell_lightning.microworld.instructions import draw_instruction
from tell_lightning.microworld.lexicon import CLASS_OF
from tell_lightning.microworld.tasks import judge_row, translate_row

Row = Mapping[str, object]
Make = Callable[[str, random.Random, int], Row]

AMOUNTS = (30, 100, 300, 1000)
"""Sizes of the small general files; a training run shows about 1,600 general rows."""
MOST_WORDS = 18
"""Longest input of a general row and longest text to judge, in words."""
_GENERAL_ROWS = 4000
_TRANSLATION = frozenset({"norn_to_english", "english_to_norn"})
_CHECKING = frozenset({"check"})
_DIAL = {
    "parts_none": (frozenset(PARTS), 0.0),
    "parts_half": (frozenset(PARTS[1:]), 0.0),
    "parts_all": (frozenset(), 0.0),
    "parts_and_pairs": (frozenset(), 0.3),
}


def files() -> list[tuple[str, int, Make]]:
    """List the files: name without its ending, rows, and what makes a row."""
    return [
        ("translate/train", 3000, _translate("open")),
        ("translate/dev", 64, _translate("dev")),
        ("translate/test", 128, _translate("test")),
        ("judge/train", 3000, _judge("open", 50)),
        ("judge/dev", 64, _judge("dev", 50)),
        ("judge/test", 128, _judge("test", 50)),
        ("judge/test_prior19", 128, _judge("test", 19)),
        ("compose/train", 3000, _compose),
        ("compose/dev", 64, _compose),
        ("compose/test", 128, _compose),
        ("general/held_out", 200, _general("general_held_out")),
        ("general/train", _GENERAL_ROWS, _general("open")),
        ("general/without_translation", _GENERAL_ROWS, _general("open", without=_TRANSLATION)),
        ("general/without_checking", _GENERAL_ROWS, _general("open", without=_CHECKING)),
        ("general/irrelevant", _GENERAL_ROWS, _irrelevant),
        ("functions/held_out", 200, _functions("parts_all")),
        *((f"functions/{name}", _GENERAL_ROWS, _functions(name)) for name in _DIAL),
    ]


def excerpts() -> list[tuple[str, str, int]]:
    """List the files that are the first rows of another one: name, that one's name, rows."""
    sources = {"general": "general/train", "functions": "functions/parts_all"}
    return [
        (f"{folder}/first_{rows}", source, rows)
        for folder, source in sources.items()
        for rows in AMOUNTS
    ]


def _translate(split: Split) -> Make:
    def make(row_id: str, source: random.Random, _: int) -> Row:
        return translate_row(row_id, source, split, with_unseen=split != "open", num_sentences=1)

    return make


def _judge(split: Split, false_percent: int) -> Make:
    def make(row_id: str, source: random.Random, index: int) -> Row:
        is_false = (index + 1) * false_percent // 100 > index * false_percent // 100
        return judge_row(row_id, source, split, is_false=is_false, num_sentences=1)

    return make


def _compose(row_id: str, source: random.Random, _: int) -> Row:
    return compose_row(row_id, source)


def _functions(name: str) -> Make:
    without, pair_share = _DIAL[name]
    return lambda row_id, source, _: {"id": row_id, **general_row(source, without, pair_share)}


def _general(split: Split, without: frozenset[str] = frozenset()) -> Make:
    def make(row_id: str, source: random.Random, _: int) -> Row:
        while True:
            row = draw_instruction(source, split)
            if row.kind not in without and len(row.input.split()) <= MOST_WORDS:
                return {"id": row_id, **row._asdict()}

    return make


def _irrelevant(row_id: str, source: random.Random, _: int) -> Row:
    """Random words throughout, of about the length of the general rows."""

    def words(most: int) -> str:
        return " ".join(source.sample(tuple(CLASS_OF), source.randint(2, most)))

    row = {"kind": "irrelevant", "instruction": f"{words(5).capitalize()}."}
    return {"id": row_id, **row, "input": words(12), "output": words(10)}
