import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import postgres
import pytest
import tuning_work
from tuning_work import ABOUT, PRICE, SPACE, record

from tell_lightning.tuning.budget import Budget
from tell_lightning.tuning.folder import TuneFolder, digest_of
from tell_lightning.tuning.records import FAILED, PRUNED, ranked, read_records, table, value
from tell_lightning.tuning.search import Clock, Progress, outcome
from tell_lightning.tuning.study import Search, storage_of

TRIALS = 12


def started(folder: Path, *, url: str = "", seconds: float = 0.2) -> "subprocess.Popen[str]":
    """Start a search in a process group of its own."""
    fixtures = str(Path(tuning_work.__file__).parent)
    arguments = [tuning_work.__file__, str(folder), url, str(TRIALS), "2", str(seconds)]
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([fixtures, *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def notes(folder: Path) -> list[dict[str, Any]]:
    path = folder / "ran.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def count(folder: Path, what: str) -> int:
    return sum(note["what"] == what for note in notes(folder))


def check_each_once(records: list[Any], folders: list[Path]) -> None:
    """No trial is lost that has ended, and none is counted or run twice."""
    numbers = [each["number"] for each in records]
    assert len(numbers) == len(set(numbers))
    ran = [note for folder in folders for note in notes(folder)]
    for what in ("begun", "ended"):
        times = Counter(note["number"] for note in ran if note["what"] == what)
        assert set(times.values()) == {1}
    ended = {note["number"]: note["params"] for note in ran if note["what"] == "ended"}
    for each in records:
        assert ended[each["number"]] == each["params"]


@pytest.mark.long
def test_a_search_that_is_killed_at_five_moments_goes_on_without_losing_or_repeating_a_trial(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "tune"
    known: set[int] = set()
    for moment in (0, 1, 3, 5, 8):
        process = started(folder)
        while count(folder, "ended") < moment + 1 and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        written = {each["number"] for each in read_records(folder)}
        assert known <= written
        known = written
    process = started(folder)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    records = read_records(folder)
    assert known <= {each["number"] for each in records}
    assert len(records) >= TRIALS
    numbers = [each["number"] for each in records]
    assert len(numbers) == len(set(numbers))
    # Each trial that has ended is kept, and none has ended twice.
    ended = [note["number"] for note in notes(folder) if note["what"] == "ended"]
    assert sorted(ended) == sorted(set(ended))
    assert set(ended) == set(numbers)
    # What a kill has stopped is run again with its settings; each of the first points counts once.
    for start in SPACE.starts.values():
        assert sum(each["params"] == start for each in records) == 1
    points = {json.dumps(each["params"], sort_keys=True) for each in records}
    begun = {json.dumps(note["params"], sort_keys=True) for note in notes(folder)}
    assert points == begun


def check_two_machines(url: str, folders: list[Path]) -> None:
    """Search from two folders in one storage."""
    processes = [started(folder, url=url) for folder in folders]
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0, said
    study = Search(url, digest_of(ABOUT), owner="nobody", seed=1)
    records = study.records()
    assert TRIALS <= len(records) <= TRIALS + 2  # each may ask while the other one does
    check_each_once(records, folders)
    assert all(notes(folder) for folder in folders)
    for start in SPACE.starts.values():
        assert sum(each["params"] == start for each in records) == 1


@pytest.mark.long
def test_two_processes_with_one_storage_do_no_trial_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    check_two_machines(url, [tmp_path / "first", tmp_path / "second"])


@pytest.mark.long
def test_two_processes_with_one_database_server_do_no_trial_twice(tmp_path: Path) -> None:
    with postgres.server() as url:
        check_two_machines(url, [tmp_path / "first", tmp_path / "second"])
        storage_of(url).remove_session()
        storage_of(url).engine.dispose()


def a_study(tmp_path: Path) -> Search:
    study = Search(f"sqlite:///{tmp_path / 'study.db'}", "a" * 32, owner="me", seed=1)
    study.begin(SPACE)
    return study


def test_the_search_says_how_far_it_is(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    progress = Progress(study, SPACE, PRICE, Budget(600.0, None, 2))
    asked = study.ask(SPACE)
    made = record(asked.number, asked.arm, dict(asked.point), seconds=60.0)
    study.tell(asked, made)
    progress.learn(made)
    first, second = progress.lines(made, 120.0)
    assert first == "trial 0: tell, lr 0.001, 50 steps, share 0.2: score 50.0, loss 1.000, 60 s"
    assert second.startswith("1 of about ")
    assert second.endswith("; best 50.0 (trial 0, tell); about 3.0 min of the search left")


def test_a_search_of_minutes_starts_no_trial_that_it_has_no_time_for(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    progress = Progress(study, SPACE, PRICE, Budget(600.0, None, 2))
    assert progress.may_start(1e9)  # two trials are always run
    for _ in range(2):
        asked = study.ask(SPACE)
        study.tell(asked, record(asked.number, asked.arm, dict(asked.point)))
    assert progress.may_start(300.0 - progress.mean_cost())
    assert not progress.may_start(299.9)


def test_a_search_of_trials_counts_those_that_run(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    progress = Progress(study, SPACE, PRICE, Budget(None, 3, 2))
    for _ in range(3):
        assert progress.may_start(1e9)
        study.ask(SPACE)
    assert not progress.may_start(0.0)


def test_trials_that_take_longer_than_expected_cost_more(tmp_path: Path) -> None:
    study = a_study(tmp_path)
    progress = Progress(study, SPACE, PRICE, Budget(600.0, None, 2))
    before = progress.mean_cost()
    point = SPACE.starts["tell"]
    progress.learn(record(0, "tell", dict(point), seconds=2 * PRICE.trial(point)))
    assert progress.mean_cost() == pytest.approx(2 * before)


def test_the_best_trial_has_the_highest_score_and_of_equal_ones_the_lowest_loss() -> None:
    params = dict(SPACE.starts["tell"])
    made = [
        record(0, "tell", params, score=0.5, loss=1.0),
        record(1, "sft", params, score=0.5, loss=0.5),
        record(2, "tell", params, score=0.9, loss=0.1, state=PRUNED),
        record(3, "tell", params, score=0.2, loss=0.1),
    ]
    assert [each["number"] for each in ranked(made)] == [1, 0, 3]
    assert [each["number"] for each in ranked(made, "tell")] == [0, 3]
    values = [value(each["score"], each["loss"]) for each in made]
    assert values[1] > values[0] > values[3]


def test_the_table_has_a_line_for_each_trial() -> None:
    failed = record(1, "sft", dict(SPACE.starts["sft"]), state=FAILED, reason="a\nb", score=None)
    text = table([failed, record(0, "tell", dict(SPACE.starts["tell"]))])
    header, first, second = text.splitlines()
    assert header.startswith("number,arm,lr,steps,task_share,force_response_prefix,state,score")
    assert first == "0,tell,0.001,50,0.2,False,complete,0.5,1,1,1,2,"
    assert second == "1,sft,0.001,30,,False,failed,,1,1,1,2,a b"


def test_a_trial_that_fails_is_told_with_its_reason() -> None:
    failed = record(1, "sft", dict(SPACE.starts["sft"]), state=FAILED, reason="too large\nmore")
    assert outcome(failed) == "sft, lr 0.001, 30 steps: FAILED: too large"


def test_time_counts_over_all_sessions_and_that_of_the_search_by_itself(tmp_path: Path) -> None:
    folder = TuneFolder(tmp_path)
    folder.write(seconds=1e6, search_seconds=1e3)
    clock = Clock(folder)
    with clock.searching():
        time.sleep(0.3)
    assert clock.seconds > 1e6
    assert 1e3 < clock.search < 1e6
    before = clock.search
    time.sleep(0.1)
    assert clock.search == before  # the verdict takes nothing from the search of a longer budget
    known = folder.read()
    assert known["seconds"] > 1e6
    assert known["search_seconds"] == round(before, 1)
