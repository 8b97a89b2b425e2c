"""`metrics.csv`: numbered by the optimizer steps completed, and going on where a run goes on."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.loggers import MetricsFile, logged
from tell_lightning.callbacks.settings import RunSettings


def metrics_file(path: Path, kept_steps: int) -> tuple[MetricsFile, Any]:
    trainer: Any = SimpleNamespace(global_step=kept_steps)
    return MetricsFile(RunFolder(path), trainer, kept_steps=kept_steps), trainer


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_row_has_the_steps_completed_whatever_lightning_counts(tmp_path: Path) -> None:
    logger, trainer = metrics_file(tmp_path, 0)
    logger.log_metrics({"test/score": 0.1}, step=0)
    trainer.global_step = 50
    logger.log_metrics({"train/loss": 2.0}, step=49)
    logger.log_metrics({"val/score": 0.3}, step=49)
    logger.save()
    assert [row["step"] for row in rows(tmp_path)] == ["0", "50", "50"]


def test_metrics_of_a_second_session_follow_those_of_the_first(tmp_path: Path) -> None:
    for start in (0, 2):
        logger, trainer = metrics_file(tmp_path, start)
        # The rows of steps 3 and 4 of the first session are dropped: they are logged again.
        for step in (start + 1, start + 2, *([] if start else [3, 4])):
            trainer.global_step = step
            logger.log_metrics({"loss": float(step), **({"late": 1.0} if start else {})})
        logger.save()
    assert [int(row["step"]) for row in rows(tmp_path)] == [1, 2, 3, 4]
    assert [row["late"] for row in rows(tmp_path)] == ["", "", "1.0", "1.0"]


def test_test_sets_that_are_scored_again_stand_there_once(tmp_path: Path) -> None:
    for start, end in ((0, 2), (2, 4)):
        logger, trainer = metrics_file(tmp_path, start)
        if not start:
            logger.log_metrics({"test/score": 0.0})
        trainer.global_step = end
        logger.log_metrics({"val/score": float(end)})
        logger.log_metrics({"test/score": float(end)})
        logger.save()
    scores = {row["step"]: row["test/score"] for row in rows(tmp_path) if row["test/score"]}
    assert scores == {"0": "0.0", "4": "4.0"}
    assert [row["step"] for row in rows(tmp_path) if row["val/score"]] == ["2", "4"]


@pytest.mark.parametrize(
    ("left", "steps"),
    [("", [2]), ("loss,step\n1.0,1\n1.0", [1, 2]), ("loss,step\n1.0,1\n\n", [1, 2])],
)
def test_metrics_that_a_kill_cut_off_go_on(left: str, steps: list[int], tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(left)
    logger, trainer = metrics_file(tmp_path, 1)
    trainer.global_step = 2
    logger.log_metrics({"loss": 2.0})
    logger.save()
    assert [int(row["step"]) for row in rows(tmp_path)] == steps


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, 0), (RuntimeError("x"), 1), (SystemExit(143), 143), (SystemExit("text"), 1)],
)
def test_wandb_is_told_how_the_run_ended(
    error: BaseException | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    record = SimpleNamespace(close=codes.append)
    monkeypatch.setattr("tell_lightning.callbacks.loggers.open_wandb", lambda *_, **__: record)
    trainer: Any = SimpleNamespace(loggers=["asked for"], global_step=0)

    def run() -> None:
        with logged(trainer, RunFolder(tmp_path), RunSettings(), {}, step=0):
            assert [type(logger) for logger in trainer.loggers] == [str, MetricsFile, type(record)]
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    assert codes == [code]
