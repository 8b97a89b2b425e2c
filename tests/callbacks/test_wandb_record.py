"""What goes to W&B, under which summary; and that nothing about it ends a run."""

import math
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from tell_lightning.callbacks import wandb_record
from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.settings import RunSettings
from tell_lightning.callbacks.wandb_record import (
    WandbRecord,
    log_results,
    open_wandb,
    summary_of,
)

SELECTED = {"by": "best dev score", "step": 2, "score": 0.5}


class FakeRun:
    """A W&B run that remembers what it gets, or raises where it is told to."""

    id = "abc123"
    url = "https://wandb.ai/me/p/runs/abc123"

    def __init__(self, folder: Path) -> None:
        self.dir = str(folder)
        self.settings = SimpleNamespace(sync_dir=folder)
        self.summary: dict[str, Any] = {}
        self.config = SimpleNamespace(update=lambda *_, **__: self._take("config"))
        self.broken: dict[str, Exception] = {}
        self.calls: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.defined: dict[str, Any] = {}
        self.artifacts: list[tuple[Any, list[str]]] = []

    def _take(self, what: str) -> None:
        self.calls.append(what)
        if what in self.broken:
            raise self.broken[what]

    def log(self, row: dict[str, Any]) -> None:
        self._take("table" if any(isinstance(v, wandb.Table) for v in row.values()) else "log")
        self.rows.append(row)

    def define_metric(self, name: str, **options: Any) -> None:
        self.defined[name] = options

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self._take("artifact")
        self.artifacts.append((artifact, aliases))

    def save(self, *_: Any, **__: Any) -> None:
        self._take("save")

    def finish(self, exit_code: int) -> None:
        self._take(f"finish {exit_code}")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(wandb_record, "rank_zero_info", lines.append)
    return lines


