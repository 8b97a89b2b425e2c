"""What is scored beside the test rows as they are; no setting of the machine shows in a score."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import Says, says
from tiny_runs import Fits, Run, command
from tiny_world import PREFIX, World

from tell_lightning.cli import main
from tell_lightning.commands.config_files import read_config

TASKS = ("turn", "verdict")
ROOT = Path(__file__).parents[2]


def again(run: Run, *options: str) -> dict[str, Any]:
    """Score a run's test rows again."""
    main(["test", str(run.folder), *options])
    return json.loads((latest(run).folder / "scores-test.json").read_text(encoding="utf-8"))


def latest(run: Run) -> Run:
    """The folder that the last scoring has written to: the run's or one of its own."""
    written = run.folder.glob("scorings/*/scores-test.json")
    paths = [path for path in (run.folder / "scores-test.json", *written) if path.exists()]
    return Run(max(paths, key=lambda path: path.stat().st_mtime_ns).parent)


def test_a_smaller_scoring_has_a_folder_of_its_own(
    copied: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied.folder
    before = {path: path.read_bytes() for path in folder.rglob("*.json*")}
    found = again(copied, "--eval.test_rows=2", "--eval.anchor_check=false")
    assert found["after"]["tasks"]["turn"]["values"]["rows"] == 2
    assert {path: path.read_bytes() for path in before} == before
    (own,) = (folder / "scorings").iterdir()
    assert str(own) in capsys.readouterr().out
    name = f"test-turn-step-{copied.record['selected']['step']:06d}"
    answers = [[row["id"], row["prediction"]] for row in copied.jsonl(name)]
    assert [[row["id"], row["prediction"]] for row in Run(own).jsonl(name)] == answers[:2]
    again(copied, "--eval.temperature=2", "--eval.test_rows=2", "--eval.anchor_check=false")
    assert len(list((folder / "scorings").iterdir())) == 2
    assert {path: path.read_bytes() for path in before} == before
    predictions = str(own / "predictions" / f"{name}.jsonl")
    main(["compare", predictions, predictions])  # its scoring is known there, too
    assert "2 rows" in capsys.readouterr().out


def test_test_rows_are_scored_without_their_anchor_after_training(run: Run) -> None:
    metrics, step = run.record["metrics"], run.record["selected"]["step"]
    swapped = metrics["test_without_anchor"]
    assert swapped["before"] is None
    assert swapped["floors"] == {}
    assert set(swapped["after"]["loss_nats_per_token"]) == set(TASKS)
    assert "writing" in metrics["test"]["after"]["loss_nats_per_token"]
    for task in TASKS:
        scores = swapped["after"]["tasks"][task]
        assert scores["values"]["rows"] == 24
        assert scores["intervals"]
        with_anchor, without = (
            run.jsonl(f"{split}-{task}-step-{step:06d}")
            for split in ("test", "test_without_anchor")
        )
        assert [row["id"] for row in with_anchor] == [row["id"] for row in without]
        for ours, bare in zip(with_anchor, without, strict=True):
            assert bare["prompt_tokens"] < ours["prompt_tokens"]
            assert bare["prompt_sha256"] != ours["prompt_sha256"]
            assert bare["reference"] == ours["reference"]
            assert not bare["prediction"].startswith(PREFIX.strip())
        losses = (metrics[each]["after"]["loss_nats_per_token"][task] for each in
                  ("test", "test_without_anchor"))  # fmt: skip
        assert len(set(losses)) == 2
    with (run.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("turn/bleu", "verdict/balanced_accuracy", "loss/turn", "score"):
        assert any(row[f"test_without_anchor/{name}"] for row in rows)
    assert "anchor off" in run.stdout


def test_forgetting_stands_in_the_table_of_the_scores(run: Run) -> None:
    table = run.stdout[run.stdout.index("turn: 24 test rows") :]
    before, after = (
        run.record["metrics"]["test"][moment]["loss_nats_per_token"]["writing"]
        for moment in ("before", "after")
    )
    assert "writing" in table
    assert f"{before:.3f}" in table
    assert f"{after:.3f}" in table


def test_trained_without_the_anchor_the_rows_are_scored_with_it(fit: Fits) -> None:
    run = fit("--data.mixture.anchor=none", "--trainer.max_steps=2", "--eval.test_rows=3")
    metrics = run.record["metrics"]
    assert "test_without_anchor" not in metrics
    (name,) = (path.stem for path in (run.folder / "predictions").glob("test_with_anchor-turn-*"))
    step = run.record["selected"]["step"]
    plain = run.jsonl(f"test-turn-step-{step:06d}")
    pairs = zip(run.jsonl(name), plain, strict=True)
    assert all(ours["prompt_tokens"] > bare["prompt_tokens"] for ours, bare in pairs)
    assert metrics["test_with_anchor"]["after"]["tasks"]["turn"]["values"]["rows"] == 3


def test_anchor_check_can_be_left_out(copied: Run) -> None:
    found = again(copied, "--eval.anchor_check=false")
    assert "test_without_anchor" not in found
    assert found["after"]["tasks"] == copied.record["metrics"]["test"]["after"]["tasks"]


def test_predictions_hold_tokens_log_probability_and_the_judge_s_thought(run: Run) -> None:
    step = run.record["selected"]["step"]
    for task in TASKS:
        for row in run.jsonl(f"test-{task}-step-{step:06d}"):
            assert row["logprob"] < 0
            assert row["near_ties"] >= 0
            assert row["prompt_tokens"] > row["new_tokens"] > 0
            assert ("thought" in row) == ("label" in row) == (task == "verdict")


def test_scores_do_not_depend_on_the_budget_of_a_batch(copied: Run) -> None:
    scored = copied.record["metrics"]["test"]["after"]["tasks"]  # all rows in one batch
    for budget in (1, 200):
        found = again(copied, f"--eval.batch_tokens={budget}", "--eval.anchor_check=false")
        assert found["after"]["tasks"] == scored


@pytest.mark.long
def test_draws_are_the_same_each_time_and_other_than_the_greedy_answers(copied: Run) -> None:
    options = ("--eval.temperature=1.5", "--eval.anchor_check=false")
    name = f"test-turn-step-{copied.record['selected']['step']:06d}"
    greedy = copied.jsonl(name)
    first, second = (
        (again(copied, *options, f"--eval.batch_tokens={budget}"), latest(copied).jsonl(name))
        for budget in (1, 100_000)
    )
    predictions = [[row["prediction"] for row in rows] for rows in (first[1], second[1], greedy)]
    assert predictions[0] == predictions[1] != predictions[2]
    assert first[0]["after"]["tasks"] == second[0]["after"]["tasks"]


def test_answers_end_where_the_configuration_says(copied: Run, world: World) -> None:
    """A stop token ends answers that went on, and no answer ends before its least length."""
    name = f"test-turn-step-{copied.record['selected']['step']:06d}"
    before = copied.jsonl(name)
    assert len({row["new_tokens"] for row in before} - {8}) == 0
    tokenizer = json.loads((world.base / "tokenizer.json").read_text(encoding="utf-8"))
    words = [w for w in tokenizer["model"]["vocab"] if w.isascii() and w.isalpha()]
    stops = f"--data.tasks.turn.stop_tokens={json.dumps(words)}"
    again(copied, "--eval.anchor_check=false", stops)
    short = latest(copied).jsonl(name)
    least = "--data.tasks.turn.min_new_tokens=5"
    again(copied, "--eval.anchor_check=false", stops, least)
    longer = latest(copied).jsonl(name)
    assert any(row["stopped"] and row["new_tokens"] < 5 for row in short)
    assert all(row["new_tokens"] >= 5 for row in longer)


def test_response_prefix_can_be_forced_and_is_then_no_part_of_the_answer(
    copied: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"test-turn-step-{copied.record['selected']['step']:06d}"
    free = copied.jsonl(name)
    option = "--data.tasks.turn.force_response_prefix=true"
    scores = again(copied, "--eval.anchor_check=false", option)["after"]["tasks"]["turn"]
    forced = latest(copied).jsonl(name)
    assert "prefix_rate" not in scores["values"]
    for ours, other in zip(forced, free, strict=True):
        assert ours["prompt_tokens"] > other["prompt_tokens"]
        assert ours["prefix_found"] is None
        assert not ours["prediction"].startswith(PREFIX.strip())
    capsys.readouterr()
    main(["predict", "--run", str(copied.folder), "--task", "turn", option])
    predicted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for key in ("prompt_sha256", "prediction", "prefix_found"):
        assert [row[key] for row in predicted] == [row[key] for row in forced]


@pytest.mark.parametrize(
    ("option", "error"),
    [
        (
            "--data.tasks.turn.stop_tokens=['one two three']",
            says("data.tasks.turn.stop_tokens", got="'one two three'"),
        ),
        (
            "--data.tasks.turn.min_new_tokens=9",
            says("data.tasks.turn.min_new_tokens", rule=["0", "max_new_tokens", "8"], got="9"),
        ),
        ("--eval.temperature=-1", says("eval.temperature", rule="0", got="-1.0")),
    ],
)
def test_limits_that_cannot_be_met_are_refused_before_training(
    option: str, error: Says, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *world.overlay, option])
    assert stop.value.code == 2
    assert capsys.readouterr().err.removeprefix("error: ").strip() == error


# A trained model of the microworld, on one process and on several


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The translation task of the embedded default after 40 steps."""
    home = tmp_path_factory.mktemp("trained")
    overlay = home / "translate.yaml"
    tasks = {"translate": read_config("microworld")["data"]["tasks"]["translate"]}
    values = {"extends": "microworld", "data": {"tasks": tasks}}
    overlay.write_text(yaml.safe_dump(values), encoding="utf-8")
    options = ["-c", str(overlay), f"--run.dir={home / 'runs'}", "--trainer.max_steps=40"]
    done = command(["fit", *options, "--eval.test=false", "--eval.dev_rows=8"], home=home)
    assert done.returncode == 0, done.stderr
    (folder,) = (home / "runs").iterdir()
    return Run(folder, done.stdout, done.stderr)


Scored = tuple[dict[str, Any], list[dict[str, Any]]]


def scored_on(run: Run, processes: int, rows: int, home: Path) -> Scored:
    """Score the run's test rows on some processes; return scores and translations."""
    strategy = "ddp" if processes > 1 else "auto"
    options = [f"--trainer.devices={processes}", f"--trainer.strategy={strategy}"]
    options += ["--trainer.accelerator=cpu", f"--eval.test_rows={rows}"]
    options += ["--eval.anchor_check=false"]
    done = command(["test", str(run.folder), *options], home=home)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    written = latest(run)
    scores = json.loads((written.folder / "scores-test.json").read_text(encoding="utf-8"))
    step = run.record["selected"]["step"]
    return scores["after"]["tasks"], written.jsonl(f"test-translate-step-{step:06d}")


@pytest.fixture(scope="module")
def one_process(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Scored]:
    """Scores and translations of one process, by the number of rows."""
    home = tmp_path_factory.mktemp("one")
    return {rows: scored_on(trained, 1, rows, home) for rows in (65, 2)}


@pytest.mark.long
def test_trained_model_translates_and_its_answers_differ(one_process: dict[int, Scored]) -> None:
    scores, answers = one_process[65]
    assert len({row["prediction"] for row in answers}) >= 20
    assert scores["translate"]["values"]["bleu"] > 10


@pytest.mark.ddp
@pytest.mark.long
@pytest.mark.parametrize(("rows", "processes"), [(65, 2), (65, 3), (2, 3)])
def test_several_processes_score_every_row_once_as_one_does(
    rows: int, processes: int, trained: Run, one_process: dict[int, Scored], tmp_path: Path
) -> None:
    scores, answers = one_process[rows]
    found, theirs = scored_on(trained, processes, rows, tmp_path)
    ids = [f"test.jsonl:{number}" for number in range(1, rows + 1)]
    assert [row["id"] for row in theirs] == [row["id"] for row in answers] == ids
    decided = [
        (ours["prediction"], other["prediction"])
        for ours, other in zip(answers, theirs, strict=True)
        if not ours["near_ties"]
    ]
    assert len(decided) > 0.9 * rows
    assert all(ours == other for ours, other in decided)
    if len(decided) == rows:
        assert found == scores


def test_chat_prompts_of_no_task_stand_in_run_json_the_table_and_the_report(
    fit: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit("--eval.probe=true", "--eval.anchor_check=false")
    test = run.record["metrics"]["test"]
    assert test["before"]["probe"]["unchanged"] == 1
    assert test["after"]["probe"]["rows"] == 100
    assert 0 <= test["after"]["probe"]["unchanged"] < 1
    assert test["after"]["probe"]["loss"] > test["before"]["probe"]["loss"]
    screen = capsys.readouterr().out
    assert f"{test['after']['probe']['loss']:.3f}" in screen
    assert "chat: 100 short prompts that no training source holds" in screen
    main(["report", str(run.folder)])
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Chat prompts that no training source holds" in page
    assert 'data-path="test/after/probe/unchanged"' in page
    share = test["after"]["probe"]["unchanged"]
    assert f"{100 * share:.0f}% are answered as by the base." in page


def test_a_base_that_cannot_chat_gets_no_chat_prompts(run: Run) -> None:
    assert "probe" not in run.record["metrics"]["test"]["after"]
    assert "chat: " not in run.stdout
