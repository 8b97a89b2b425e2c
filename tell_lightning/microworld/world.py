"""The world on disk: the two tasks, the general data, and where the base model stands.

A folder and a seed enter, JSONL files leave (one object a line, UTF-8, the same bytes every time);
about three seconds. Dev and test rows say no sentence that a training pool or the pre-training
text says (`documents.split_of`), and no training pool holds a held-out Velsk word.
"""

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tell_lightning.microworld import testbeds
from tell_lightning.microworld.documents import Split
from tell_lightning.microworld.instructions import draw_instruction
from tell_lightning.microworld.tasks import judge_row, translate_row

WORLD_VERSION = "2"
"""Part of the cache folder's name; raise it when a file of the world changes its meaning."""

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
_Row = Mapping[str, object]
_Make = Callable[[str, random.Random, int], _Row]

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

Translation rows also hold `source` (the Velsk text: the floor of copying), `random_words` (the
right English templates with other content words: the floor of knowing the grammar alone) and
`unseen` (the English words that translate held-out Velsk words). Judging rows hold `label`: "yes"
means that the answer is a hallucination. The anchors are not in the data: the configuration adds
them (`tell_lightning/microworld/tasks.py`).
"""


def write_world(folder: Path, seed: int = 0) -> None:
    """Write every file of the world.

    Args:
        folder: Where to write; made if missing, files in it are replaced.
        seed: Which documents are drawn. Words, grammar and splits do not depend on it.
    """
    _write_files(folder, _files(), seed)
    (folder / "README.md").write_text(_README, encoding="utf-8", newline="\n")


def write_testbeds(folder: Path, seed: int = 0) -> None:
    """Write the files of the testbeds (`testbeds.files`), about two seconds.

    Args:
        folder: Where to write; made if missing, files in it are replaced.
        seed: Which rows are drawn.
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
"""What `data.root` may be beside a folder, and what writes it."""


def data_root(cache_dir: Path, name: str = "microworld") -> Path:
    """Give the folder of a world, writing it once.

    Args:
        cache_dir: Where to keep it. Several processes may ask at once.
        name: One of `WORLDS`.

    Returns:
        `cache_dir/<name>-<digest>`; the digest covers `WORLD_VERSION` and the generator.
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
        except OSError:  # another process was faster: its folder is as good and not empty
            if not folder.is_dir():
                raise
            shutil.rmtree(fresh)
    return folder


def base_dir() -> Path:
    """Give the folder of the packaged base model, a Hugging Face checkpoint."""
    return Path(__file__).parent / "base"


def _write_files(folder: Path, files: list[tuple[str, int, _Make]], seed: int) -> None:
    taken: set[str] = set()
    for name, count, make in files:
        rows = _distinct_rows(name, count, make, seed, taken)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def _files() -> list[tuple[str, int, _Make]]:
    return [
        ("translate/train", 3000, _translate("open")),
        ("translate/dev", 64, _translate("dev")),
        ("translate/test", 200, _translate("test")),
        ("judge/train", 3000, _judge("open", 50)),
        ("judge/dev", 64, _judge("dev", 50)),
        ("judge/test", 200, _judge("test", 50)),
        ("judge/test_prior19", 200, _judge("test", 19)),
        ("general/train", 20_000, _general("open")),
        ("general/held_out", 400, _general("general_held_out")),
    ]


def _translate(split: Split) -> _Make:
    return lambda row_id, source, _: translate_row(
        row_id, source, split, with_unseen=split != "open"
    )


def _judge(split: Split, false_percent: int) -> _Make:
    def make(row_id: str, source: random.Random, index: int) -> _Row:
        is_false = (index + 1) * false_percent // 100 > index * false_percent // 100
        return judge_row(row_id, source, split, is_false=is_false)

    return make


def _general(split: Split) -> _Make:
    return lambda row_id, source, _: {"id": row_id, **draw_instruction(source, split)._asdict()}


def _distinct_rows(
    name: str, count: int, make: _Make, seed: int, taken: set[str]
) -> Iterator[_Row]:
    """Yield rows whose prompts no row before them has, in this file or in an earlier one."""
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
