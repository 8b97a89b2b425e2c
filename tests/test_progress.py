"""What is seen of a phase: at first nothing, then a bar or lines, also while nothing is counted."""

import io
import re
import sys
import time
from collections.abc import Callable

import pytest

from tell_lightning import progress
from tell_lightning.progress import Progress, Ticker


class Terminal(io.StringIO):
    """Standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that a phase sees, in a list so that it can be set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def wait_for(happened: Callable[[], bool]) -> None:
    for _ in range(6_000):
        if happened():
            return
        time.sleep(0.005)
    pytest.fail("did not happen")


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)


def test_a_short_phase_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress("scoring dev", 8) as phase:
        phase.advance(8)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("scoring dev", 8) as phase:
        phase.advance(8)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "units", "text"),
    [
        ({"total": 200}, 0, "0 of 200 rows, 40 s"),
        ({"total": 200}, 100, "100 of 200 rows, 2.5 rows/s, eta 0:00:40"),
        ({"total": 5_000, "done": 1_000}, 2_000, "3,000 of 5,000 rows, 50 rows/s, eta 0:00:40"),
        ({"total": 4, "unit": "batches"}, 4, "4 of 4 batches, 6.0 batches/min, eta 0:00:00"),
        ({"share": lambda: 0.25}, 100, "100 rows, 25%, 2.5 rows/s, eta 0:02:00"),
        ({}, 0, "40 s"),
    ],
)
def test_text_says_how_much_is_done_how_fast_and_how_long_the_rest_takes(
    options: dict[str, object], units: int, text: str, clock: list[float]
) -> None:
    with Progress("scoring", **options) as phase:  # type: ignore[arg-type]
        clock[0] += 40
        phase.advance(units)
        assert phase.text() == text


def test_lines_come_off_a_terminal_even_while_nothing_is_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.01)
    shown: list[str] = []

    def lines() -> list[str]:
        shown.extend(capsys.readouterr().err.splitlines())
        return shown

    with Progress("scoring dev", 8):
        wait_for(lambda: len(lines()) >= 3)
    assert all(re.fullmatch(r"scoring dev: 0 of 8 rows, \d+ s", line) for line in shown)
    lines()
    count = len(shown)
    assert len(lines()) == count


def test_what_another_process_shows_is_not_shown_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.01)
    with Progress("scoring dev", 8, shown=False) as phase:
        phase.advance(1)
        time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_bar_for_each_phase_and_none_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(progress, "SILENT", 0.01)
    with Progress("outer [g]", 8) as outer:
        wait_for(lambda: "outer [g]" in screen.getvalue())
        with Progress("inner", share=lambda: 0.5):
            wait_for(lambda: "inner" in screen.getvalue())
        outer.advance(3)
        wait_for(lambda: "3 of 8 rows" in without_codes(screen.getvalue()))
    assert "━" in screen.getvalue()
    assert progress._screen._display is None
    with Progress("next"):
        wait_for(lambda: "next" in screen.getvalue())


def test_a_ticker_that_is_postponed_waits_again() -> None:
    calls: list[int] = []
    ticker = Ticker(lambda: calls.append(1), 0.01)
    wait_for(lambda: len(calls) >= 2)
    ticker.stop()
    slow = Ticker(lambda: calls.append(2), 3600)
    slow.postpone()
    slow.stop()
    assert 2 not in calls