@pytest.fixture
def started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> tuple[WandbRecord, FakeRun, Any]:
    """A record over a fake run, offline, and the Trainer."""
    fake = FakeRun(tmp_path)
    monkeypatch.setattr(wandb, "init", lambda **_: fake)
    monkeypatch.setattr(wandb, "teardown", lambda *_: None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    trainer: Any = SimpleNamespace(global_step=0)
    record = open_wandb(RunFolder(tmp_path), RunSettings(), {"a": 1}, trainer, step=0)
    assert record is not None
    said.clear()
    return record, fake, trainer


def test_numbers_stand_at_the_steps_completed_without_those_that_do_not_exist(
    started: tuple[WandbRecord, FakeRun, Any],
) -> None:
    record, fake, trainer = started
    record.log_metrics({"val/t/bleu": 1.0}, step=0)
    trainer.global_step = 50
    record.log_metrics({"train/loss": 2.0, "train/loss/rare": math.nan}, step=49)
    assert fake.rows == [
        {"val/t/bleu": 1.0, "trainer/global_step": 0},
        {"train/loss": 2.0, "trainer/global_step": 50},
    ]
    assert fake.defined == {
        "val/t/bleu": {"step_metric": "trainer/global_step", "summary": "max,last"},
        "train/loss": {"step_metric": "trainer/global_step", "summary": "min,last"},
    }


@pytest.mark.parametrize(
    ("key", "summary"),
    [
        ("val/score", "max,last"),
        ("val/judge/f1", "max,last"),
        ("val/judge/stop_rate", "max,last"),
        ("val/judge/unparseable", "min,last"),
        ("val/translate/empty_rate", "min,last"),
        ("val/translate/line_mismatch_rate", "min,last"),
        ("val/translate/ter_lines", "min,last"),
        ("val/translate/rows", None),
        ("val/translate/my_own", None),
        ("val/translate/samples", None),
        ("val/loss/instructions", "min,last"),
        ("train/loss", "min,last"),
        ("train/loss/translate", "min,last"),
        ("train/examples/translate", None),
        ("train/lr", None),
        ("test/translate/bleu", "first,last"),
        ("test/loss/instructions", "first,last"),
        ("test_without_anchor/judge/f1", "first,last"),
        ("epoch", None),
        ("plan", None),
    ],
)
def test_summary_is_best_and_last_but_of_test_before_and_after(
    key: str, summary: str | None
) -> None:
    assert summary_of(key) == summary


def test_number_that_cannot_be_sent_is_said_once_and_the_next_are_sent(
    started: tuple[WandbRecord, FakeRun, Any], said: list[str]
) -> None:
    record, fake, _ = started
    fake.broken["log"] = ConnectionResetError("Connection lost\nand more")
    for _ in range(3):
        record.log_metrics({"a": 1.0})
    assert said == ["W&B: numbers not sent (Connection lost); the run goes on"]
    del fake.broken["log"]
    record.log_metrics({"a": 2.0})
    assert [row["a"] for row in fake.rows] == [2.0]
    assert len(said) == 1


@pytest.mark.parametrize("error", [None, TimeoutError("busy")])
def test_after_a_slow_table_none_is_sent_for_twenty_times_as_long(
    error: Exception | None,
    started: tuple[WandbRecord, FakeRun, Any],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record, fake, _ = started
    now, takes = 100.0, 15.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def slow(row: dict[str, Any]) -> None:
        nonlocal now
        fake.calls.append("log")
        now += takes
        if error:
            raise error

    fake.log = slow  # type: ignore[method-assign]

    def table() -> int:
        record.log_table("t", columns=["a"], data=[["x"]])
        return fake.calls.count("log")

    assert table() == 1
    now = 115 + 299
    assert table() == 1
    now = 115 + 301
    takes = 0.1
    assert table() == table() - 1 == 2
    told = "W&B: a table took 15 s, so none is sent for 5 minutes"
    assert said == [*(["W&B: tables not sent (busy); the run goes on"] if error else []), told]


@pytest.mark.parametrize("broken", ["artifact", "save", "config", "finish 0"])
def test_nothing_that_wandb_does_reaches_the_run(
    broken: str, started: tuple[WandbRecord, FakeRun, Any], said: list[str], tmp_path: Path
) -> None:
    record, fake, trainer = started
    trainer.loggers = [record]
    fake.broken[broken] = OSError("No space left on device")
    for name in ("adapter/adapter.bin", "predictions/test-t-base.jsonl", "plan.json", "run.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    fake.dir = str(tmp_path / "wandb")
    plan = {"digest": "d", "realised": {"sources": {"t": {"kind": "task", "rows": 1}}}}
    wandb_record.log_plan(trainer, plan, tmp_path / "plan.json")
    log_results(trainer, RunFolder(tmp_path), SELECTED)
    record.close(0)
    assert fake.calls[-1] == "finish 0"
    kinds = {"artifact": "the model artifact", "save": "the plan", "config": "the plan"}
    what = kinds.get(broken, "the rest")
    assert said[0].startswith(f"W&B: {what} not sent (No space left on device); ")
    hint = f"send it with `wandb sync {tmp_path}`"
    assert (hint in said[-1]) == (broken == "finish 0")
    record.log_metrics({"a": 1.0})  # after the end: nothing
    assert fake.calls[-1] == "finish 0"


def test_wandb_that_does_not_give_up_in_time_is_stopped(
    started: tuple[WandbRecord, FakeRun, Any], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, fake, _ = started
    stopped = threading.Event()

    def finish(exit_code: int) -> None:
        assert stopped.wait()
        raise BrokenPipeError

    fake.finish = finish  # type: ignore[method-assign]
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "0.1")
    monkeypatch.setattr(wandb_record, "GRACE_SECONDS", 0.9)
    monkeypatch.setattr(wandb_record, "_stop_service", stopped.set)
    record.close(0)
    assert said[-1].startswith("W&B: the rest not sent (no end in 1 s); send it with `wandb sync ")


def test_adapter_and_test_predictions_are_artifacts_named_by_their_step(
    started: tuple[WandbRecord, FakeRun, Any], tmp_path: Path
) -> None:
    record, fake, trainer = started
    trainer.loggers = [record]
    for name in (
        "adapter/adapter.bin",
        "predictions/dev-t-base.jsonl",
        "predictions/test-t-base.jsonl",
        "predictions/test_without_anchor-t-step-000002.jsonl",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    log_results(trainer, RunFolder(tmp_path), SELECTED)
    (model, aliases), (answers, _) = fake.artifacts
    assert (model.type, aliases) == ("model", ["best", "step-2"])
    assert model.name == f"{tmp_path.name}-model"
    assert set(model.manifest.entries) == {"adapter.bin"}
    assert model.metadata == SELECTED
    assert set(answers.manifest.entries) == {
        "test-t-base.jsonl",
        "test_without_anchor-t-step-000002.jsonl",
    }
    for artifact in (model, answers):  # what is not sent yet lies in the run folder
        for entry in artifact.manifest.entries.values():
            assert Path(entry.local_path).is_relative_to(tmp_path)
    log_results(trainer, RunFolder(tmp_path), {"by": "last step", "step": 4, "score": None})
    assert fake.artifacts[-1][1] == ["last", "step-4"]


def begin(tmp_path: Path) -> WandbRecord | None:
    trainer: Any = SimpleNamespace(global_step=0)
    return open_wandb(RunFolder(tmp_path), RunSettings(), {}, trainer, step=0)


@pytest.mark.parametrize(
    ("key", "mode", "wanted"),
    [
        (True, None, "online"),
        (False, None, "offline"),
        (True, "offline", "offline"),
        (True, "dryrun", "offline"),
        (False, "online", "offline"),  # W&B would ask for a key and wait
        (True, "disabled", None),
    ],
)
def test_mode_is_that_of_the_environment_and_without_a_key_offline(
    key: bool,
    mode: str | None,
    wanted: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **o: given.append(o) or FakeRun(tmp_path))
    monkeypatch.setattr(wandb, "login", lambda **_: key)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    record = begin(tmp_path)
    if wanted is None:
        assert record is None
        assert given == []
        return
    (options,) = given
    assert options["settings"].mode == wanted
    assert options["resume"] == "allow"
    assert "anonymous" not in options  # W&B prints a warning about it
    assert (tmp_path / "wandb" / "id").read_text() == "abc123\n"
    if wanted == "online":
        assert said == [f"W&B: {FakeRun.url}"]
    else:
        hint = f"wandb sync {tmp_path}/wandb/offline-run-*"
        assert said == [f"W&B: offline; send it with `{hint}`"]


def test_run_that_goes_on_has_its_id_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids: list[str | None] = []
    monkeypatch.setattr(wandb, "init", lambda id, **_: ids.append(id) or FakeRun(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    first, second = begin(tmp_path), begin(tmp_path)
    assert ids == [None, "abc123"]
    assert first is not None
    assert second is not None
    assert (first.resumes, second.resumes) == (False, True)


def test_summary_of_a_run_that_goes_on_is_that_of_all_its_sessions(
    started: tuple[WandbRecord, FakeRun, Any], tmp_path: Path
) -> None:
    record, fake, _ = started
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,test/score,train/loss/rare,val/score\n"
        "0,0,0.1,,0.2\n0,1,,nan,0.9\n0,2,,3.0,0.4\n0,2,0.5,2.0,\n0,3,0.7,,\n0,4,0.7,,7"
    )
    record.resumes = True
    record.close(0)
    assert fake.summary == {
        "test/score": {"first": 0.1, "last": 0.7},
        "train/loss/rare": {"min": 2.0, "last": 2.0},
        "val/score": {"max": 0.9, "last": 0.4},
    }


def test_server_that_is_not_reached_leaves_the_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def init(settings: Any, **_: Any) -> FakeRun:
        if settings.mode == "online":
            raise wandb.errors.CommError("Run initialization has timed out after 60.0 sec.")
        return FakeRun(tmp_path)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert begin(tmp_path) is not None
    reason = "Run initialization has timed out after 60.0 sec."
    assert said[0] == f"W&B: not reached ({reason}); this run is logged offline"
    assert said[1].startswith("W&B: offline; send it with `wandb sync ")


@pytest.mark.parametrize("error", [OSError("No space left on device"), ValueError("odd")])
def test_wandb_that_does_not_even_start_offline_is_left_out(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def init(**_: Any) -> FakeRun:
        raise error

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert begin(tmp_path) is None
    assert said == [
        f"W&B: not reached ({error}); this run is logged offline",
        f"W&B: does not start ({error}); metrics.csv holds everything",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("WANDB_MODE", "ofline", "WANDB_MODE: Input should be 'online', 'offline', "),
        ("WANDB_FINISH_TIMEOUT", "abc", "WANDB_FINISH_TIMEOUT: Input should be a valid number, "),
    ],
)
def test_variable_that_wandb_cannot_read_is_named_and_the_run_goes_on_without_wandb(
    variable: str,
    value: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv(variable, value)
    wandb.teardown()  # W&B reads its variables once a process
    assert begin(tmp_path) is None
    (line,) = said
    assert line.startswith(f"W&B: does not start ({says}")
    assert line.endswith("); metrics.csv holds everything")


def test_ctrl_c_is_not_swallowed(started: tuple[WandbRecord, FakeRun, Any]) -> None:
    record, fake, _ = started
    fake.broken["log"] = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        record.log_metrics({"a": 1.0})
