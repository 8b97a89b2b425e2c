"""What is seen while a source is prepared: at first nothing, then a bar or lines."""

import io
import re
import sys

import pytest

from tell_lightning.data import progress
from tell_lightning.data.formats import Meter
from tell_lightning.data.progress import PreparingProgress


class Terminal(io.StringIO):
    """Standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, in a list so that it can be set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def run(clock: list[float], seconds: int, done: int = 0) -> None:
    """Count a hundred rows a second."""
    meter = Meter()
    with PreparingProgress("[g]", meter, done) as shown:
        for second in range(1, seconds + 1):
            clock[0] += 1
            meter.share = second / seconds
            shown.advance(100)


def test_less_than_two_seconds_show_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(clock, 1)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", Terminal())
    run(clock, 1)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_a_line_every_ten_seconds_where_there_is_no_terminal(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    run(clock, 40, done=2_000)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "preparing [g]: 2,200 rows, 5%, 100 rows/s",
        "preparing [g]: 3,200 rows, 30%, 100 rows/s",
        "preparing [g]: 4,200 rows, 55%, 100 rows/s",
        "preparing [g]: 5,200 rows, 80%, 100 rows/s",
    ]


def test_a_bar_on_a_terminal(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "90")
    run(clock, 8)
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", sys.stderr.getvalue())  # type: ignore[attr-defined]
    assert re.search(r"preparing \[g\] ━+ 800 rows, 100%, 100 rows/s", text)
    assert capsys.readouterr().out == ""
