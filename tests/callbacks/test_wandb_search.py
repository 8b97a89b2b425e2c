"""A search in W&B: one group, a run for each trial and one for the verdict, each sent once."""

import pytest
from simulated_search import Simulated
from wandb_files import OfflineRun

from tell_lightning.callbacks.wandb_search import log_search


@pytest.fixture
def search():
    simulated = Simulated(1, trials={"tell": 2, "sft": 1})
    records = [
        {**record, "steps": 10, "tokens": {"task": 5, "general": 20}}
        for record in simulated.records()
    ]
    facts = {
        "best": 0,
        "folds": "5 folds",
        "space": {"lr": [1e-4, 1e-2]},
        "minutes": 3.5,
        "verdict": simulated.verdict(),
    }
    return records, facts


def send(folder, search) -> list[str]:
    records, facts = search
    return log_search(folder, project="own", group="tuned", records=records, facts=facts)


def runs_of(folder) -> dict[str, OfflineRun]:
    found = [OfflineRun(path) for path in (folder / "wandb").glob("offline-run-*")]
    return {run.of("run")[0].display_name: run for run in found}


@pytest.mark.long
def test_each_trial_and_the_verdict_is_a_run_of_the_group(tmp_path, search, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    (line,) = send(tmp_path, search)
    assert line.startswith("W&B: offline; send it with `wandb sync ")
    found = runs_of(tmp_path)
    assert sorted(found) == ["trial-0000", "trial-0001", "trial-0002", "verdict"]
    for run in found.values():
        header = run.of("run")[0]
        assert (header.project, header.run_group) == ("own", "tuned")
    assert found["trial-0002"].config["arm"] == "sft"
    assert found["trial-0000"].config["lr"] == 1e-3
    assert found["trial-0000"].summary["score"] == search[0][0]["score"]
    assert [row["fold"] for row in found["trial-0000"].history] == [0, 1, 2, 3, 4]
    verdict = search[1]["verdict"]
    assert found["verdict"].summary["sentence"] == verdict["sentence"]
    # What has been sent is not sent again, but a new verdict is.
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 4
    send(tmp_path, search)
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 4
    verdict["sentence"] = "another"
    send(tmp_path, search)
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 5


def test_nothing_is_sent_where_it_is_disabled(tmp_path, search, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert send(tmp_path, search) == []
    assert not (tmp_path / "wandb").exists()


def test_an_error_of_wandb_is_one_line(tmp_path, search, monkeypatch):
    import wandb

    def fails(**_):
        raise OSError("no space\nleft")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", fails)
    assert send(tmp_path, search) == [
        "W&B: the search is not sent (no space); the folder has everything"
    ]
    assert not (tmp_path / "wandb" / "sent.json").exists()
