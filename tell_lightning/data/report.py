"""What a plan comes to over a run, counted before it starts.

Enters: the plan, what the run takes of it and the token lengths of every row. Leaves: plain values
for `plan.json` and the table that is printed. Costs one look-up of every position, at most `MOST`,
and a byte of memory for each row of each source: lengths may be memory-mapped and are never copied.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tell_lightning.data.permutation import Indices
from tell_lightning.data.plan import Plan, PlanSource, Slots
from tell_lightning.data.tokens import Lengths

MOST = 2**21


def realise(plan: Plan, blocks: Iterable[Slots], lengths: Sequence[Lengths]) -> dict[str, Any]:
    """Count what a run holds.

    Args:
        plan: The plan.
        blocks: What the run trains on, as `Plan.blocks` gives it: positions ascend.
        lengths: Token lengths, one entry for each source of the plan, in its order.

    Returns:
        For each source the examples, distinct rows, passes, tokens, label tokens and its shares of
        them; over all, the tasks' shares and the longest run of examples without a task example;
        and whether these are the counts of the whole run or of its first `positions` alone.
    """
    counts = [_Count(*pair) for pair in zip(plan.sources, lengths, strict=True)]
    is_task = np.array([source.kind == "task" for source in plan.sources])
    counted, last, longest, complete = 0, -1, 0, True
    for slots in blocks:
        if counted >= MOST:
            complete = False
            break
        for index, count in enumerate(counts):
            count.add(slots.rows[slots.sources == index])
        where = np.concatenate([[last], counted + np.flatnonzero(is_task[slots.sources])])
        longest = max(longest, int(np.diff(where).max(initial=1)) - 1)
        last = int(where[-1])
        counted += len(slots.positions)
    sources = {count.source.name: count.values() for count in counts}
    task_share: dict[str, float] = {}
    for key in ("examples", "tokens", "label_tokens"):
        total = sum(values[key] for values in sources.values())
        for values in sources.values():
            values[f"{key}_share"] = values[key] / total
        of_tasks = [values[key] for values in sources.values() if values["kind"] == "task"]
        task_share[key] = sum(of_tasks) / total
    return {
        "positions": counted,
        "complete": complete,
        "task_share": task_share,
        "sources": sources,
        "longest_gap": max(longest, counted - last - 1),
    }


def table(realised: Mapping[str, object]) -> list[list[str]]:
    """Lay the counts out as rows of text, the heading first."""
    heading = ["source", "kind", "rows", "passes", "examples", "share", "tokens", "share", "labels"]
    lines = [heading]
    sources = realised["sources"]
    assert isinstance(sources, dict)
    for name, values in sources.items():
        lines.append(
            [
                name,
                str(values["kind"]),
                f"{values['rows']:,}",
                f"{values['passes']:.2f}",
                f"{values['examples']:,}",
                f"{values['examples_share']:.1%}",
                f"{values['tokens']:,}",
                f"{values['tokens_share']:.1%}",
                f"{values['label_tokens']:,}",
            ]
        )
    return lines


class _Count:
    """What was seen of one source, added up block by block."""

    def __init__(self, source: PlanSource, lengths: Lengths) -> None:
        """Begin at nothing."""
        self.source, self.lengths = source, lengths
        self.seen = np.zeros(source.rows, dtype=np.bool_)
        self.examples = self.tokens = self.label_tokens = 0

    def add(self, rows: Indices) -> None:
        """Count a block of rows."""
        self.seen[rows] = True
        self.examples += len(rows)
        self.tokens += int(self.lengths.tokens[rows].sum(dtype=np.int64))
        self.label_tokens += int(self.lengths.label_tokens[rows].sum(dtype=np.int64))

    def values(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {
            "kind": self.source.kind,
            "rows": self.source.rows,
            "rows_seen": int(np.count_nonzero(self.seen)),
            "examples": self.examples,
            "passes": self.examples / self.source.rows,
            "tokens": self.tokens,
            "label_tokens": self.label_tokens,
        }
