"""Run a program to its end, and keep what it says for the case that it fails."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryFile


def run_to_end(
    command: Sequence[str],
    changes: Mapping[str, str],
    look: Callable[[], None] = lambda: None,
) -> str | None:
    """Run a command to its end.

    Args:
        command: The command.
        changes: Environment variables that are set for it; TMPDIR also takes what it says.
        look: Called several times a second.

    Returns:
        None if it succeeded, else what it said.
    """
    with TemporaryFile(dir=changes.get("TMPDIR")) as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **changes},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                look()
                try:
                    process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if not process.returncode:
            return None
        output.seek(0)
        return output.read().decode(errors="replace")
