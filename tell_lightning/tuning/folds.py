"""By which rows candidates are compared: the dev set, or folds of the task's own rows.

With few rows a dev set is either too small to choose by or too large to do without. So each row is
a dev row once, and a training row otherwise:

    rows      a b c d e f g h i j
    fold 0    D . . . D . . . . .     a candidate is trained five times, each time on the rows
    fold 1    . D . . . . D . . .     outside a fold (.), and answers the rows in it (D);
    ...                               its score is that of all its answers together

Folds follow from the text of the rows and a seed, not from their order in the file. Rows that
repeat each other, nearly or not, are in one fold: their answers are no news. Folds are alike in
size and, where the same responses come again (labels), in responses. 10,000 rows take two seconds.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Literal

from tell_lightning.data.anchors import Anchor, strip_anchor
from tell_lightning.data.leaks import prompt_hashes
from tell_lightning.data.permutation import derive_key, seed_for
from tell_lightning.data.plan import draw
from tell_lightning.data.records import Record, Turn, record_from_row
from tell_lightning.data.settings import DataSettings
from tell_lightning.data.splits import Splits, read_splits
from tell_lightning.errors import TellError
from tell_lightning.files import write_whole
from tell_lightning.generation.row_filters import Prompts

FOLDS = 5
"""Ten folds cost twice as much, and a candidate is trained on a tenth more rows. As many folds as
rows would cost up to nine trainings a candidate for rows below ten."""
LEAST_ROWS = 5
"""Rows of a task: one for each fold."""
ENOUGH_ROWS = 100
"""Training and dev rows of a task from which on the user's dev set is what candidates are compared
by. Of 50 dev rows each is two points of accuracy."""
PARTS = 5
"""Parts of a dev set, for an estimate that is not of the rows that chose (`tune.verdict`)."""


class FoldError(TellError):
    """Task rows that cannot be divided."""


@dataclass(frozen=True)
class Folds:
    """By which rows candidates are compared."""

    kind: Literal["dev", "folds"]
    """dev: the user's dev set; folds: each row once."""
    count: int
    """How often a candidate is trained: 1 with a dev set."""
    line: str
    """What the screen says of it, and why."""
    rows: Mapping[str, int]
    """Rows that are answered for a candidate, by task."""
    parts: Mapping[str, Mapping[str, int]]
    """Of a dev set: the part of each row, by task and id of the row; empty with folds."""
    draw_seed: int
    """Seed of the draw of task examples, the same for all candidates."""
    divided: Mapping[str, Sequence[tuple[Record, int]]] = field(default_factory=dict, repr=False)
    """Every row with its fold, by task; empty with a dev set."""


@dataclass(frozen=True)
class Written:
    """The folds as files: overlays of the configuration."""

    overlays: Sequence[Mapping[str, Any]]
    """One for each fold: its rows to train on and its rows to answer."""
    whole: Mapping[str, Any]
    """All rows to train on, and none to choose by. With a dev set, what the user configured."""


def plan_folds(data: DataSettings, seed: int, folds: int | None = None) -> Folds:
    """Decide by which rows candidates are compared, and divide these.

    Args:
        data: The section of the configuration, general sources to be written left out.
        seed: Seed of the draw of `data.mixture.task_examples` and of the folds.
        folds: How many; None: the dev set where it has enough rows, else `FOLDS`.

    Raises:
        FoldError: A task has fewer than five rows, or fewer than `folds`.
        TellError: The rows cannot be read.
    """
    splits = read_splits(data)
    draw_seed = seed_for("draw", seed, data.mixture.draw_seed)
    rows: dict[str, list[Record]] = {}
    dev: dict[str, list[Record]] = {}
    for name in data.tasks:
        dev[name] = list(splits.dev[name].records) if name in splits.dev else []
        rows[name] = [*_task_examples(splits, data, draw_seed, name), *dev[name]]
        _check_rows(name, len(rows[name]), folds)
    fewest = min(map(len, rows.values()))
    if folds is None and all(dev.values()) and fewest >= ENOUGH_ROWS:
        return _by_dev(data, seed, draw_seed, dev, fewest)
    count = folds or FOLDS
    divided = {}
    notes = []
    for name, records in rows.items():
        found, note = make_folds(records, data.tasks[name].anchor, count, seed)
        divided[name] = list(zip(records, found, strict=True))
        notes += [f"{name}: {note}"] if note else []
    why = _why(folds, fewest, has_dev=all(dev.values()))
    line = f"Candidates are compared by {count} folds of the {_told(rows)}: {why}."
    return Folds(
        kind="folds",
        count=count,
        line=" ".join([line, *notes]),
        rows={name: len(records) for name, records in rows.items()},
        parts={},
        draw_seed=draw_seed,
        divided=divided,
    )


