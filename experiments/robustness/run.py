"""Try inputs that strangers bring: one line a case, with what the tool did.

    python experiments/robustness/run.py                  all of it: about 20 minutes on two cores
    python experiments/robustness/run.py --only files     the cases of cases/files.py alone

Each case has an empty folder of its own. Prints the table, and writes `results/robustness.json` and
the table of `README.md`. Exits with 1 if a case is not right.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from robustness import Box, Case

HERE = Path(__file__).resolve().parent
RESULTS, README = HERE / "results/robustness.json", HERE / "README.md"
FAULTS = {
    1: "BLEU for languages without spaces",
    2: "a key given twice",
    3: "the base's weights changed under the same path",
    4: "control tokens in users' text",
    5: "TSV as corpora write it",
    6: "greedy answers that depend on the batch",
    7: "training that diverged",
    8: "a clock that steps back",
    9: "bits on resume on a GPU",
    10: "strings that YAML reads as numbers",
    11: "one class in a list of callbacks, loggers or plugins",
    12: "the mode of the adapter's file",
    13: "a user without passwd entry and HOME",
    14: "rows longer than the model's positions, tokens without embeddings",
    15: "chat templates of public models",
    16: "target modules and attention that a model has not",
    17: "output that is not UTF-8, closed pipes",
    18: "the end by patience, and the last step",
    19: "an end-of-turn token that is not flagged special",
    20: "relative bases, printed commands, Ctrl+C, a full disk",
    21: "Python in somebody else's run folder",
    22: "the demo leaks into the user's run",
    23: "tied dev scores",
    24: "scoring mistakes that surface after training",
    25: "classification",
    26: "silence",
    27: "Ctrl+C before the first checkpoint",
    28: "a smaller scoring overwrites predictions",
    29: "help and reference",
    30: "bases without a chat template",
    31: "small surprises with files, rows and the hub",
    32: "ranges",
    33: "the forgetting guard",
}
"""The list of faults: each line is a kind, and a case is one input of it."""


def found(folder: Path, only: str | None) -> dict[str, list[Case]]:
    """Return the cases of each topic; a topic is a file of the folder's `cases/`."""
    sys.path.insert(0, str(folder))
    topics = sorted(path.stem for path in (folder / "cases").glob("*.py"))
    if only is not None and only not in topics:
        raise SystemExit(f"--only: must be one of {', '.join(topics)}, got '{only}'.")
    return {
        topic: [
            each
            for each in vars(import_module(f"cases.{topic}")).values()
            if isinstance(each, Case)
        ]
        for topic in topics
        if only in (None, topic)
    }


def tried(topics: dict[str, list[Case]], folder: Path) -> Iterator[dict[str, Any]]:
    """Try the cases, each in an empty folder of its own."""
    for topic, cases in topics.items():
        for number, case in enumerate(cases, start=1):
            place = folder / f"{topic}-{number}"
            place.mkdir()
            started = time.perf_counter()
            result = case(Box(place))
            seconds = round(time.perf_counter() - started, 1)
            yield {
                "topic": topic,
                "line": case.line,
                "input": case.input,
                "did": result.did,
                "right": bool(result.right),
                "seconds": seconds,
            }


def table(results: Iterable[dict[str, Any]]) -> str:
    """Return the table as Markdown, in the order of the list of faults."""
    lines = [
        "| line | kind of fault | input | what the tool did | right |",
        "| ---: " + "| --- " * 4 + "|",
    ]
    for each in sorted(results, key=lambda each: (each["line"], each["topic"])):
        texts = (FAULTS[each["line"]], each["input"], each["did"])
        cells = " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts)
        lines.append(f"| {each['line']} | {cells} | {'yes' if each['right'] else '**no**'} |")
    return "\n".join(lines)


def summary(results: list[dict[str, Any]]) -> str:
    """Return how many cases are right, and which lines have none."""
    right = sum(each["right"] for each in results)
    without = sorted(FAULTS.keys() - {each["line"] for each in results})
    missing = f" Lines without a case: {', '.join(map(str, without))}." if without else ""
    return f"{right} of {len(results)} cases are right.{missing}"


def main() -> None:
    """Try the cases; print and write what they found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--only", metavar="TOPIC", help="one file of cases/; others keep their results"
    )
    only = parser.parse_args().only
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if only and RESULTS.exists() else []
    results = [each for each in kept if each["topic"] != only]
    new = []
    with tempfile.TemporaryDirectory() as name:
        for each in tried(found(HERE, only), Path(name)):
            new.append(each)
            word = "right" if each["right"] else "WRONG"
            print(f"{each['line']:>2} {word} {each['input']}: {each['did']}", flush=True)
    results += new
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = README.read_text(encoding="utf-8").partition("<!-- table -->")[0]
    README.write_text(
        f"{text}<!-- table -->\n\n{table(results)}\n\n{summary(results)}\n", encoding="utf-8"
    )
    print(summary(results))
    sys.exit(not all(each["right"] for each in new))


if __name__ == "__main__":
    main()
