"""Make the five real tasks' files from clones of the public repositories that hold their data.

    python experiments/real/convert.py --clones CLONES --out DATA/real

CLONES holds one folder for each repository, named as `git clone` names it; README.md beside this
file lists them. The files are read at the commits below, whatever is checked out. `rows.json` says
which rows of a source are the train, dev and test rows, and in which order: it holds their places
in the source, and none of the data.

Writes train.jsonl, dev.jsonl and test.jsonl of each task, with `id`, `prompt` and `response`, and
labels.txt of the two intent tasks.
"""

import argparse
import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROWS = Path(__file__).with_name("rows.json")
"""By task and split: places in the pool of the split."""
SPLITS = ("train", "dev", "test")

Pairs = list[tuple[str, str]]
"""Prompts and responses of a source, in its order."""
Read = Callable[[str], str]
"""Reads a file of a repository, by its path there."""


class ConvertError(Exception):
    """A repository that is missing or not the one it should be."""


@dataclass(frozen=True)
class Source:
    """Where the rows of a task are from."""

    repository: str
    commit: str
    pools: Callable[[Read], Mapping[str, Pairs]]
    """All rows of the source, by the split that draws from them."""
    labelled: bool = False
    """Whether a response is a label."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files of all tasks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--clones", type=Path, required=True, help="folder with the clones")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, made if missing")
    options = parser.parse_args(arguments)
    try:
        files = {task: convert(task, options.clones) for task in SOURCES}
    except ConvertError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for task, texts in files.items():
        folder = options.out / task
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
            print(f"{folder / name}: {text.count(chr(10))} lines")


def convert(task: str, clones: Path) -> dict[str, str]:
    """Make the files of one task.

    Args:
        task: One of `SOURCES`.
        clones: Folder with the clone of its repository.

    Returns:
        The text of each file, by its name.

    Raises:
        ConvertError: The clone, the commit or a file in it is missing.
    """
    source = SOURCES[task]
    pools = source.pools(lambda path: _show(clones, source, path))
    places = json.loads(ROWS.read_text(encoding="utf-8"))[task]
    chosen = {split: [pools[split][place] for place in places[split]] for split in SPLITS}
    files = {f"{split}.jsonl": _lines(task, split, chosen[split]) for split in SPLITS}
    if source.labelled:
        labels = sorted({response for pairs in chosen.values() for _, response in pairs})
        files["labels.txt"] = "".join(f"{label}\n" for label in labels)
    return files


def _lines(task: str, split: str, pairs: Pairs) -> str:
    rows = [
        {"id": f"{task}-{split}-{number}", "prompt": prompt, "response": response}
        for number, (prompt, response) in enumerate(pairs)
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _show(clones: Path, source: Source, path: str) -> str:
    """Read a file of a commit; Git finds it in a clone with or without a work tree."""
    clone = clones / source.repository.rpartition("/")[2]
    command = ["git", "-C", str(clone), "show", f"{source.commit}:{path}"]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8")
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConvertError(
            f"{clone}: must be a clone that holds {path} at {source.commit}, got none. Get it: "
            f"git clone {source.repository} {clone}"
        ) from error


# The sources


def _banking(read: Read) -> Mapping[str, Pairs]:
    train, test = (_intents(read(f"banking_data/{name}.csv")) for name in ("train", "test"))
    return {"train": train, "dev": train, "test": test}


def _intents(text: str) -> Pairs:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [(row["text"].strip(), _label(row["category"])) for row in rows]


def _clinc(read: Read) -> Mapping[str, Pairs]:
    parts = json.loads(read("data/data_full.json"))
    names = {"train": "train", "dev": "val", "test": "test"}
    return {
        split: [(text, _label(intent)) for text, intent in parts[name]]
        for split, name in names.items()
    }


def _bash(read: Read) -> Mapping[str, Pairs]:
    sentences, commands = (read(f"data/bash/all.{end}").split("\n") for end in ("nl", "cm"))
    pairs = [(one.strip(), other.strip()) for one, other in zip(sentences, commands, strict=True)]
    return dict.fromkeys(SPLITS, pairs)


def _advising(read: Read) -> Mapping[str, Pairs]:
    pairs = []
    for query in json.loads(read("data/advising.json")):
        shortest = min(query["sql"], key=len)
        for sentence in query["sentences"]:
            prompt, response = sentence["text"], shortest
            for name, value in sentence["variables"].items():
                prompt, response = prompt.replace(name, value), response.replace(name, value)
            pairs.append((prompt, " ".join(response.split())))
    return dict.fromkeys(SPLITS, pairs)


def _pidgin(read: Read) -> Mapping[str, Pairs]:
    return {split: _columns(read(f"data/tsv_files/en-pcm/{split}.tsv")) for split in SPLITS}


def _columns(text: str) -> Pairs:
    _, *rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    return [(english.strip(), pidgin.strip()) for english, pidgin in rows]


def _label(intent: str) -> str:
    return intent.replace("_", " ").rstrip("?").lower()


SOURCES: Mapping[str, Source] = {
    "banking77": Source(
        "https://github.com/PolyAI-LDN/task-specific-datasets",
        "57ec275d8078af65b7731c2a98be812d844a6d6b",
        _banking,
        labelled=True,
    ),
    "clinc_travel": Source(
        "https://github.com/clinc/oos-eval",
        "828f8093932c8fe6ca7936c3d2e52903b1c523de",
        _clinc,
        labelled=True,
    ),
    "nl2bash": Source(
        "https://github.com/TellinaTool/nl2bash",
        "466c5fe873ab08c7cc0112ea1521cc6ad9c20992",
        _bash,
    ),
    "advising_sql": Source(
        "https://github.com/jkkummerfeld/text2sql-data",
        "5050bad2309a93636ea4788d3660c9202bf11e0e",
        _advising,
    ),
    "en_pidgin": Source(
        "https://github.com/masakhane-io/lafand-mt",
        "d441f8b063d63e95eafb72e84317359e27abf95e",
        _pidgin,
    ),
}


if __name__ == "__main__":
    main()