def make_folds(
    records: Sequence[Record], anchor: Anchor, count: int, seed: int
) -> tuple[list[int], str]:
    """Divide rows into folds by their text.

    Args:
        records: At least `count` rows.
        anchor: The anchor of their task, which does not make them alike.
        count: Number of folds.
        seed: Another seed gives other folds.

    Returns:
        The fold of each row from 0 on, and a note where near repeats had to be divided: if rows
        are so much alike that a fold would get twice its share, only equal prompts stay together.

    Raises:
        FoldError: There are fewer different prompts than folds.
    """
    groups, note = _groups(records, anchor, near=True), ""
    if len(groups) < count or len(groups[0]) > 2 * ceil(len(records) / count):
        note = f"{len(groups[0])} rows repeat each other nearly; only equal prompts are in one fold"
        groups = _groups(records, anchor, near=False)
    if len(groups) < count:
        raise FoldError(
            f"tune.folds: must be at most the number of different prompts of a task, {len(groups)},"
            f" got {count}. Lower it, or add rows."
        )
    responses = [record.response or "" for record in records]
    common = Counter(responses)
    order = sorted(groups, key=lambda group: _order(group, records, common, seed))
    folds = [0] * len(records)
    sizes, same = [0] * count, [Counter[str]() for _ in range(count)]
    for group in order:
        repeated = [responses[row] for row in group if common[responses[row]] > 1]
        target = min(
            range(count), key=lambda fold: (sizes[fold], sum(same[fold][r] for r in repeated), fold)
        )
        for row in group:
            folds[row] = target
        sizes[target] += len(group)
        same[target].update(repeated)
    return folds, note


def write_folds(folds: Folds, data: DataSettings, folder: Path) -> Written:
    """Write the rows of each fold, and say how a configuration uses them.

    Rows keep all their columns, so that the names of the fields stay as configured.

    Args:
        folds: What `plan_folds` returned.
        data: The same section of the configuration.
        folder: Where the files go; it is made.

    Raises:
        FoldError: A row cannot be written as JSON without a change of its text.
    """
    if folds.kind == "dev":
        same: dict[str, Any] = {"data": {"mixture": {"draw_seed": folds.draw_seed}}}
        return Written([same], same)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    whole: dict[str, Any] = {}
    tasks: list[dict[str, Any]] = [{} for _ in range(folds.count)]
    for name, divided in folds.divided.items():
        lines = [(_line(record, data, name), fold) for record, fold in divided]
        for fold, own in enumerate(tasks):
            train, dev = (place / f"{name}-{fold}-{split}.jsonl" for split in ("train", "dev"))
            _write(train, (line for line, of in lines if of != fold))
            _write(dev, (line for line, of in lines if of == fold))
            own[name] = {"train": str(train), "dev": str(dev), "dev_from_train": None}
        path = place / f"{name}-all.jsonl"
        _write(path, (line for line, _ in lines))
        whole[name] = {"train": str(path), "dev": None, "dev_from_train": None}
    mixture = {"task_examples": None}
    return Written(
        [{"data": {"tasks": own, "mixture": mixture}} for own in tasks],
        {"data": {"tasks": whole, "mixture": mixture}},
    )


def _task_examples(splits: Splits, data: DataSettings, draw_seed: int, name: str) -> list[Record]:
    """Return the rows that a task is trained on: all, or the draw of `mixture.task_examples`."""
    train = splits.train[name].records if name in splits.train else ()
    if data.mixture.task_examples is None or not train:
        return list(train)
    chosen = draw(len(train), data.mixture.task_examples, draw_seed, name)
    return [train[place] for place in chosen.tolist()]


