"""Name what has changed between two runs, where the data order of a resume is another one."""

from collections.abc import Mapping
from typing import Any

NAMES = {
    "algorithm": "the version of the shuffle",
    "order": "data.mixture.order",
    "order_seed": "the seed (seed_everything or data.mixture.order_seed)",
    "cycle": "data.mixture",
    "task_share": "data.mixture",
    "sources": "data.mixture",
    "template": "the chat template",
    "tokenizer": "the tokenizer",
    "drawn": "the task examples drawn (data.mixture.task_examples or draw_seed)",
    "optimizer_batch": "data.optimizer_batch",
    "packing": "data.packing",
    "stop": "data.mixture.cycles",
    # of a source
    "file": "the file of {source}",
    "ids": "the rows that are left of {source}",
    "quoting": "how quotation marks are read (quoted) in the file of {source}",
    "bad_rows": "data.on_bad_rows",
    "max_bad_share": "data.max_bad_share",
    "max_tokens": "data.max_tokens",
    "variant": "data.mixture.anchor",
}
"""How a message names a part of the data order that has changed."""
COUNTS = {"cycle", "task_share", "sources"}
"""The parts that follow from the number of rows."""


def changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the differences between two states of what the order depends on."""
    different = _different(saved, now)
    sources = {key for key in different if isinstance(saved.get(key) or now.get(key), dict)}
    named = []
    for key in sources:
        if key not in saved or key not in now:
            named.append(key)
            continue
        parts = _different(saved[key], now[key])
        # Another file has other rows, too.
        for part in parts - {"ids"} or parts:
            named.append(NAMES.get(part, "{source}.{part}").format(source=key, part=part))
    # The counts follow from the rows.
    others = different - sources - (COUNTS if sources else set())
    return sorted({*named, *(NAMES.get(key, key) for key in others)})


def _different(saved: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    return {key for key in saved.keys() | now.keys() if saved.get(key) != now.get(key)}
