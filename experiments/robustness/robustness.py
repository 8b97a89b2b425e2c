r"""The parts of a robustness case: what it gets, what it sees, and what it says.

@case(line=5, input="TSV whose field begins with a quotation mark")
def quotation_mark(box: Box) -> Result:
    path = box.write("rows.tsv", 'prompt\tresponse\n"a\tb\n')
    done = box.call("predict", "--input", str(path))
    return Result(did="read one row", right=done.code == 0)
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 300
"""A command that runs longer hangs."""


@dataclass(frozen=True)
class Result:
    """What a case found.

    Attributes:
        did: What the tool did, in a few words.
        right: Whether that is what it should do.
    """

    did: str
    right: bool


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: Exit code; None if it was ended after `LIMIT_SECONDS`.
        out: Standard output.
        err: Standard error.
    """

    code: int | None
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The last line of standard error, or how the command ended."""
        return (self.err.strip().splitlines() or [f"exit code {self.code}"])[-1]

    def refused(self, *parts: str) -> bool:
        """Return whether the command ended with code 2 and one line that has these parts."""
        one_line = self.err.startswith("error: ") and self.err.count("\n") == 1
        return self.code == 2 and one_line and all(part in self.err for part in parts)


@dataclass(frozen=True)
class Box:
    """What a case works with.

    Attributes:
        folder: An empty folder; commands run in it.
    """

    folder: Path

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file into the folder; text as UTF-8, with its line ends as they are."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return path

    def jsonl(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write rows into the folder as JSONL."""
        return self.write(name, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))

    def call(
        self,
        *args: str,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run `python -m tell_lightning` in a process of its own.

        Args:
            args: The command line after `tell_lightning`.
            stdin: Standard input; None: nothing.
            env: Environment variables to set in addition.
        """
        sent = stdin.encode("utf-8") if isinstance(stdin, str) else stdin or b""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tell_lightning", *args],
                cwd=self.folder,
                env={**_environment(self.folder), **(env or {})},
                input=sent,
                capture_output=True,
                timeout=LIMIT_SECONDS,
                check=False,
            )
            code, out, err = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as late:
            code, out, err = None, late.stdout or b"", late.stderr or b""
        texts = (each.decode("utf-8", errors="replace") for each in (out, err))
        return Outcome(code, *texts)


def run_folder(box: Box) -> Path:
    """Return the folder of the only run."""
    (folder,) = (box.folder / "runs").iterdir()
    return folder


@dataclass(frozen=True)
class Case:
    """One input, and the function that tries it."""

    line: int
    input: str
    run: Callable[[Box], Result]

    def __call__(self, box: Box) -> Result:
        """Try it; an error of the case itself is a wrong result."""
        try:
            return self.run(box)
        except Exception as error:
            text = str(error).partition("\n")[0]
            return Result(did=f"the case ended with {type(error).__name__}: {text}", right=False)


def case(*, line: int, input: str) -> Callable[[Callable[[Box], Result]], Case]:
    """Make a function a case.

    Args:
        line: Number in the list of faults (`FAULTS` in `run.py`).
        input: What the case gives to the tool, in a few words.
    """
    return lambda run: Case(line, input, run)


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "XDG_CACHE_HOME": str(folder.parent / "cache"),
    }
