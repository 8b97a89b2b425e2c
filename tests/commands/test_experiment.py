import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import Says, says
from small_experiment import EXPERIMENT, result_of, trains_nothing, write_experiment, write_shared

from tell_lightning.cli import main
from tell_lightning.commands import experiment as command
from tell_lightning.commands.experiment import read_options
from tell_lightning.experiment.results import read_results, write_result
from tell_lightning.experiment.specification import read_experiment
from tell_lightning.experiment.survey import places, survey
from tell_lightning.files import locked
from tell_lightning.settings import ConfigError

GROUP = EXPERIMENT["cells"][0]
LR = "model.optimizer.lr"


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment of two cells that train nothing."""
    monkeypatch.setattr(command, "run_cell", trains_nothing)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_shared(tmp_path)
    return write(tmp_path / "first")


def write(folder: Path, **changes: Any) -> Path:
    cells = [{**GROUP, "seeds": 1, **changes.pop("group", {})}]
    return write_experiment(folder, cells=cells, **changes)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def store(folder: Path, *numbers: int, **changes: Any) -> None:
    found = read_experiment(folder)
    planned = survey(found, places(found))
    for number in numbers:
        each = planned[number]
        write_result(found.results, result_of(each.cell, each.digest, **changes))


def test_a_rule_that_is_not_whole_is_a_mistake_before_any_cell_is_run(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(first, rule={"kind": "same_data", "n": [10], "equivalence": 1.0})
    with pytest.raises(SystemExit) as caught:
        main(["experiment", str(first), "--jobs", "1"])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert f"{first}/experiment.yaml: rule.at_least: must be given, got nothing. " in told
    assert not (first / "results").exists()


def test_missing_cells_are_run_and_a_second_call_says_that_all_is_there(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["experiment", str(first), "--jobs", "1"])
    assert lines(capsys) == [
        "1 of 2  translate-tell-n10-s0  bleu 10.0  2 s  about 2 s left",
        "2 of 2  translate-sft-n10-s0  bleu 10.0  2 s",
        f"2 of 2 results exist, in {first}/results.",
    ]
    results = read_results(first / "results")
    assert {each["rule_digest"] for each in results.values()} == {
        read_experiment(first).rule_digest
    }
    before = {path: path.stat().st_mtime_ns for path in (first / "results").iterdir()}
    assert sorted(path.name for path in before) == [
        "translate-sft-n10-s0.json",
        "translate-tell-n10-s0.json",
    ]
    main(["experiment", str(first)])
    assert lines(capsys) == [f"2 of 2 results exist, in {first}/results."]
    assert {path: path.stat().st_mtime_ns for path in (first / "results").iterdir()} == before


def test_a_cell_that_fails_is_kept_with_its_reason_and_the_rest_goes_on(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = {"bad": {LR: "wrong"}, "gone": {LR: "crash"}, "good": {}}
    write(first, group={"arms": ["tell"], "variants": variants})
    with pytest.raises(SystemExit) as exit_:
        main(["experiment", str(first), "--jobs=1"])
    assert exit_.value.code == 1
    bad, gone, good = read_results(first / "results").values()
    assert (bad["status"], bad["reason"]) == ("failed", "ValueError: a mistake in a library")
    assert gone["reason"] == "the process ended with exit code 7\nabout to crash"
    assert good["status"] == "completed"
    printed = lines(capsys)
    assert "translate-tell-n10-bad-s0  FAILED: ValueError: a mistake in a library" in printed[0]
    assert printed[-1] == (
        f"1 of 3 results exist, in {first}/results. 2 failed: their files say why; repeat them "
        "with --retry."
    )
    main(["experiment", str(first)])  # failed ones are not run again by themselves
    assert lines(capsys) == [printed[-1]]


def test_retry_runs_what_failed_and_what_another_configuration_made(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(first, 0, status="failed", reason="x")
    store(first, 1, config_digest="0" * 12)
    with pytest.raises(SystemExit):
        main(["experiment", str(first)])
    assert "must be made with the configuration that the run has now" in capsys.readouterr().err
    main(["experiment", str(first), "--retry", "--jobs", "1"])
    assert lines(capsys)[-1].startswith("2 of 2 results exist")


def test_a_mistake_that_fails_the_first_cells_alike_stops_the_run(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(first, group={"seeds": 4, "arms": ["tell"], "set": {LR: "wrong"}})
    with pytest.raises(SystemExit):
        main(["experiment", str(first), "--jobs", "1"])
    assert capsys.readouterr().err == says(
        "error: experiment", got="3", cure=["ValueError: a mistake in a library", "--retry"]
    )
    assert len(read_results(first / "results")) == 3


def test_cells_that_another_process_has_are_left_to_it(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first / "results").mkdir()
    with locked(first / "results" / ".translate-tell-n10-s0.lock", RuntimeError()):
        main(["experiment", str(first), "--jobs", "1"])
    assert lines(capsys) == [
        "translate-tell-n10-s0  is run by another process",
        "1 of 1  translate-sft-n10-s0  bleu 10.0  2 s",
        f"1 of 2 results exist, in {first}/results.",
    ]


def test_tuning_writes_what_it_has_chosen_once_all_its_cells_are_there(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = {"arms": ["tell"], "variants": {"a": {"trainer.max_steps": 9}, "b": {}}}
    folder = write(first.parent / "tuning", group=group, rule={"kind": "tuning"})
    store(folder, 0)
    main(["experiment", str(folder), "--cell", "0"])
    assert not (folder / "chosen.json").exists()
    store(folder, 1)
    main(["experiment", str(folder)])
    assert lines(capsys)[-1] == f"Chosen settings: {folder}/chosen.json"
    chosen = json.loads((folder / "chosen.json").read_text())
    assert chosen["translate"]["tell"]["10"]["variant"] == "a"


def test_tuning_chooses_for_an_arm_on_a_testbed_once_all_its_numbers_of_examples_are_there(
    first: Path,
) -> None:
    variants = {"a": {"trainer.max_steps": 9}, "b": {}}
    group = {"arms": ["tell", "sft"], "n": [10, 100], "seeds": 1, "variants": variants}
    folder = write(first.parent / "tuning", group=group, rule={"kind": "tuning"})
    found = read_experiment(folder)
    names = [each.cell.name for each in survey(found, places(found))]
    for number, name in enumerate(names):
        if name != "translate-sft-n100-b-s0":
            store(folder, number)
    main(["experiment", str(folder), "--cell", "0"])
    chosen = json.loads((folder / "chosen.json").read_text())
    assert {arm: list(found) for arm, found in chosen["translate"].items()} == {
        "tell": ["10", "100"]
    }


def test_cells_whose_settings_are_not_chosen_wait(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(first, group={"arms": ["best", "sft"], "seeds": 1})
    main(["experiment", str(first), "--dry-run"])
    printed = [" ".join(line.split()) for line in lines(capsys)]
    assert printed[1] == "testbed arm n runs there missing failed other waiting time"
    assert printed[3] == "translate best 10 1 0 0 0 0 1 unknown"
    assert f"1 wait for their settings. {first.parent}/tuning/chosen.json: " in printed[-1]
    with pytest.raises(SystemExit):
        main(["experiment", str(first)])
    told = capsys.readouterr().err.removeprefix("error: ").strip()
    assert told == says(f"{first.parent}/tuning/chosen.json", got="nothing")
    assert not (first / "results").exists()
    main(["experiment", str(first), "--only", "sft"])
    assert len(read_results(first / "results")) == 1


def test_a_dry_run_shows_what_is_there_and_what_the_rest_will_cost(
    first: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(first.parent))
    write(first, group={"seeds": 4, "variants": {"v": {"model.base": "made:plain"}}})
    store(first, 0, seconds=100.0)
    store(first, 1, status="failed", reason="x")
    main(["experiment", str(first), "--dry-run", "--jobs", "2"])
    printed = [" ".join(line.split()) for line in lines(capsys)]
    assert printed[1] == "testbed arm n runs there missing failed other time"
    assert printed[3] == "translate tell 10 4 1 3 0 0 5 min"
    assert printed[4] == "translate sft 10 4 0 3 1 0 36 s"
    assert printed[5].startswith(f"base plain: will be made first, in {first.parent}/tell_lightni")
    assert printed[6] == "8 runs, 6 to do: about 6 min in one process, 3 min in 2."
    assert len(read_results(first / "results")) == 2


def test_a_dry_run_with_another_base_does_not_guess_its_time(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(first, 0, seconds=100.0)
    mine = first.parent / "mine.yaml"
    mine.write_text("model: {base: someone/large}\n")
    other = first.parent / "other"
    main(["experiment", str(first), "-c", str(mine), "--results", str(other), "--dry-run"])
    printed = [" ".join(line.split()) for line in lines(capsys)]
    assert printed[3].endswith("unknown")
    assert "in one process" not in printed[-1]


def test_a_cell_is_named_by_its_name_its_number_or_a_part_of_it(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(first, 0)
    for option, there in [
        ("--cell=translate-sft-n10-s0", 0),
        ("--cell=translate-tell-n10-s0", 1),
        ("--cell=0", 1),
        ("--cell=1", 0),
        ("--only=sft", 0),
        ("--only=tell-n10", 1),
    ]:
        main(["experiment", str(first), option, "--dry-run"])
        assert lines(capsys)[-1].startswith(f"1 runs, {1 - there} to do")


def test_a_configuration_of_ones_own_goes_on_top_and_its_results_elsewhere(first: Path) -> None:
    mine, other = first.parent / "mine.yaml", first.parent / "other"
    mine.write_text("model: {optimizer: {lr: wrong}}")
    with pytest.raises(SystemExit):
        main(["experiment", str(first), "-c", str(mine), "--results", str(other), "--cell", "0"])
    assert not (first / "results").exists()
    (result,) = read_results(other / "first" / "results").values()
    assert result["status"] == "failed"


def test_files_for_a_cluster_hold_the_missing_cells(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(first, 0)
    script, sweep = first.parent / "a.sh", first.parent / "s.yaml"
    main(["experiment", str(first), "--slurm", str(script), "--sweep", str(sweep)])
    printed = lines(capsys)
    assert printed[0] == f"1 runs. Submit them with: sbatch {script}"
    assert printed[1].startswith(f"1 runs. Start with: wandb sweep {sweep}; then run the")
    assert "#SBATCH --array=1\n" in script.read_text()
    assert f"experiment {first} --jobs 1 --cell" in script.read_text()
    values = yaml.safe_load(sweep.read_text())
    assert values["parameters"]["cell"]["values"] == ["translate-sft-n10-s0"]
    store(first, 1)
    main(["experiment", str(first), "--slurm", str(first.parent / "b.sh")])
    assert lines(capsys) == ["Nothing to write: all results exist."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], says("experiment", rule="FOLDER", got="none")),
        (["x", "y"], says("experiment", got="'y'")),
        (["x", "--retyr"], says("experiment", got="'--retyr'", cure="'--retry'")),
        (["x", "--jobs", "0"], says("--jobs", rule=["1", "9"], got="'0'")),
        (["x", "--cell"], says("--cell", got="none")),
        (["x", "--retry=yes"], says("--retry", got="'yes'", cure="--retry")),
        (["x", "-c", "a.yaml"], says("-c", got="no --results", cure="--results")),
    ],
)
def test_a_mistake_on_the_command_line_is_named(arguments: list[str], message: Says) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--cell", "9"],
            says("--cell", rule="2", got="'9'", cure=["--dry-run", "--only"]),
        ),
        (
            ["--only", "no"],
            says("--only", got="'no'", cure=["2", "translate-tell-n10-s0", "--dry-run"]),
        ),
        (
            ["--slurm", "/no/folder/x.sh"],
            says("--slurm", got="'/no/folder/x.sh'", cure="--slurm FILE"),
        ),
        (
            ["--results", "/dev/null/x"],
            says("--results", got="'/dev/null/x/first/results'"),
        ),
    ],
)
def test_a_mistake_about_the_cells_is_named(
    first: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: Says
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["experiment", str(first), *arguments])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.removeprefix("error: ") == message


def test_help_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["experiment", "--help"])
    assert exit_.value.code == 0
    shown = " ".join(lines(capsys))
    assert shown.startswith("usage: python -m tell_lightning experiment [-h] [--jobs N] [--")
    assert "FOLDER holds experiment.yaml" in shown


RUNS = """
import sys
from tell_lightning.cli import main
from tell_lightning.commands import experiment
from small_experiment import trains_nothing

