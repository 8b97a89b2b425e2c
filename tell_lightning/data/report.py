"""What a plan comes to over a run, counted before it starts.

Enters: the plan, the length of the run and the token lengths of every row. Leaves: plain values for
`plan.json` and the table that is printed. Costs one look-up of every position, at most `MOST`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tell_lightning.data.permutation import Indices
from tell_lightning.data.plan import Plan

MOST = 2_000_000
BLOCK = 65_536


@dataclass(frozen=True)
class Lengths:
    """Tokens of every row of a source, in all and supervised."""

    tokens: Indices
    label_tokens: Indices


def realise(plan: Plan, positions: int, lengths: Sequence[Lengths]) -> dict[str, object]:
    """Count what the first positions of a plan hold.

    Args:
        plan: The plan.
        positions: Length of the run in examples.
        lengths: Token lengths, one entry for each source of the plan, in its order.

    Returns:
        For each source the examples, distinct rows, passes, tokens, label tokens and its shares of
        them; over all, the longest run of positions without a task example.
    """
    counted = min(positions, MOST)
    uses = [np.zeros(source.rows, dtype=np.int64) for source in plan.sources]
    is_task = np.array([source.kind == "task" for source in plan.sources])
    task_positions: list[Indices] = []
    for start in range(0, counted, BLOCK):
        slots = plan.at(range(start, min(start + BLOCK, counted)))
        for index in range(len(plan.sources)):
            np.add.at(uses[index], slots.rows[slots.sources == index], 1)
        task_positions.append(slots.positions[is_task[slots.sources]])
    sources = {
        source.name: _count(source.kind, count, length)
        for source, count, length in zip(plan.sources, uses, lengths, strict=True)
    }
    for key in ("examples", "tokens", "label_tokens"):
        total = sum(int(values[key]) for values in sources.values())  # type: ignore[call-overload]
        for values in sources.values():
            values[f"{key}_share"] = int(values[key]) / total  # type: ignore[call-overload]
    where = np.concatenate([[-1], *task_positions, [counted]])
    return {
        "positions": positions,
        "positions_counted": counted,
        "sources": sources,
        "longest_gap": int(np.diff(where).max() - 1),
    }


def table(realised: Mapping[str, object]) -> list[list[str]]:
    """Lay the counts out as rows of text, the heading first."""
    heading = ["source", "kind", "rows", "examples", "share", "passes", "tokens", "label tokens"]
    lines = [heading]
    sources = realised["sources"]
    assert isinstance(sources, dict)
    for name, values in sources.items():
        lines.append(
            [
                name,
                str(values["kind"]),
                f"{values['rows']:,}",
                f"{values['examples']:,}",
                f"{values['examples_share']:.1%}",
                f"{values['passes']:.2f}",
                f"{values['tokens']:,}",
                f"{values['label_tokens']:,}",
            ]
        )
    return lines


def _count(kind: str, uses: Indices, lengths: Lengths) -> dict[str, object]:
    return {
        "kind": kind,
        "rows": len(uses),
        "rows_seen": int((uses > 0).sum()),
        "examples": int(uses.sum()),
        "passes": float(uses.mean()),
        "tokens": int(uses @ lengths.tokens),
        "label_tokens": int(uses @ lengths.label_tokens),
    }
