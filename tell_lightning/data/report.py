"""Count the examples and tokens of a run before it starts, for `plan.json` and the printed table.

Looks up each position once, at most `MOST` positions, and takes a byte of memory for each row of
each source. Lengths may be memory-mapped: they are never copied.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tell_lightning.data.permutation import Indices
from tell_lightning.data.plan import Plan, PlanSource, Slots
from tell_lightning.data.records import Conversation, Turn
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Lengths

MOST = 2**21
"""Most positions that are counted."""
CHANGES = {
    "control_text": "control tokens that a row spells are read as ordinary text (rows: {rows:,}).",
    "without_thinking": "thinking is left out, as data.thinking: strip says (rows: {rows:,}).",
    "system_in_prompt": "the system text begins the first user turn, for the chat template has no "
    "system role (rows: {rows:,}).",
    "extra_rows": "each response is trained in a row of its own, behind the prompt that generation "
    "would start from, for the chat template changes earlier turns (additional rows: {rows:,}).",
}
"""What else is counted of the rows of a source, and how it is said."""


def realise(plan: Plan, blocks: Iterable[Slots], lengths: Sequence[Lengths]) -> dict[str, Any]:
    """Count the examples and tokens of a run.

    Args:
        plan: The plan.
        blocks: The positions of the run, ascending, as from `Plan.blocks`.
        lengths: Token lengths of each source, in the order of the plan.

    Returns:
        For each source its examples, distinct rows, passes, tokens, label tokens and shares; over
        all sources the shares of the tasks and the longest stretch without a task example; whether
        the counts are complete, or only those of the first `positions` positions.
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
        task_places = np.concatenate([[last], counted + np.flatnonzero(is_task[slots.sources])])
        longest = max(longest, int(np.diff(task_places).max(initial=1)) - 1)
        last = int(task_places[-1])
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


def rendering_notes(
    renderer: Renderer, inputs: Mapping[str, Any], spelt: Mapping[str, int]
) -> list[str]:
    """Say what the chat template does to the rows beyond writing them between its tokens.

    Args:
        renderer: The renderer.
        inputs: The report of each training source, with the counts of `CHANGES`.
        spelt: For each set of rows to score, how many of them spell a control token.
    """
    notes = []
    if renderer.is_plain:
        turns = (Turn("user", "QUESTION"), Turn("assistant", "ANSWER"))
        shown = "".join(s.text for s in renderer.segments(Conversation("", "", turns, {})))
        notes.append(
            "The tokenizer has no chat template: a plain one is used, which the adapter folder "
            f"will hold as chat_template.jinja. It writes {shown!r}."
        )
    counts = {name: report["counts"] for name, report in inputs.items()}
    counts |= {name: {"control_text": count} for name, count in spelt.items()}
    for name, count in counts.items():
        notes += [
            f"{name}: {text.format(rows=count[change])}"
            for change, text in CHANGES.items()
            if count.get(change)
        ]
    return notes


def table(realised: Mapping[str, object]) -> list[list[str]]:
    """Return the counts as rows of text, the heading first."""
    heading = ["source", "kind", "rows", "passes", "examples", "share", "tokens", "share", "labels"]
    sources = realised["sources"]
    assert isinstance(sources, dict)
    rows = [
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
        for name, values in sources.items()
    ]
    return [heading, *rows]


class _Count:
    """The counts of one source, added up block by block."""

    def __init__(self, source: PlanSource, lengths: Lengths) -> None:
        """Start at zero."""
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
