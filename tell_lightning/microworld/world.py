"""The generated worlds on disk, and the folder of the base model.

A world is a folder of JSONL files. The same seed gives the same bytes; writing takes about three
seconds. Dev and test rows share no sentence with training rows or the pre-training text
(`documents.split_of`), and no training row holds a held-out Velsk word.
"""

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tell_lightning.microworld import testbeds
from tell_lightning.microworld.documents import Split
from tell_lightning.microworld.instructions import draw_instruction
from tell_lightning.microworld.tasks import Make, Row, judge_rows, translate_rows

WORLD_VERSION = "2"
"""Part of the digest in the cache folder's name. Raise it when a file changes its meaning."""

_GENERATORS = (
    "lexicon",
    "grammar",
    "documents",
    "instructions",
    "tasks",
    "functions",
    "testbeds",
    "world",
)

_README = """# microworld

A generated world: English, Norn (an invented language that the general data teach) and Velsk (a
low-resource one). One JSON object a line. No sentence of a dev or test file stands in a training
file or in the pre-training text of the base; a fifth of the Velsk words stand in dev and test only.

| file | rows | what |
| --- | --- | --- |
| `translate/train.jsonl` | 3,000 | `prompt`: a Velsk document; `response`: it in English |
| `translate/dev.jsonl` | 64 | the same, with held-out words |
| `translate/test.jsonl` | 200 | the same, with held-out words |
| `judge/train.jsonl` | 3,000 | `prompt`: text, question, answer; `response`: verdict in JSON |
| `judge/dev.jsonl` | 64 | the same |
| `judge/test.jsonl` | 200 | the same, half of the answers false |
| `judge/test_prior19.jsonl` | 200 | the same, 19 % of the answers false |
| `general/train.jsonl` | 20,000 | `kind`, `instruction`, `input` (may be empty), `output` |
| `general/held_out.jsonl` | 400 | the same kinds, no row and no sentence of `train` |

Translation rows also hold `source` (the Velsk text: the baseline of copying), `random_words` (the
right English templates with other content words: the baseline of knowing the grammar alone) and
`unseen` (the English words that translate held-out Velsk words). Judging rows hold `label`: "yes"
means that the answer is a hallucination. The anchors are not in the data: the configuration adds
them (`tell_lightning/microworld/tasks.py`).
"""


def write_world(folder: Path, seed: int = 0) -> None:
    """Write the files of the default world.

    Args:
        folder: Folder to write to; made if missing. Files in it are replaced.
        seed: Seed of the documents. Words, grammar and splits do not depend on it.
    """
    _write_files(folder, _files(), seed)
    (folder / "README.md").write_text(_README, encoding="utf-8", newline="\n")


def write_testbeds(folder: Path, seed: int = 0) -> None:
    """Write the files of the testbeds (`testbeds.files`).

    Args:
        folder: Folder to write to; made if missing. Files in it are replaced.
        seed: Seed of the rows.
    """
    _write_files(folder, testbeds.files(), seed)
    for name, of, count in testbeds.excerpts():
        lines = (folder / f"{of}.jsonl").read_text("utf-8").splitlines(keepends=True)
        text = "".join(lines[:count])
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")


WORLDS: dict[str, Callable[[Path], None]] = {
    "microworld": write_world,
    "testbeds": write_testbeds,
}
"""The worlds that `data.root` may name, and the function that writes each."""


def data_root(cache_dir: Path, name: str = "microworld") -> Path:
    """Return the folder of a world, and write it if it does not exist.

    Args:
        cache_dir: Folder that keeps the worlds. Several processes may call this at the same time.
        name: One of `WORLDS`.

    Returns:
        `cache_dir/<name>-<digest>`; the digest covers `WORLD_VERSION` and the generator's source.
    """
    folder = cache_dir / f"{name}-{_source_digest()}"
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=f".{name}-") as temporary:
        fresh = Path(temporary) / "world"
        WORLDS[name](fresh)
        try:
            os.replace(fresh, folder)
        except OSError:  # another process was faster, and its folder holds the same files
            if not folder.is_dir():
                raise
            shutil.rmtree(fresh)
    return folder


def base_dir() -> Path:
    """Return the folder of the packaged base model, a Hugging Face checkpoint."""
    return Path(__file__).parent / "base"


def _write_files(folder: Path, files: list[tuple[str, int, Make]], seed: int) -> None:
    taken: set[str] = set()
    for name, count, make in files:
        rows = _distinct_rows(name, count, make, seed, taken)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def _files() -> list[tuple[str, int, Make]]:
    return [
        ("translate/train", 3000, translate_rows("open")),
        ("translate/dev", 64, translate_rows("dev")),
        ("translate/test", 200, translate_rows("test")),
        ("judge/train", 3000, judge_rows("open", 50)),
        ("judge/dev", 64, judge_rows("dev", 50)),
        ("judge/test", 200, judge_rows("test", 50)),
        ("judge/test_prior19", 200, judge_rows("test", 19)),
        ("general/train", 20_000, _general("open")),
        ("general/held_out", 400, _general("general_held_out")),
    ]


def _general(split: Split) -> Make:
    return lambda row_id, source, _: {"id": row_id, **draw_instruction(source, split)._asdict()}


def _distinct_rows(name: str, count: int, make: Make, seed: int, taken: set[str]) -> Iterator[Row]:
    """Yield rows with distinct prompts; `taken` holds the prompts of all rows so far."""
    attempt = 0
    for index in range(count):
        row_id = f"{name.replace('/', '-')}-{index}"
        while True:
            row = make(row_id, random.Random(f"{seed}/{name}/{attempt}"), index)
            attempt += 1
            key = str(row.get("prompt") or f"{row['instruction']}\n{row['input']}")
            if key not in taken:
                break
        taken.add(key)
        yield row


def _source_digest() -> str:
    digest = hashlib.sha256(WORLD_VERSION.encode())
    for name in _GENERATORS:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()[:12]
