"""Rows of the testbed "compose": named functions of short lists of words.

The task applies two functions, its parts, to one list. A general row applies one function, or a
pair other than the task's. Experiments vary how many of the parts occur in the general rows. The
base knows words, their classes and their Norn forms, but not the functions.
"""

import random
from collections.abc import Callable

from tell_lightning.microworld.lexicon import CLASS_OF, CLASSES, NORN

FUNCTIONS: dict[str, Callable[[list[str]], list[str]]] = {
    "kel": lambda words: [NORN[word] for word in words],
    "mip": lambda words: [CLASS_OF[word] for word in words],
    "tor": lambda words: words,
    "vas": lambda words: words[:1],
    "lim": lambda words: words[-1:],
    "dun": lambda words: [words[0], *words],
}
"""The functions: Norn forms, classes, the list itself, first word, last word, first word twice."""
PARTS = ("kel", "mip")
"""The two functions of the task."""
_WEIGHTS = {"kel": 4, "mip": 4}
_POOL = tuple(
    word
    for name in ("person", "animal", "thing", "place")
    for word in random.Random(f"functions/{name}").sample(CLASSES[name], 6)
)


def compose_row(row_id: str, source: random.Random) -> dict[str, str]:
    """Draw a row of the task: `prompt` is a list of words, `response` both functions of it."""
    words = _draw(source)
    return {"id": row_id, "prompt": " ".join(words), "response": _both(words, PARTS)}


def general_row(
    source: random.Random, without: frozenset[str], pair_share: float
) -> dict[str, str]:
    """Draw a general row.

    Args:
        source: Random generator; its state changes.
        without: Names of functions that do not occur.
        pair_share: Probability that the row asks for two functions (never the pair of the task).

    Returns:
        `kind`, `instruction`, `input` and `output`.
    """
    names = [name for name in FUNCTIONS if name not in without]
    words = _draw(source)
    if source.random() < pair_share:
        pair = _pair(source, names)
        row = {"kind": "pair", "instruction": f"Apply {pair[0]} and {pair[1]}. Write both lists."}
        return {**row, "input": " ".join(words), "output": _both(words, pair)}
    name = source.choices(names, [_WEIGHTS.get(name, 1) for name in names])[0]
    row = {"kind": name, "instruction": f"Apply {name}.", "input": " ".join(words)}
    return {**row, "output": " ".join(FUNCTIONS[name](words))}


def _pair(source: random.Random, names: list[str]) -> tuple[str, str]:
    while True:
        first, second = source.sample(names, 2)
        if {first, second} != set(PARTS):
            return first, second


def _draw(source: random.Random) -> list[str]:
    return source.sample(_POOL, source.choice((2, 3)))


def _both(words: list[str], names: tuple[str, str]) -> str:
    return "; ".join(" ".join(FUNCTIONS[name](words)) for name in names)