if __name__ == "__main__":
    experiment.run_cell = trains_nothing
    main(["experiment", *sys.argv[1:]])
"""


@pytest.mark.long
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_loses_the_cells_in_work_alone(first: Path, sent: signal.Signals) -> None:
    group = {"seeds": 2, "arms": ["tell"], "variants": {"good": {}, "slow": {LR: "slow"}}}
    write(first, group=group)
    script = first.parent / "runs.py"
    script.write_text(RUNS)
    search = [str(Path(__file__).parents[1] / "fixtures"), str(Path(__file__).parents[2])]
    process = subprocess.Popen(
        [sys.executable, str(script), str(first), "--jobs", "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("1 of 4  translate-tell-n10-good-s0  bleu 10.0")
    workers = children(process.pid)
    assert workers
    os.kill(process.pid, sent)
    _, err = process.communicate()
    if sent is signal.SIGINT:
        assert process.returncode == 130
        *_, told, stopped = err.splitlines()
        assert told.startswith("Stopped")
        assert told.endswith(f"python -m tell_lightning experiment {first}")
        assert stopped == "stopped"
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        time.sleep(0.05)
    assert list(read_results(first / "results")) == ["translate-tell-n10-good-s0"]
    main(["experiment", str(first), "--only", "good", "--jobs", "1"])
    assert len(read_results(first / "results")) == 2
    shutil.rmtree(first)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(child) for child in found.split()]
