"""Make the general rows of the experiments from the large sample of Natural Instructions.

    python experiments/real/general.py --rows NATURAL_INSTRUCTIONS.jsonl.gz --out DATA/general

Writes `short/train.jsonl` and `short/held_out.jsonl`: rows of at most 50 words, instruction, input
and output together, about 80 tokens with a chat template, so that a run is cheap. The held-out rows
are of tasks that no training row is of: every eighth task, by name. Their loss shows what a model
forgets of instructions that it was not trained on. The tasks take turns there, so that the first
rows are of all of them.

`own_words/train.jsonl` holds the rows of `configs/real/general.jsonl`, which SmolLM2 wrote itself,
with the same fields.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path

WORDS = 50
EVERY = 8
"""One task of so many is held out."""
HELD_OUT = 200
OWN_WORDS = Path(__file__).resolve().parents[2] / "configs/real/general.jsonl"

Row = Mapping[str, str]


class GeneralError(Exception):
    """A file that is missing or holds other rows."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=Path, required=True, help="rows as JSON Lines, gzipped")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, made if missing")
    options = parser.parse_args(arguments)
    try:
        train, held_out = divided(short(read(options.rows)))
    except GeneralError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    files = {"short/train": train, "short/held_out": held_out, "own_words/train": own_words()}
    for name, rows in files.items():
        path = options.out / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path}: {len(rows)} rows")


def read(path: Path) -> list[Row]:
    """Read the rows.

    Raises:
        GeneralError: There is no such file, or a row lacks a field.
    """
    if not path.is_file():
        raise GeneralError(
            f"{path}: the file must exist, got none. experiments/real/README.md says where it is "
            "from."
        )
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        rows: list[Row] = [json.loads(line) for line in file]
    for number, row in enumerate(rows, start=1):
        if lacking := {"task", "id", "instruction", "input", "output"} - set(row):
            raise GeneralError(
                f"{path}:{number}: a row must have {min(lacking)}, got {', '.join(row)}. Use the "
                "file that experiments/real/README.md names."
            )
    return rows


def own_words() -> list[Row]:
    """Read the rows that SmolLM2 wrote."""
    lines = OWN_WORDS.read_text(encoding="utf-8").strip().split("\n")
    return [
        {
            "task": "own_words",
            "id": f"own_words-{number}",
            "instruction": row["prompt"],
            "input": "",
            "output": row["response"],
        }
        for number, row in enumerate(map(json.loads, lines))
    ]


def short(rows: Iterable[Row]) -> list[Row]:
    """Keep the rows of at most `WORDS` words."""
    fields = ("instruction", "input", "output")
    return [row for row in rows if sum(len(row[key].split()) for key in fields) <= WORDS]


def divided(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Divide rows into those to train on and held-out ones, which are of other tasks."""
    apart = sorted({row["task"] for row in rows})[::EVERY]
    by_task = [[row for row in rows if row["task"] == task] for task in apart]
    in_turn = (row for row in chain(*zip_longest(*by_task)) if row is not None)
    train = [row for row in rows if row["task"] not in apart]
    return train, list(in_turn)[:HELD_OUT]


if __name__ == "__main__":
    main()
