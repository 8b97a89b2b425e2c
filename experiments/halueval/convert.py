"""Make training rows from HaluEval, with the prompt of the paper's Halu-CoT-JSON test.

    python experiments/halueval/convert.py --data DATA --out OUT [--dev 200] [--label-only]

Reads `halueval/general_data.json` and `tell/test_Halu_CoT_JSON.jsonl` below DATA. Writes
`train.jsonl` and `dev.jsonl` to OUT, from the lines that the test does not use (1 to 3001); the
last lines are dev. The id of a row is its line number. The prompt is that of the first test row,
with the query and answer replaced. First, the lines that the test uses are rendered in the same
way and must equal its prompts and labels byte for byte.

The thoughts of the paper are not public, so `thought` quotes the annotated spans, or says that
there are none. With --label-only the answer is only the label.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SOURCE = "halueval/general_data.json"
TEST = "tell/test_Halu_CoT_JSON.jsonl"
QUERY, ANSWER, LABEL = "user_query", "chatgpt_response", "hallucination"
QUOTED_WORDS = 40
Row = Mapping[str, Any]


class ConvertError(Exception):
    """Input files that are missing or not those of the paper."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write train.jsonl and dev.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with tell/ and halueval/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, made if missing")
    parser.add_argument("--dev", type=int, default=200, help="rows of dev, the last ones")
    parser.add_argument("--label-only", action="store_true", help="answers without a thought")
    options = parser.parse_args(arguments)
    try:
        counts = convert(options.data, options.out, options.dev, label_only=options.label_only)
    except ConvertError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for name, rows in counts.items():
        print(f"{options.out / name}.jsonl: {rows} rows")


def convert(data: Path, out: Path, dev: int, *, label_only: bool = False) -> dict[str, int]:
    """Check the rendering on the test rows, and write the other rows.

    Args:
        data: Folder with the two input files.
        out: Folder for train.jsonl and dev.jsonl.
        dev: Number of dev rows, taken from the end.
        label_only: Whether answers have only the label.

    Returns:
        The number of rows by file name.

    Raises:
        ConvertError: A file is missing or wrong, or dev leaves no training row.
    """
    rows, test = _read(data / SOURCE), _read(data / TEST)
    if len(rows) <= len(test):
        raise ConvertError(
            f"{data / SOURCE}: must hold more rows than {TEST}, got {len(rows)} and {len(test)}. "
            "Use the files of the commits that configs/README.md names."
        )
    used = rows[-len(test) :]
    render = Prompt.derive(test[0]["prompt"], used[0])
    check_against_test(render, used, test, where=data / TEST)
    free = rows[: -len(test)]
    if not 0 < dev < len(free):
        raise ConvertError(
            f"--dev: must be at least 1 and leave a row to train on, got {dev} of {len(free)}. "
            "Give another number."
        )
    made = [
        {
            "id": str(line),
            "prompt": render(row),
            "response": answer(row, label_only=label_only),
        }
        for line, row in enumerate(free, start=1)
    ]
    out.mkdir(parents=True, exist_ok=True)
    parts = {"train": made[:-dev], "dev": made[-dev:]}
    for name, part in parts.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
    return {name: len(part) for name, part in parts.items()}


class Prompt:
    """The text around the query and the answer of a row."""

    def __init__(self, before: str, between: str, after: str) -> None:
        """Take the texts before, between and after query and answer."""
        self.parts = (before, between, after)

    @classmethod
    def derive(cls, prompt: str, row: Row) -> "Prompt":
        """Find the three texts in a prompt that was made from a row.

        Raises:
            ConvertError: The prompt does not hold the query of the row and then its answer.
        """
        before, query, rest = prompt.partition(row[QUERY])
        between, response, after = rest.partition(row[ANSWER])
        if not (query and response):
            raise ConvertError(
                f"{TEST}: the first prompt must hold the query and answer of its line of {SOURCE}, "
                f"got '{prompt[-60:]}'. Use the files of the commits that configs/README.md names."
            )
        return cls(before, between, after)

    def __call__(self, row: Row) -> str:
        """Return the prompt of a row."""
        before, between, after = self.parts
        return f"{before}{row[QUERY]}{between}{row[ANSWER]}{after}"


def check_against_test(
    render: Prompt, used: Sequence[Row], test: Sequence[Row], *, where: Path
) -> None:
    """Check that the rows of the test have our rendered prompts and labels.

    Raises:
        ConvertError: A row differs.
    """
    for line, (row, expected) in enumerate(zip(used, test, strict=True), start=1):
        got = (render(row), row[LABEL])
        if got != (expected["prompt"], expected["response"]):
            raise ConvertError(
                f"{where}:{line}: the prompt and label must be those rendered from {SOURCE}, got "
                f"others ('{expected['prompt'][-60:]}', {expected['response']}). "
                "Use the files of the commits that configs/README.md names."
            )


def answer(row: Row, *, label_only: bool = False) -> str:
    """Return the annotation of a row as a JSON answer."""
    verdict = {LABEL: row[LABEL]}
    if not label_only:
        verdict = {"thought": _thought(row), **verdict}
    return json.dumps(verdict, ensure_ascii=False)


def _thought(row: Row) -> str:
    if row[LABEL] == "no":
        return "Nothing in the response deviates from what is accurate and reliable."
    spans = [_quote(span) for span in row["hallucination_spans"]]
    if not spans:
        return "The response deviates from what is accurate and reliable."
    return f"The response is not accurate or not reliable where it says: {'; '.join(spans)}."


def _quote(span: str) -> str:
    """Quote the first words of a span; a long quote would make the answer too long."""
    words = span.split()
    return f"'{' '.join(words[:QUOTED_WORDS])}{' ...' if len(words) > QUOTED_WORDS else ''}'"


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        raise ConvertError(
            f"{path}: the file must exist, got none. configs/README.md says where it is from."
        )
    rows = list(_rows(path))
    if not rows:
        raise ConvertError(f"{path}: the file must hold rows, got none. Get it again.")
    return rows


def _rows(path: Path) -> Iterator[Row]:
    # Split only at \n: answers contain other characters that splitlines() takes for line ends.
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.strip():
            yield json.loads(line)


if __name__ == "__main__":
    main()