def _by_dev(
    data: DataSettings, seed: int, draw_seed: int, dev: Mapping[str, list[Record]], fewest: int
) -> Folds:
    parts: dict[str, dict[str, int]] = {}
    for name, records in dev.items():
        count = min(PARTS, len(records))
        try:
            found, _ = make_folds(records, data.tasks[name].anchor, count, seed)
        except FoldError:  # a dev set of one prompt has one part
            found = [0] * len(records)
        parts[name] = {record.id: part for record, part in zip(records, found, strict=True)}
    return Folds(
        kind="dev",
        count=1,
        line=f"Candidates are compared by the {_told(dev, 'dev rows')}: a dev set is there, and "
        f"with {fewest} rows to train and choose by, {ENOUGH_ROWS} or more, it can be spared.",
        rows={name: len(records) for name, records in dev.items()},
        parts=parts,
        draw_seed=draw_seed,
    )


def _check_rows(name: str, rows: int, folds: int | None) -> None:
    if rows < LEAST_ROWS:
        raise FoldError(
            f"data.tasks.{name}: tune needs {LEAST_ROWS} task rows or more, got {rows} in train "
            "and dev. Add rows, or use fit."
        )
    if folds is not None and not 2 <= folds <= rows:
        raise FoldError(
            f"tune.folds: must be 2 to {rows}, the rows of task {name}, got {folds}. "
            "Leave it out, or give another number."
        )


def _why(folds: int | None, fewest: int, *, has_dev: bool) -> str:
    if folds is not None:
        return f"tune.folds is {folds}"
    if not has_dev:
        return "there is no dev set"
    return f"with {fewest} rows, fewer than {ENOUGH_ROWS}, a dev set chooses by chance"


def _told(rows: Mapping[str, Sequence[Record]], what: str = "task rows") -> str:
    """Name the numbers of rows: of one task alone, or by task."""
    if len(rows) == 1:
        return f"{len(next(iter(rows.values()))):,} {what}"
    return f"{what} ({', '.join(f'{name} {len(each):,}' for name, each in rows.items())})"


# Groups


def _groups(records: Sequence[Record], anchor: Anchor, *, near: bool) -> list[list[int]]:
    """Put rows together that share a prompt, or nearly so; the largest group first."""
    parent = list(range(len(records)))

    def root(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    seen: dict[bytes, int] = {}
    prompts = Prompts()
    for row, record in enumerate(records):
        for known in prompt_hashes(record, anchor):
            parent[root(row)] = root(seen.setdefault(known, row))
        if near:
            text = _prompt(record, anchor)
            for other in prompts.repeated_by(text):
                parent[root(row)] = root(other)
            prompts.add(text)
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for row in range(len(records)):
        groups[root(row)].append(row)
    return sorted(groups.values(), key=len, reverse=True)


def _prompt(record: Record, anchor: Anchor) -> str:
    turns = (turn for turn in record.prompt_turns if turn.role == "user")
    return " ".join(strip_anchor(turn.content, anchor) for turn in turns)


def _order(
    group: Sequence[int], records: Sequence[Record], common: Counter[str], seed: int
) -> tuple[int, int, str, int]:
    """Order groups for dealing: large ones first, those with the same response behind each other.

    The key of a group follows from the texts of its rows, so that folds do not depend on the order
    in the file.
    """
    keys = sorted(_key(records[row], seed) for row in group)
    response = min(records[row].response or "" for row in group)
    times = common[response]
    return -len(group), -times, response if times > 1 else "", keys[0]


def _key(record: Record, seed: int) -> int:
    texts = [text for turn in record.turns for text in (turn.role, turn.content)]
    return derive_key(seed, "folds", *texts)


# Files


def _line(record: Record, data: DataSettings, name: str) -> str:
    """Write a row with all its columns as JSON, and read it back.

    Raises:
        FoldError: It is another record then.
    """
    line = json.dumps(dict(record.row), ensure_ascii=False, default=str)
    again = record_from_row(
        json.loads(line), fields=data.tasks[name].fields, where=record.where, id=record.id
    )
    if again.turns != record.turns:
        raise FoldError(
            f"{record.where}: a row must be the same text as a line of JSON, got "
            f"{_first_change(record.turns, again.turns)}. Write the value as text in the file."
        )
    return line


def _first_change(before: Iterable[Turn], after: Iterable[Turn]) -> str:
    pairs = ((one.content, other.content) for one, other in zip(before, after, strict=False))
    one, other = next(pair for pair in pairs if pair[0] != pair[1])
    return f"{one!r:.60} and {other!r:.60}"


def _write(path: Path, lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    write_whole(path, text.encode("utf-8", "backslashreplace"))  # of half a surrogate pair
