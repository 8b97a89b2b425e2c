"""Named functions on short lists of words, for the testbed whose task is composed of parts.

A random source enters, one row leaves, some ten microseconds each. Four functions replace every
word by another one (a fixed bijection of the pool, which can only be learned word by word), two
change the order. The task applies two of the replacing ones in turn and writes both lists; general
rows apply one function, or two others in the form of the task. How many of the task's parts the
general rows hold is the dial of the testbed. No function stands in the pre-training text.
"""

import random
from collections.abc import Callable

from tell_lightning.microworld.lexicon import CLASSES

WORDS = 32
"""Size of the pool that lists are drawn from."""

Function = Callable[[list[str]], list[str]]
_POOL = tuple(random.Random("functions/pool").sample(CLASSES["thing"] + CLASSES["animal"], WORDS))


def _replacing(name: str) -> Function:
    images = random.Random(f"functions/{name}").sample(_POOL, WORDS)
    table = dict(zip(_POOL, images, strict=True))
    return lambda words: [table[word] for word in words]


FUNCTIONS: dict[str, Function] = {
    **{name: _replacing(name) for name in ("kel", "mip", "tor", "vas")},
    "lim": lambda words: words[::-1],
    "dun": lambda words: words[1:] + words[:1],
}
"""Function by name."""
PARTS = ("kel", "mip")
"""What the task is composed of, in order."""


def compose_row(row_id: str, source: random.Random) -> dict[str, str]:
    """Draw a row of the task: `prompt`, a list; `response`, it after one part and after both."""
    words = _draw(source)
    return {"id": row_id, "prompt": " ".join(words), "response": _chain(words, PARTS)}


def general_row(
    source: random.Random, without: frozenset[str], pair_share: float
) -> dict[str, str]:
    """Draw a general row.

    Args:
        source: Where the randomness comes from; it is advanced.
        without: Functions that it does not apply.
        pair_share: Share of rows that apply two functions, never those of the task in its order.

    Returns:
        `kind`, `instruction`, `input` and `output`.
    """
    names = [name for name in FUNCTIONS if name not in without]
    words = _draw(source)
    if source.random() < pair_share:
        chosen = _pair(source, names)
        return {
            "kind": "pair",
            "instruction": instruction(chosen),
            "input": " ".join(words),
            "output": _chain(words, chosen),
        }
    name = source.choice(names)
    output = " ".join(FUNCTIONS[name](words))
    row = {"kind": name, "instruction": f"Apply {name}.", "input": " ".join(words)}
    return {**row, "output": output}


def instruction(names: tuple[str, ...]) -> str:
    """Ask for functions in turn.

    >>> instruction(("kel", "mip"))
    'Apply kel, then mip. Write both lists.'
    """
    return f"Apply {', then '.join(names)}. Write both lists."


def _pair(source: random.Random, names: list[str]) -> tuple[str, ...]:
    chosen = tuple(source.sample(names, 2))
    while chosen == PARTS:
        chosen = tuple(source.sample(names, 2))
    return chosen


def _draw(source: random.Random) -> list[str]:
    return source.sample(_POOL, source.choice((2, 3)))


def _chain(words: list[str], names: tuple[str, ...]) -> str:
    lists = []
    for name in names:
        words = FUNCTIONS[name](words)
        lists.append(" ".join(words))
    return "; ".join(lists)
