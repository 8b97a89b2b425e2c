"""What W&B gets of a run: offline, read back; online, from a stand-in of its server on loopback."""

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from tiny_runs import Fits, Run, environment
from wandb_files import OfflineRun
from wandb_server import KEY, SentRun, StopServer, WandbServer

from tell_lightning.callbacks import wandb_record
from tell_lightning.callbacks.metrics_log import by_name, read_log
from tell_lightning.callbacks.wandb_record import SUMMARIES, summary_of
from tell_lightning.cli import main

SHORT = ("--eval.every_steps=1", "--eval.patience=null", "--eval.test=false")
TASKS = ("turn", "verdict")
STEP = "trainer/global_step"


@pytest.fixture(scope="module")
def offline(run: Run) -> OfflineRun:
    """What the shared run wrote for W&B."""
    (folder,) = (run.folder / "wandb").glob("offline-run-*")
    return OfflineRun(folder)


def numbers(folder: Path) -> dict[tuple[int, str], float]:
    """Every number of metrics.csv by step and name."""
    with (folder / "metrics.csv").open(newline="") as file:
        return {
            (int(row["step"]), name): float(value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if value and name != "step" and not math.isnan(float(value))
        }


def sent(history: list[dict[str, Any]]) -> dict[tuple[int, str], float]:
    """The same of W&B's history."""
    return {
        (row[STEP], name): value
        for row in history
        for name, value in row.items()
        if isinstance(value, int | float) and name != STEP and not name.startswith("_")
    }


def whole_summary(folder: Path) -> dict[str, Any]:
    """First, last and best of every number of metrics.csv, as they are to be shown."""
    return {
        name: {word: SUMMARIES[word]([value for _, value in points]) for word in words.split(",")}
        for name, points in by_name(read_log(folder / "metrics.csv")).items()
        if (words := summary_of(name))
    }


def tables(history: list[dict[str, Any]]) -> dict[tuple[int, str], dict[str, Any]]:
    """The tables logged, by step and name."""
    return {
        (row[STEP], name): value
        for row in history
        for name, value in row.items()
        if isinstance(value, dict) and value.get("_type") == "table-file"
    }


# Offline


def test_offline_log_holds_every_number_of_metrics_csv_at_its_step(
    run: Run, offline: OfflineRun
) -> None:
    wanted = numbers(run.folder)
    assert sent(offline.history) == wanted
    steps = {step: {name for at, name in wanted if at == step} for step, _ in wanted}
    assert set(steps) == {0, 1, 2, 3, 4}
    assert {"test/turn/bleu", "val/turn/bleu", "val/loss/writing"} <= steps[0]
    assert {"train/loss", "train/tokens_per_second", "val/turn/bleu"} <= steps[2]
    assert {"test/verdict/f1", "test_without_anchor/verdict/f1"} <= steps[4]


def test_offline_summary_holds_best_and_last(run: Run, offline: OfflineRun) -> None:
    wanted = whole_summary(run.folder)
    assert {name: offline.summary[name] for name in wanted} == wanted
    values = [value for (_, name), value in numbers(run.folder).items() if name == "train/loss"]
    assert offline.summary["train/loss"] == {"min": min(values), "last": values[-1]}
    dev = [entry["score"] for entry in run.record["metrics"]["dev_history"]]
    assert offline.summary["val/score"]["max"] == pytest.approx(max(dev))


def test_offline_tables_hold_the_first_answers_of_each_scoring(
    run: Run, offline: OfflineRun
) -> None:
    found = tables(offline.history)
    for step, stage, split, moment in (
        (0, "test", "test", "base"),
        (0, "val", "dev", "base"),
        (2, "val", "dev", "step-000002"),
        (4, "val", "dev", "step-000004"),
        (4, "test", "test", f"step-{run.record['selected']['step']:06d}"),
    ):
        for task, scores in (("turn", ["chrf"]), ("verdict", ["label", "right"])):
            about = found.pop((step, f"{stage}/{task}/samples"))
            file = json.loads((offline.folder / "files" / about["path"]).read_text())
            assert file["columns"] == ["id", "prompt", "prediction", "reference", *scores]
            answers = run.jsonl(f"{split}-{task}-{moment}")[:32]
            rows = [dict(zip(file["columns"], row, strict=True)) for row in file["data"]]
            for name in ("id", "prediction", "reference"):
                assert [row[name] for row in rows] == [answer[name] for answer in answers]
            anchor = "Tuvan" if task == "turn" else "You judge answers."
            assert all(anchor in row["prompt"] for row in rows)
    assert {name for _, name in found} == {
        "plan",
        *(f"test_without_anchor/{task}/samples" for task in TASKS),
    }


def test_offline_log_holds_configuration_and_plan(run: Run, offline: OfflineRun) -> None:
    config = {k: v for k, v in offline.config.items() if k not in {"_wandb", "plan"}}
    assert config == yaml.safe_load((run.folder / "config.yaml").read_text())
    plan = json.loads((run.folder / "plan.json").read_text())
    assert offline.config["plan"] == {"digest": plan["digest"], **plan["realised"]}
    (about,) = [value for (_, name), value in tables(offline.history).items() if name == "plan"]
    table = json.loads((offline.folder / "files" / about["path"]).read_text())
    rows = {row[0]: dict(zip(table["columns"][1:], row[1:], strict=True)) for row in table["data"]}
    assert rows == plan["realised"]["sources"]
    for name in ("plan.json", "run.json"):
        copy = offline.folder / "files" / name
        assert not copy.is_symlink()
        assert json.loads(copy.read_text()) == json.loads((run.folder / name).read_text())


def test_offline_log_holds_adapter_and_predictions_as_artifacts(
    run: Run, offline: OfflineRun
) -> None:
    artifacts = {each.type: each for each in offline.of("artifact") if each.type != "run_table"}
    assert set(artifacts) == {"model", "predictions"}
    step = run.record["selected"]["step"]
    assert set(artifacts["model"].aliases) == {"latest", "best", f"step-{step}"}
    names = {"model": "adapter/*", "predictions": "predictions/test*"}
    for kind, artifact in artifacts.items():
        assert artifact.name == f"{run.folder.name}-{kind}"
        held = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
        wanted = {path.name: path for path in run.folder.glob(names[kind])}
        assert len(wanted) >= 6
        assert set(held) == set(wanted)
        for name, path in held.items():
            assert path.is_relative_to(run.folder)  # the folder can be sent from anywhere
            assert path.read_bytes() == wanted[name].read_bytes()


def test_offline_log_says_how_the_run_ended(offline: OfflineRun) -> None:
    (end,) = offline.of("exit")
    assert end.exit_code == 0


@pytest.mark.long
def test_offline_folder_of_two_sessions_arrives_whole_when_it_is_sent(
    fit: Fits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    # Nothing is learned, so that the best scores are those of the first session.
    run = fit(*SHORT, "--trainer.max_steps=2", "--model.optimizer.lr=0.0")
    main(["fit", "--resume", str(run.folder), "--trainer.max_steps=3"])
    wandb.teardown()  # after which its process has written everything
    folders = sorted((run.folder / "wandb").glob("offline-run-*"))
    first, second = map(OfflineRun, folders)
    name = (run.folder / "wandb" / "id").read_text().strip()
    assert {each.of("run")[0].run_id for each in (first, second)} == {name}
    with WandbServer() as server:
        wanted = environment(
            tmp_path, WANDB_MODE=None, WANDB_BASE_URL=server.url, WANDB_DATA_DIR=str(tmp_path)
        ) | {"WANDB_API_KEY": KEY}
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", *map(str, folders)],
            env=wanted,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    ((sent_name, arrived),) = server.runs.items()
    assert (sent_name, arrived.sessions) == (name, 2)
    check_arrived(run, arrived)
    check_artifacts(run, server)


# Online


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the screen says of W&B."""
    return [text for text in caplog.messages if text.startswith("W&B: ")]


def check_arrived(run: Run, arrived: SentRun) -> None:
    """Compare what arrived with the run folder."""
    assert arrived.name == run.folder.name
    assert sent(arrived.history) == numbers(run.folder)
    wanted = whole_summary(run.folder)
    assert {name: arrived.summary[name] for name in wanted} == wanted
    for about in tables(arrived.history).values():
        assert json.loads(arrived.files[about["path"]])["data"]
    plan = json.loads((run.folder / "plan.json").read_text())
    assert arrived.config["plan"]["value"]["digest"] == plan["digest"]
    assert json.loads(arrived.files["plan.json"]) == plan
    assert arrived.config["trainer"]["value"]["max_steps"] == run.record["steps"]
    assert json.loads(arrived.files["run.json"])["status"] == "completed"
    assert arrived.exit_code == 0


def check_artifacts(run: Run, server: WandbServer) -> None:
    """Compare the artifacts that arrived with the run folder."""
    found = [each for each in server.artifacts.values() if each["type"] == "model"]
    assert found
    for artifact in found:
        assert artifact["committed"]
        assert {"best", f"step-{run.record['selected']['step']}"} <= artifact["aliases"]
    weights = (run.folder / "adapter/adapter_model.safetensors").read_bytes()
    assert found[-1]["files"]["adapter_model.safetensors"] == weights


def test_online_run_arrives_whole_and_goes_on_where_it_is_resumed(
    fit: Fits,
    server: WandbServer,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Nothing is learned, so that the best scores are those of the first session.
    run = fit(*SHORT, "--trainer.max_steps=1", "--model.optimizer.lr=0.0")
    ((name, arrived),) = server.runs.items()
    check_arrived(run, arrived)
    check_artifacts(run, server)
    rows = len(arrived.history)
    main(["fit", "--resume", str(run.folder), "--trainer.max_steps=2"])
    assert list(server.runs) == [name]
    assert arrived.sessions == 2
    assert len(arrived.history) > rows
    check_arrived(run, arrived)
    assert f"W&B: {server.url}/me/tell_lightning/runs/{name}" in messages(caplog)
    screen = "".join(capfd.readouterr())
    assert "wandb:" not in screen
    assert "WARNING" not in screen
    assert not list((run.folder / "wandb").glob("offline-run-*"))


@pytest.mark.long
def test_server_that_dies_in_the_midst_of_training_costs_two_lines_and_no_score(
    fit: Fits,
    server: WandbServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "2")
    monkeypatch.setattr(wandb_record, "GRACE_SECONDS", 2.0)
    monkeypatch.setattr(StopServer, "server", server)
    run = fit(*SHORT, "--trainer.max_steps=4", "--trainer.callbacks=wandb_server.StopServer")
    assert StopServer.server is None
    assert run.record["status"] == "completed"
    assert len(run.record["metrics"]["dev_history"]) == 5
    told = messages(caplog)[1:]
    assert len(told) == 2
    assert re.fullmatch(r"W&B: a table took \d+ s, so none is sent for \d+ minutes", told[0])
    assert f"send it with `wandb sync --include-online {run.folder}/wandb/run-" in told[-1]
    # What is on the disk can be sent.
    (folder,) = (run.folder / "wandb").glob("run-*")
    assert sent(OfflineRun(folder).history) == numbers(run.folder)


@pytest.mark.long
def test_run_that_fails_says_so_to_wandb(
    fit: Fits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = [*SHORT, "--trainer.callbacks=tiny_world.Raise", f"--run.dir={tmp_path}"]
    with pytest.raises(RuntimeError, match="on purpose"):
        main(["fit", *fit.world.overlay, *options])
    wandb.teardown()
    (folder,) = tmp_path.glob("*/wandb/offline-run-*")
    (end,) = OfflineRun(folder).of("exit")
    assert end.exit_code == 1
