"""The files of the three testbeds of `experiments/`: translate, judge and compose.

The rows are short (one sentence, or a list of words), so a training run takes seconds. Variants of
the general file serve single experiments: only the first rows, no translation, no claim checking,
or random words without any sense. `world.write_testbeds` writes the files.
"""

import random

from tell_lightning.microworld.documents import Split
from tell_lightning.microworld.functions import PARTS, compose_row, general_row
from tell_lightning.microworld.instructions import draw_instruction
from tell_lightning.microworld.lexicon import CLASS_OF
from tell_lightning.microworld.tasks import Make, Row, judge_rows, translate_rows

AMOUNTS = (30, 100, 300, 1000)
"""Rows of the small general files; a training run uses about 1,600 general rows."""
MOST_WORDS = 18
"""Largest number of words in the input of a general row."""
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
    """List the files: name without suffix, number of rows, and the maker of a row."""
    return [
        ("translate/train", 3000, translate_rows("open", 1)),
        ("translate/dev", 64, translate_rows("dev", 1)),
        ("translate/test", 128, translate_rows("test", 1)),
        ("judge/train", 3000, judge_rows("open", 50, 1)),
        ("judge/dev", 64, judge_rows("dev", 50, 1)),
        ("judge/test", 128, judge_rows("test", 50, 1)),
        ("judge/test_prior19", 128, judge_rows("test", 19, 1)),
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
    """List the files that hold the first rows of another file: name, name of the other, rows."""
    sources = {"general": "general/train", "functions": "functions/parts_all"}
    return [
        (f"{folder}/first_{rows}", source, rows)
        for folder, source in sources.items()
        for rows in AMOUNTS
    ]


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
    """Make a row of random words, about as long as a general row."""

    def words(most: int) -> str:
        return " ".join(source.sample(tuple(CLASS_OF), source.randint(2, most)))

    row = {"kind": "irrelevant", "instruction": f"{words(5).capitalize()}."}
    return {"id": row_id, **row, "input": words(12), "output": words(10)}
