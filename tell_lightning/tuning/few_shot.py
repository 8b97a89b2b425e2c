"""The prompt that stands in for training: the task's rows as earlier turns of the conversation.

    user       anchor, prompt of an example
    assistant  its response                    as many examples as fit
    ...
    user       anchor, prompt of the row       the base answers

All rows get the same examples in the same order, so that their tokens are computed once. The rows
are written as conversations, and scored as those of any other task. The tokens must fit the
positions of the base, and `MOST_TOKENS`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.evaluation_rows import default_max_new_tokens, evaluation_example
from tell_lightning.data.permutation import derive_key, seed_for
from tell_lightning.data.records import Fields, Record, Turn
from tell_lightning.data.settings import DataSettings
from tell_lightning.data.splits import read_splits
from tell_lightning.data.tokens import Encoder
from tell_lightning.files import as_json, write_whole
from tell_lightning.tuning.folds import task_examples

if TYPE_CHECKING:
    from tell_lightning.commands.check import Config

MOST_TOKENS = 8_192
"""Of the examples, the prompt and the answer; also where a base has more positions."""
MESSAGES, ID = "few_shot_messages", "few_shot_id"
"""Columns of the written rows."""
EXAMPLES = "examples.json"
FIELDS = Fields(messages=MESSAGES, id=ID)


@dataclass(frozen=True)
class FewShot:
    """What is merged over a configuration, so that its rows are asked with examples before them."""

    overlay: Mapping[str, Any]
    examples: Mapping[str, int]
    """How many examples a prompt has, by task."""


def overlay(config: "Config", fold: int | None, folder: Path) -> Mapping[str, Any]:
    """Write the rows of a fold with examples before them; `examples.json` says how many.

    Args:
        config: The configuration, with the rows of the fold.
        fold: The fold, whose dev rows are asked; None: the test rows are.
        folder: Where the files go.
    """
    from tell_lightning.data.templates import Renderer
    from tell_lightning.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(config.model.base, **config.model.hub_options)
    encoder = Encoder(tokenizer, Renderer(tokenizer, config.data.thinking))
    seed = seed_for("draw", config.seed, config.data.mixture.draw_seed)
    split: Literal["dev", "test"] = "test" if fold is None else "dev"
    found = few_shot(config.data, encoder, folder / "few_shot", split=split, draw_seed=seed)
    write_whole(folder / EXAMPLES, as_json(found.examples).encode())
    return found.overlay


def few_shot(
    data: DataSettings,
    encoder: Encoder,
    folder: Path,
    *,
    split: Literal["dev", "test"],
    draw_seed: int = 0,
) -> FewShot:
    """Write the rows of a split with examples from the training rows before them.

    Args:
        data: The section of the configuration, with the rows of a fold.
        encoder: Tokenizer and renderer of the base.
        folder: Where the files go; it is made.
        split: The rows that are asked; the other split is left out.
        draw_seed: Seed of the draw of `data.mixture.task_examples`, and of the order of examples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    splits = read_splits(data)
    tasks: dict[str, dict[str, Any]] = {}
    counts: dict[str, int] = {}
    for name, task in data.tasks.items():
        examples = in_order(task_examples(splits, data, draw_seed, name), draw_seed)
        asked = getattr(splits, split)[name].records
        answer = task.max_new_tokens or default_max_new_tokens(
            encoder,
            [evaluation_example(each, task.anchor, "given") for each in (*examples, *asked)],
        )
        counts[name] = fitting(encoder, examples, asked, task.anchor, answer)
        shown = examples[: counts[name]]
        place = (folder / name).resolve()
        paths = {"train": f"{place}-train.jsonl", split: f"{place}-{split}.jsonl"}
        _write(Path(paths["train"]), [(each, each.turns) for each in examples])
        _write(Path(paths[split]), [(each, conversation(shown, each)) for each in asked])
        tasks[name] = {
            "dev": None,
            "test": None,
            "dev_from_train": None,
            "max_new_tokens": answer,
            "fields": asdict(FIELDS),
            **paths,
        }
    mixture = {"task_examples": None, "anchor": "given"}
    return FewShot({"data": {"tasks": tasks, "mixture": mixture}}, counts)


def in_order(examples: Sequence[Record], seed: int) -> list[Record]:
    """Order examples by their text and a seed, so that no label comes first."""
    return sorted(
        examples, key=lambda each: derive_key(seed, "few-shot", *(t.content for t in each.turns))
    )


def conversation(examples: Sequence[Record], asked: Record) -> tuple[Turn, ...]:
    """Put examples before a row. Their system texts are left out; the row's own one stays.

    >>> example = Record("1", "", (Turn("user", "2 + 2"), Turn("assistant", "4")), {})
    >>> asked = Record("2", "", (Turn("user", "2 + 3"), Turn("assistant", "5")), {})
    >>> [turn.content for turn in conversation([example], asked)]
    ['2 + 2', '4', '2 + 3', '5']
    """
    system = asked.turns[:1] if asked.turns[0].role == "system" else ()
    before = [turn for each in examples for turn in each.turns if turn.role != "system"]
    return (*system, *before, *asked.turns[len(system) :])


def fitting(
    encoder: Encoder,
    examples: Sequence[Record],
    asked: Sequence[Record],
    anchor: Anchor,
    answer: int,
) -> int:
    """Count the examples that fit before every row.

    Args:
        encoder: Tokenizer and renderer of the base.
        examples: In the order in which they are shown.
        asked: The rows.
        anchor: The anchor of every user turn.
        answer: The longest answer, in tokens.
    """

    def tokens(row: Record, count: int) -> int:
        whole = replace(row, turns=conversation(examples[:count], row))
        (ids,) = encoder.prompt_ids([evaluation_example(whole, anchor, "given")])
        return len(ids)

    room = min(encoder.limits.positions or MOST_TOKENS, MOST_TOKENS) - answer
    longest = max(asked, key=lambda row: tokens(row, 0))
    fits, too_many = 0, len(examples) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if tokens(longest, middle) <= room else (fits, middle)
    return fits


def _write(path: Path, rows: Sequence[tuple[Record, Sequence[Turn]]]) -> None:
    lines = [
        json.dumps(
            {**record.row, ID: record.id, MESSAGES: [asdict(turn) for turn in turns]},
            ensure_ascii=False,
            default=str,
        )
        for record, turns in rows
    ]
    write_whole(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
