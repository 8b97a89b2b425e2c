"""`fit` as somebody at a terminal sees it, through a real one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_world import World

pty = pytest.importorskip("pty", reason="Requires: a pseudo-terminal")
termios = pytest.importorskip("termios", reason="Requires: a pseudo-terminal")


def in_terminal(arguments: list[str], home: Path, columns: int) -> tuple[int, str]:
    """Run the command line in a terminal of its own; return its exit code and what it wrote."""
    mine, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, columns))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    for name in ("COLUMNS", "NO_COLOR", "CI", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environment.pop(name, None)
    environment |= {"HOME": str(home), "TERM": "xterm-256color", "WANDB_MODE": "disabled"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tell_lightning", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    written = b""
    try:
        while True:
            try:
                piece = os.read(mine, 65536)
            except OSError:  # Linux: the other side has closed
                break
            if not piece:
                break
            written += piece
        return process.wait(), written.decode("utf-8")
    finally:
        process.kill()
        process.wait()
        os.close(mine)


def test_bar_counts_steps_and_names_its_numbers(world: World, tmp_path: Path) -> None:
    code, written = in_terminal(
        ["fit", *world.overlay, f"--run.dir={tmp_path / 'runs'}"], tmp_path, columns=100
    )
    assert code == 0, written
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    pieces = [piece.strip() for piece in re.split(r"[\r\n]+", screen)]
    bars = [piece for piece in pieces if re.match(r"step +\d+/\d+ ", piece)]
    assert re.match(r"step 0/4 ", bars[0])
    last = bars[-1]
    assert re.fullmatch(
        r"step 4/4 ━+ loss \d+\.\d{3}  tokens/s [\d,]+  task \d+\.\d%  dev \d\.\d{3}  eta 0:00:00",
        last,
    ), last
    assert any("scoring dev" in bar for bar in bars)
    for odd in ("Epoch", "/-2", "it/s", "v_num", "Traceback", "Warning", "…"):
        assert odd not in screen
    # Messages stand on lines of their own, and no bar is left twice.
    assert len([piece for piece in pieces if piece.startswith("dev turn: BLEU")]) == 3
    assert len(re.findall(r"step 4/4 .*eta 0:00:00\s*\n", screen)) == 1
