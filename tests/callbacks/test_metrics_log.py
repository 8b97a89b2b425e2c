"""Reading `metrics.csv`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tell_lightning.callbacks.metrics_log import by_name, read_log

LOG = "step,train/loss,val/score\n0,,0.25\n2,nan,\n2,1.5,0.5\n"


@pytest.mark.parametrize("cut", ["", "4,0.5", "4,0.5,0.", "4"])
def test_rows_hold_their_finite_numbers_and_a_line_that_a_kill_cut_off_is_left_out(
    cut: str, tmp_path: Path
) -> None:
    (tmp_path / "metrics.csv").write_text(LOG + cut)
    log = read_log(tmp_path / "metrics.csv")
    assert log == [
        {"step": 0, "val/score": 0.25},
        {"step": 2},
        {"step": 2, "train/loss": 1.5, "val/score": 0.5},
    ]
    assert by_name(log)["val/score"] == [(0, 0.25), (2, 0.5)]


@pytest.mark.parametrize("text", [None, "", "step,train/lo", "step,train/loss\r\n"])
def test_file_that_holds_no_row_yet_is_an_empty_log(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    assert read_log(tmp_path / "metrics.csv") == []


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys, tell_lightning.callbacks.metrics_log\n"
        "sys.exit(bool({'torch', 'lightning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
