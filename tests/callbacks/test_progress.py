"""The numbers that a bar and a plain line share, and when they are shown."""

import io
import logging
import queue
import re
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from tell_lightning.callbacks import progress
from tell_lightning.callbacks.progress import Pace, PlainProgress, StepsBar


@pytest.fixture
def trainer() -> SimpleNamespace:
    """As much of a Trainer as progress looks at: step 40 of 100, logs every 10."""
    metrics = {
        "train/loss": 1.23456,
        "train/lr": 4.1e-4,
        "train/tokens_per_second": 8120.4,
        "train/examples/a": 5.0,
        "train/examples/b": 5.0,
        "train/examples/c": 90.0,
        "val/score": 0.4121,
        "val/a/bleu": 12.0,
    }
    return SimpleNamespace(
        global_step=40,
        max_steps=100,
        log_every_n_steps=10,
        callback_metrics=metrics,
        is_global_zero=True,
        training=True,
    )


TASKS = ("a", "b")


def test_numbers_are_those_logged_with_the_share_of_task_examples(trainer):
    assert Pace(trainer, TASKS).numbers() == {
        "loss": "1.235",
        "lr": "4.1e-04",
        "tokens/s": "8,120",
        "task": "10.0%",
        "dev": "0.412",
    }
    trainer.callback_metrics = {}
    assert Pace(trainer, TASKS).numbers() == {"task": "0.0%"}


def test_numbers_are_shown_at_logged_steps_and_at_the_last_one(trainer):
    pace = Pace(trainer, TASKS)
    shown = []
    trainer.max_steps = 63
    for step in [40, 41, 49, 50, 50, 51, 60, 63, 63]:  # a step comes again with accumulation
        trainer.global_step = step
        if pace.advance():
            shown.append(step)
    assert shown == [50, 60, 63]


def test_time_left_goes_by_the_steps_of_this_session(trainer, monkeypatch):
    clock = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    pace = Pace(trainer, TASKS)
    trainer.global_step = 50
    assert pace.eta() == "0:00:50"
    trainer.global_step = 100
    assert pace.eta() == "0:00:00"


def test_plain_line_names_everything(trainer, monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "rank_zero_info", lines.append)
    plain = PlainProgress(TASKS)
    plain.on_train_start(trainer, None)
    trainer.global_step = trainer.max_steps = 50
    plain.on_train_batch_end(trainer, None, None, None, 0)
    assert lines == [
        "step 50/50  loss 1.235  lr 4.1e-04  tokens/s 8,120  task 10.0%  dev 0.412  eta 0:00:00"
    ]
    plain.on_train_end(trainer, None)


def test_slow_steps_have_plain_lines_except_while_dev_is_scored(trainer, monkeypatch):
    lines = queue.Queue()
    monkeypatch.setattr(progress, "rank_zero_info", lines.put)
    monkeypatch.setattr(progress, "EVERY", 0.01)
    plain = PlainProgress(TASKS)
    plain.on_train_start(trainer, None)
    assert re.fullmatch(r"step 40/100  eta \d+:\d+:\d+", lines.get(timeout=60))
    plain.on_validation_start(trainer, None)
    while not lines.empty():
        lines.get()
    time.sleep(0.1)
    assert lines.empty()
    plain.on_validation_end(trainer, None)
    assert lines.get(timeout=60)
    plain.on_exception(trainer, None, RuntimeError())
    assert plain._ticker is None


@pytest.mark.parametrize("width", [80, 100])
def test_bar_has_its_numbers_whole_and_messages_come_above_it(trainer, monkeypatch, width):
    screen = io.StringIO()
    monkeypatch.setattr(
        progress,
        "Console",
        lambda **options: Console(file=screen, force_terminal=True, width=width, **options),
    )
    handler = logging.StreamHandler(sys.__stderr__)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(handler)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # pytest has its own
    bar = StepsBar(TASKS)
    bar._trainer = trainer
    try:
        bar.on_train_start(trainer, None)
        bar.on_validation_start(trainer, None)
        assert handler.stream is not sys.__stderr__
        logger.warning("a message")
        bar.on_validation_end(trainer, None)
        trainer.global_step = 100
        bar.on_train_batch_end(trainer, None, None, None, 0)
    finally:
        bar.on_train_end(trainer, None)
        logger.removeHandler(handler)
    assert handler.stream is sys.__stderr__
    text = screen.getvalue()
    assert "scoring dev" in text
    assert "a message" in text
    last = [line for line in text.splitlines() if "step" in line][-1]
    assert "100/100" in last
    assert ("━" in last) == (width == 100)
    assert "loss 1.235  tokens/s 8,120  task 10.0%  dev 0.412  eta 0:00:00" in last


def test_bar_is_silent_on_other_ranks(trainer, capsys):
    bar = StepsBar(TASKS)
    bar._trainer = trainer
    bar.disable()
    bar.on_train_start(trainer, None)
    trainer.global_step = 100
    bar.on_train_batch_end(trainer, None, None, None, 0)
    bar.on_train_end(trainer, None)
    assert capsys.readouterr().out == ""
