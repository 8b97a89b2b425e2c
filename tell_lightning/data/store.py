"""Prepared tokens on disk: Arrow files, memory-mapped, named by what they were made from.

Enters: token rows. Leaves: a folder `tokens-<key>` under the cache with the rows and a report. The
key covers the file's bytes, the anchor, the template, the tokenizer and the length rule, so a
changed input is a new folder and an old one is never served. Written beside and renamed, so two
processes may prepare the same source at once.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

SCHEMA = "tokens-v1"


def content_key(parts: Mapping[str, object]) -> str:
    """Digest plain values: the same parts in any order give the same 32 hex digits."""
    text = json.dumps({"schema": SCHEMA, **parts}, sort_keys=True, ensure_ascii=False)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest a tokenizer by the files it would be saved as; the chat template is one of them."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        digest = blake2b(digest_size=16)
        for path in sorted(Path(folder).iterdir()):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def prepare(folder: Path, build: Callable[[], tuple[dict[str, list[Any]], dict[str, Any]]]) -> None:
    """Write rows and report into a folder unless it is there.

    Args:
        folder: Where to; its name holds the content key.
        build: Makes the columns and the report; called only when they are missing.
    """
    if folder.is_dir():
        return
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    columns, report = build()
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        Dataset.from_dict(columns).save_to_disk(str(draft))
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (draft / "report.json").write_text(text, encoding="utf-8")
        os.replace(draft, folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, with the same content
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Open prepared rows, memory-mapped, and their report."""
    from datasets import load_from_disk

    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return load_from_disk(str(folder)), report
