from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from tuning_work import SPACE, record

from tell_lightning.tuning.pruner import LOSSES, OTHERS
from tell_lightning.tuning.records import FAILED
from tell_lightning.tuning.study import KILLED, Reports, Search, StudyError, other_studies

DIGEST = "d" * 32


def url_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def opened(tmp_path: Path, owner: str = "me") -> Search:
    study = Search(url_of(tmp_path), DIGEST, owner=owner, seed=1)
    study.begin(SPACE)
    return study


def test_the_first_trials_are_the_defaults_of_each_arm(tmp_path: Path) -> None:
    study = opened(tmp_path)
    asked = [study.ask(SPACE) for _ in SPACE.arms]
    assert [each.arm for each in asked] == list(SPACE.arms)
    for each in asked:
        assert each.point == SPACE.starts[each.arm]
    assert study.ask(SPACE).point != SPACE.starts["tell"]


def test_tell_and_sft_are_tried_equally_often(tmp_path: Path) -> None:
    study = opened(tmp_path)
    arms = [study.ask(SPACE).arm for _ in range(10)]
    assert arms.count("tell") == arms.count("sft") == 2 * arms.count("mixture") == 4


def test_a_trial_whose_process_was_killed_is_asked_again_with_its_settings(tmp_path: Path) -> None:
    study = opened(tmp_path)
    killed = study.ask(SPACE)
    again = opened(tmp_path)
    assert again.recover() == 1
    assert again.count() == 0
    points = []
    while not points or points[-1] != killed.point:
        points.append(again.ask(SPACE).point)
    assert again.recover() == len(points)  # they are this folder's, and nobody runs them
    (trial,) = [each for each in again.study.get_trials() if each.number == killed.number]
    assert trial.user_attrs[KILLED]


def test_a_trial_whose_record_was_written_before_the_kill_counts_once(tmp_path: Path) -> None:
    study = opened(tmp_path)
    asked = study.ask(SPACE)
    asked.trial.set_user_attr("record", record(asked.number, asked.arm, dict(asked.point)))
    again = opened(tmp_path)
    assert again.recover() == 0
    assert [each["number"] for each in again.records()] == [asked.number]
    assert again.count() == 1


def test_a_trial_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    there = opened(tmp_path, "there")
    asked = there.ask(SPACE)
    here = opened(tmp_path, "here")
    assert here.recover() == 0
    there.tell(asked, record(asked.number, asked.arm, dict(asked.point)))
    assert len(here.records()) == 1


def test_the_ranges_are_those_of_the_machine_that_began(tmp_path: Path) -> None:
    opened(tmp_path)
    other = Search(url_of(tmp_path), DIGEST, owner="other", seed=1)
    assert other.begin(replace(SPACE, steps=(1, 2))) == SPACE
    waiting = [each.state.name for each in other.study.get_trials()]
    assert waiting == ["WAITING"] * len(SPACE.first_points())


def test_a_machine_waits_for_the_ranges_of_the_one_that_makes_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = Search(url, DIGEST, owner="first", seed=1)
    other = Search(url, DIGEST, owner="other", seed=1)
    # While the other one waits, the first one begins.
    monkeypatch.setattr("tell_lightning.tuning.study.time.sleep", lambda _: first.begin(SPACE))
    assert other.begin(replace(SPACE, steps=(1, 2))) == SPACE
    assert len(other.study.get_trials()) == len(SPACE.first_points())


def test_a_failed_trial_is_kept_with_its_reason(tmp_path: Path) -> None:
    study = opened(tmp_path)
    asked = study.ask(SPACE)
    point = dict(asked.point)
    study.tell(asked, record(asked.number, asked.arm, point, state=FAILED, reason="too large"))
    (kept,) = study.records()
    assert kept["reason"] == "too large"
    assert study.study.get_trials()[asked.number].state == optuna.trial.TrialState.FAIL


def test_a_sampler_that_begins_again_does_not_repeat_its_draws(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for _ in SPACE.first_points():
        first.ask(SPACE)
    drawn = first.ask(SPACE).point
    assert opened(tmp_path).ask(SPACE).point["lr"] != drawn["lr"]


def test_other_studies_of_a_storage_are_named(tmp_path: Path) -> None:
    opened(tmp_path)
    assert other_studies(url_of(tmp_path), DIGEST) == []
    assert other_studies(url_of(tmp_path), "e" * 32) == [f"tune-{DIGEST[:16]}"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:////no/such/folder/x.db", "unable to open database file"),
        ("nonsense", "Could not parse"),
        ("magic://me:secret@host/x", "Can't load plugin"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_one_line(url: str, reason: str) -> None:
    with pytest.raises(StudyError, match=reason) as caught:
        Search(url, DIGEST, owner="me", seed=1)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith("--storage: must be a storage of Optuna")


# Stopping early


def reports(study: Search) -> Reports:
    return Reports(study.url, study.name, study.ask(SPACE).trial._trial_id)


def with_others(tmp_path: Path, score: float = 0.5, loss: float = 1.0) -> Search:
    """Make a study in which several trials of each arm have ended alike."""
    study = opened(tmp_path)
    for _ in range(3 * OTHERS):
        asked = study.ask(SPACE)
        told = Reports(study.url, study.name, asked.trial._trial_id)
        told.report(score, loss)
        study.tell(asked, record(asked.number, asked.arm, dict(asked.point), score=score))
    return study


def test_a_trial_stops_where_score_and_loss_are_behind(tmp_path: Path) -> None:
    study = with_others(tmp_path)
    assert reports(study).report(0.4, 1.5)
    for score, loss in [(0.4, 0.9), (0.6, 1.5), (0.5, 1.0)]:
        assert not reports(study).report(score, loss)
    assert reports(study).report(0.5, 1.5)  # among equal scores the loss decides


def test_the_first_trials_are_never_stopped(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for _ in range(OTHERS):
        assert not reports(study).report(0.0, 100.0)


def test_losses_are_kept_in_the_order_of_the_reports(tmp_path: Path) -> None:
    study = opened(tmp_path)
    asked = study.ask(SPACE)
    told = Reports(study.url, study.name, asked.trial._trial_id)
    told.report(0.1, 3.0)
    told.report(0.2, 2.0)
    trial = study.study.get_trials()[asked.number]
    assert trial.user_attrs[LOSSES] == [3.0, 2.0]
    assert trial.intermediate_values == {0: 0.1, 1: 0.2}
