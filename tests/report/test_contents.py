"""Reading the folder of a run, of any age and status."""

import pytest
from small_run import CONFIG, LOG, write_run

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.report.contents import ReportError, completed, is_training, read_run


def test_what_a_folder_lacks_is_empty(contents):
    run = contents(without=("run.json", "plan.json", "metrics.csv"), answers={})
    assert (run.record, run.plan, run.log, run.metrics) == ({}, {}, [], {})
    assert run.status == "unknown"
    assert run.name == run.folder.path.name
    assert (run.selected_step, run.trained_steps) == (None, 0)
    assert run.predictions("test-turn-base") is None
    assert run.prediction_stems() == []


def test_a_line_that_a_kill_has_cut_off_is_left_out(contents):
    run = contents(log=LOG + "15,0.5")
    assert len(run.log) == 5
    assert {"step", "train/loss/turn", "train/loss/writing", "train/lr"} == set(run.log[1])


def test_a_run_without_its_end_has_trained_what_was_logged(contents):
    assert contents(record={"status": "running"}).trained_steps == 10


def test_steps_are_those_that_were_logged_whatever_a_resumed_session_logs_every(contents):
    config = {**CONFIG, "trainer": {"log_every_n_steps": 50}}
    run = contents(config=config, log="step,train/loss\n10,3.0\n20,2.0\n50,1.0\n")
    assert [completed(row) for row in run.log] == [10, 20, 50]
    assert all(is_training(row) for row in run.log)


def test_scoring_is_that_of_the_configuration(contents):
    scoring = {"kind": "judge", "labels": ["a", "b"], "floors": {"x": {"text": "a"}}, "later": 1}
    task = {"train": "turn.jsonl", "scoring": scoring}
    run = contents(config={"data": {"tasks": {"turn": task, "plain": {}}}})
    assert run.scoring("turn").labels == ("a", "b")
    assert run.scoring("plain").kind == "text"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("run.json", "{", "run.json: must be JSON, as `fit` writes it, got:"),
        ("run.json", "[]", "run.json: must be a JSON object, as `fit` writes it, got: list."),
        ("plan.json", "\xff", "plan.json: must be JSON"),
        ("config.yaml", "a: [", "config.yaml: must be YAML"),
        ("config.yaml", "text", "config.yaml: must be a mapping"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, text, says):
    folder = write_run(tmp_path / "run")
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(ReportError) as error:
        read_run(RunFolder(folder))
    assert says in str(error.value)
    assert str(error.value).endswith("Copy the run's folder again.")


def test_a_damaged_line_of_predictions_is_named(contents):
    run = contents()
    path = run.folder.predictions / "test-turn-base.jsonl"
    path.write_text('{"id": "1"}\n\n{"id": \n', encoding="utf-8")
    with pytest.raises(ReportError, match=r"test-turn-base\.jsonl:3: must be JSON"):
        run.predictions("test-turn-base")


def test_bytes_that_are_no_text_are_named(contents):
    run = contents()
    run.folder.record.write_bytes(b"\xff\xfe")
    with pytest.raises(ReportError, match=r"run\.json: must be UTF-8 text that can be read"):
        read_run(run.folder)
