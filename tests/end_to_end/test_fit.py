"""What one `fit` leaves: the screen, the folder and the numbers in it."""

import csv
import json
import re
from collections import Counter

import pytest
import yaml
from tiny_runs import Fits, Run
from tiny_world import World

from tell_lightning.cli import main

TASKS = ("turn", "verdict")


def test_run_folder_holds_what_the_design_promises(run: Run) -> None:
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        "config.yaml",
        "plan.json",
        "run.json",
        "metrics.csv",
        "predictions",
        "checkpoints",
        "adapter",
        "wandb",
    }
    assert {path.name for path in (run.folder / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "anchor.json",
        "README.md",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    checkpoints = {path.name for path in (run.folder / "checkpoints").iterdir()}
    assert checkpoints == {"last.ckpt", "best.ckpt"}


def test_screen_shows_no_warning(run: Run) -> None:
    screen = run.stdout + run.stderr
    assert "Warning" not in screen
    assert "WARNING" not in screen
    assert "Traceback" not in screen
    assert "site-packages" not in screen


def test_screen_shows_plan_progress_and_scores(run: Run) -> None:
    assert f"Run: {run.folder}" in run.stdout
    assert run.record["data"]["plan_digest"][:12] in run.stdout
    assert re.search(r"^step 4/4  loss \d.*  lr \d.*  task \d.*eta 0:00:00$", run.stderr, re.M)
    for split in ("dev", "test"):
        assert len(re.findall(rf"^  {split} turn: BLEU ", run.stderr, re.M)) >= 2
    assert "copy source" in run.stdout
    end = run.stdout.splitlines()
    assert f"Run: {run.folder}, with run.json and adapter/" in end
    assert end[-1].endswith(f"predict --run {run.folder} --task turn --input -")


def test_last_scoring_shows_samples_each_on_one_line(run: Run) -> None:
    samples = re.findall(
        r"^  (turn|verdict) (\S+)\n    answer .*\n    reference .*$", run.stderr, re.M
    )
    assert samples == [(t, f"{t}-test.jsonl:{n}") for t in TASKS for n in (1, 2, 3)]
    assert all(
        len(line) <= 100
        for line in run.stderr.splitlines()
        if line.startswith(("    answer", "    reference"))
    )


def test_record_holds_intervals_of_test_scores_alone(run: Run) -> None:
    for moment in ("before", "after"):
        for task, name in (("turn", "bleu"), ("verdict", "balanced_accuracy")):
            entry = run.record["metrics"]["test"][moment]["tasks"][task]
            low, high = entry["intervals"][name]
            assert 0 <= low <= entry["values"][name] <= high <= 100
            assert run.record["metrics"]["dev"][moment]["tasks"][task]["intervals"] == {}


def test_without_a_key_wandb_writes_offline_and_says_how_to_send(run: Run) -> None:
    (offline,) = (run.folder / "wandb").glob("offline-run-*")
    assert list(offline.glob("*.wandb"))
    assert f"wandb sync {run.folder}/wandb/offline-run-*" in run.stderr
    assert sum("wandb" in line.lower() for line in run.stderr.splitlines()) == 1


def test_record_holds_scores_before_and_after_with_floors_and_signatures(run: Run) -> None:
    record = run.record
    assert record["status"] == "completed"
    for split, rows in (("dev", 4), ("test", 24)):
        scores = record["metrics"][split]
        for moment in ("before", "after"):
            for task in TASKS:
                assert scores[moment]["tasks"][task]["values"]["rows"] == rows
            assert set(scores[moment]["loss_nats_per_token"]) == {*TASKS, "writing"}
        signatures = scores["after"]["tasks"]["turn"]["signatures"]
        assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
        assert "nc:6" in signatures["chrf"]
        assert set(scores["floors"]["turn"]) == {"copy_source"}
        assert "signatures" in scores["floors"]["turn"]["copy_source"]
        assert set(scores["floors"]["verdict"]) == {"always_no"}
        assert "balanced_accuracy" in scores["after"]["tasks"]["verdict"]["values"]
    assert [entry["step"] for entry in record["metrics"]["dev_history"]] == [0, 2, 4]


def test_record_holds_what_ran_on_what(run: Run) -> None:
    record = run.record
    assert {"python", "torch", "lightning", "transformers", "peft", "sacrebleu"} <= set(
        record["versions"]
    )
    assert re.fullmatch(r"[0-9a-f]{40}", record["git"]["commit"])
    assert re.fullmatch(r"[0-9a-f]{64}", record["base"]["sha256"]["model.safetensors"])
    for name in (*TASKS, "writing"):
        assert re.fullmatch(r"[0-9a-f]{64}", record["data"]["inputs"][name]["sha256"])
    assert record["tokens_per_second"] > 0
    assert record["peak_memory_bytes"] > 1e7
    parts = dict(record["seconds"])
    assert parts.pop("total") == pytest.approx(sum(parts.values()), abs=0.1)
    assert set(parts) == {"setup", "training", "scoring"}
    assert min(parts.values()) > 0
    assert re.search(
        r"^Took \d+ s: set-up \d+, training \d+, scoring \d+; 4 steps, ", run.stdout, re.M
    )
    assert record["steps"] == 4
    assert record["parameters"]["trained"] < record["parameters"]["total"]
    assert record["selected"]["by"] == "best dev score"
    assert record["mixture"] == json.loads((run.folder / "plan.json").read_text())["realised"]
    assert sum(entry["examples"] for entry in record["mixture"]["sources"].values()) == 16


def test_metrics_file_has_losses_per_source_and_scores(run: Run) -> None:
    with (run.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}
    assert len(losses) == 4
    for source in (*TASKS, "writing"):
        assert any(row[f"train/loss/{source}"] for row in rows)
        assert any(row[f"val/loss/{source}"] for row in rows)
    assert any(row["val/turn/bleu"] for row in rows)
    assert any(row["val/verdict/balanced_accuracy"] for row in rows)
    assert any(row["train/tokens_per_second"] for row in rows)


def test_predictions_hold_every_row_once(run: Run, world: World) -> None:
    names = {path.stem for path in (run.folder / "predictions").iterdir()}
    for task in TASKS:
        assert {f"test-{task}-base", f"dev-{task}-base", f"dev-{task}-step-000004"} <= names
        for name in sorted(name for name in names if f"-{task}-" in name):
            split = name.partition("-")[0].partition("_")[0]
            rows = run.jsonl(name)
            lines = (world.folder / f"data/{task}-{split}.jsonl").read_text().splitlines()
            assert [row["id"] for row in rows] == [
                f"{task}-{split}.jsonl:{number}" for number in range(1, len(lines) + 1)
            ]
            assert Counter(row["id"] for row in rows).most_common(1)[0][1] == 1


def test_plan_shows_the_plan_of_the_run(
    run: Run, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plan", *world.overlay])
    shown = capsys.readouterr().out
    plan = json.loads((run.folder / "plan.json").read_text())
    assert plan["digest"][:12] in shown
    table = shown[: shown.index("Left out")]
    assert table in run.stdout


def test_saved_configuration_is_complete_and_gives_the_same_plan(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert saved["model"]["lora"]["rank"] == 4
    assert saved["eval"]["select"] == "best"
    main(["plan", "-c", str(run.folder / "config.yaml")])
    assert run.record["data"]["plan_digest"][:12] in capsys.readouterr().out


@pytest.mark.parametrize(("command", "split"), [("test", "test"), ("validate", "dev")])
def test_scoring_again_gives_the_scores_of_the_record(
    copied: Run, command: str, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied
    main([command, str(run.folder)])
    again = json.loads((run.folder / f"scores-{split}.json").read_text())["after"]
    history = run.record["metrics"]["dev_history"]
    selected = run.record["selected"]["step"]
    first = (
        run.record["metrics"]["test"]["after"]
        if split == "test"
        else next(entry for entry in history if entry["step"] == selected)
    )
    assert again["tasks"] == first["tasks"]
    assert again["loss_nats_per_token"] == pytest.approx(first["loss_nats_per_token"], rel=1e-5)
    assert "turn" in capsys.readouterr().out


def test_second_fit_makes_a_second_folder_and_disabled_wandb_writes_none(fit: Fits) -> None:
    first = fit("--trainer.max_steps=1", "--eval.test=false", "--eval.every_steps=1")
    second = fit("--trainer.max_steps=1", "--eval.test=false", "--eval.every_steps=1")
    assert first.folder != second.folder
    for run in (first, second):
        assert run.record["status"] == "completed"
        assert not (run.folder / "wandb").exists()
        assert "test" not in run.record["metrics"]
    weights = [
        (r.folder / "adapter/adapter_model.safetensors").read_bytes() for r in (first, second)
    ]
    assert weights[0] == weights[1]


def test_general_rows_alone_need_no_task(fit: Fits) -> None:
    options = ["--data.tasks={}", "--data.mixture.arm=general_only", "--trainer.max_steps=2"]
    run = fit(*options)
    assert run.record["status"] == "completed"
    assert "error" not in run.record
