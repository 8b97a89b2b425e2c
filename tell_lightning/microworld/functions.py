"""Named functions of short lists of words, for the testbed whose task is made of parts.

A random source enters, one row leaves, some ten microseconds each. The task asks for two functions
of one list at once; general rows ask for one function, or for two others in the form of the task.
How many of the task's parts the general rows hold is the dial of the testbed. The base knows what
the functions need (words, their classes, their Norn forms), not the functions.
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
"""What each name does to a list: Norn form, class, the list, first word, last word, first twice."""
PARTS = ("kel", "mip")
"""What the task is made of."""
_WEIGHTS = {"kel": 4, "mip": 4}
_POOL = tuple(
    word
    for name in ("person", "animal", "thing", "place")
    for word in random.Random(f"functions/{name}").sample(CLASSES[name], 6)
)


def compose_row(row_id: str, source: random.Random) -> dict[str, str]:
    """Draw a row of the task: `prompt`, a list of words; `response`, both functions of it."""
    words = _draw(source)
    return {"id": row_id, "prompt": " ".join(words), "response": _both(words, PARTS)}


def general_row(
    source: random.Random, without: frozenset[str], pair_share: float
) -> dict[str, str]:
    """Draw a general row.

    Args:
        source: Where the randomness comes from; it is advanced.
        without: Functions that it does not apply.
        pair_share: Chance that it asks for two functions, never for the two of the task.

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
