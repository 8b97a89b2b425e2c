"""A run that goes on is the run that never stopped; one that ends badly says so."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from messages import says
from tiny_runs import Fits, Run, consumed
from tiny_world import Raise, World

from tell_lightning.cli import main

SHORT = ["--eval.test=false", "--eval.every_steps=3", "--eval.select=last", "--eval.dev_rows=1"]


def losses(run: Run) -> dict[int, str]:
    """Train losses by step, as written."""
    with (run.folder / "metrics.csv").open(newline="") as file:
        return {int(r["step"]): r["train/loss"] for r in csv.DictReader(file) if r["train/loss"]}


def adapter(run: Run) -> bytes:
    return (run.folder / "adapter/adapter_model.safetensors").read_bytes()


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused, and return why."""
    with pytest.raises(SystemExit) as exit_:
        main([*arguments])
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory, world: World) -> Run:
    """A finished run of three steps; what goes on with it takes `begun`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        return Fits(world)(*SHORT, "--trainer.max_steps=3")


@pytest.fixture
def begun(halved: Run, tmp_path: Path) -> Run:
    """A copy of it, to resume."""
    return Run(shutil.copytree(halved.folder, tmp_path / "begun"))


def test_resumed_run_is_the_uninterrupted_one_to_the_byte(fit: Fits, begun: Run) -> None:
    whole = fit(*SHORT, "--trainer.max_steps=6")
    halved = begun
    assert len(losses(halved)) == 3
    scored = halved.record
    digests = {
        path.stem: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (halved.folder / "predictions").glob("dev-turn-*.jsonl")
    }
    scored["metrics"]["neural"] = {
        # That of step 3 is as if it was scored and then written anew.
        stem: {"comet": {"score": 0.5, "predictions_sha256": "0" * 64 if "step" in stem else sha}}
        for stem, sha in digests.items()
    }
    (halved.folder / "run.json").write_text(json.dumps(scored))
    main(["fit", "--resume", str(halved.folder), "--trainer.max_steps=6"])
    assert len(losses(whole)) == 6
    assert losses(halved) == losses(whole)
    assert adapter(halved) == adapter(whole)
    record = halved.record
    assert record["status"] == "completed"
    assert record["reproducible"].startswith("same bits on a CPU")
    assert set(digests) == {"dev-turn-base", "dev-turn-step-000003"}
    assert record["metrics"]["neural"] == {
        "dev-turn-base": scored["metrics"]["neural"]["dev-turn-base"]
    }
    assert record["steps"] == 6
    assert record["metrics"]["dev"]["before"]["step"] == 0
    (earlier,) = record["earlier_sessions"]
    assert set(earlier) == {"command", "started", "versions", "git", "machine"}
    assert record["started"] >= earlier["started"]
    (saved,) = halved.folder.glob("config.resume-*.yaml")
    assert yaml.safe_load(saved.read_text())["trainer"]["max_steps"] == 6
    assert yaml.safe_load((halved.folder / "config.yaml").read_text())["trainer"]["max_steps"] == 3


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (
            ["--seed_everything=7"],
            ["seed_everything", "data.mixture.order_seed", "data.mixture.task_examples"],
        ),
        (["--data.mixture.task_share=0.5"], "data.mixture"),
        (["--data.optimizer_batch=8"], "data.optimizer_batch"),
        (["--data.max_tokens=300"], "data.max_tokens"),
        (["--data.packing=true", "--data.mixture.general_repeat=true"], "data.packing"),
    ],
)
def test_changed_order_is_refused_on_resume_and_the_record_stays(
    halved: Run, options: list[str], field: str | list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (halved.folder / "run.json").read_bytes(), (halved.folder / "plan.json").read_bytes()
    resume = ["fit", "--resume", str(halved.folder), "--trainer.max_steps=4"]
    assert error_of(capsys, *resume, *options) == says("resume", cure=field)
    after = (halved.folder / "run.json").read_bytes(), (halved.folder / "plan.json").read_bytes()
    assert after == before


def test_file_edited_in_place_is_refused_on_resume(
    halved: Run, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    path = world.folder / "data/general.jsonl"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"It is 7.", b"It is 8."))
    try:
        error = error_of(capsys, "fit", "--resume", str(halved.folder), "--trainer.max_steps=4")
    finally:
        path.write_bytes(before)
    assert error == says("resume", cure="data.general.writing.")


def test_damaged_checkpoint_is_refused(begun: Run, capsys: pytest.CaptureFixture[str]) -> None:
    last = begun.folder / "checkpoints/last.ckpt"
    whole = last.read_bytes()
    resume = ["fit", "--resume", str(begun.folder), "--trainer.max_steps=4"]
    last.write_bytes(whole[: len(whole) // 2])
    assert error_of(capsys, *resume) == says("--resume", rule="whole")
    torch.save({"state_dict": {}}, last)
    lacking = "TellDataModule, global_step, loops, window_sums"
    assert error_of(capsys, *resume) == says("--resume", rule="`fit`", got=str(last), cure=lacking)


def test_layout_may_change_on_resume(fit: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    """With another micro-batch each step has the same examples and, but for rounding, numbers."""
    options = [*SHORT, "--data.audit=true", "--model.lora.dropout=0.0", "--trainer.max_steps=6"]
    whole = fit(*options)
    run = fit(*options[:-1], "--trainer.max_steps=3")
    for step, micro in ((4, 1), (6, 4)):
        more = [f"--trainer.max_steps={step}", f"--data.micro_batch={micro}"]
        main(["fit", "--resume", str(run.folder), *more])
    assert consumed(run.folder) == consumed(whole.folder)
    assert len(consumed(whole.folder)) == 6
    one, other = losses(run), losses(whole)
    assert list(one) == list(other)
    assert [float(v) for v in one.values()] == pytest.approx([float(v) for v in other.values()])
    steps = [entry["step"] for entry in whole.record["metrics"]["dev_history"]]
    assert steps == [0, 3, 6]
    # The last step of each session is scored, too.
    assert [entry["step"] for entry in run.record["metrics"]["dev_history"]] == [0, 3, 4, 6]


def test_nothing_left_to_do_is_refused_on_resume(
    halved: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(capsys, "fit", "--resume", str(halved.folder)) == says(
        "--resume", rule=["trainer.max_steps", "3"], got="3", cure="--trainer.max_steps=N"
    )


def test_what_is_typed_wins_on_resume_and_stays_in_force_on_the_next(begun: Run) -> None:
    resume = ["fit", "--resume", str(begun.folder)]
    main([*resume, "--trainer.max_steps=4", "--model.optimizer.lr=0.001"])
    main([*resume, "--trainer.max_steps=5"])
    with (begun.folder / "metrics.csv").open(newline="") as file:
        rates = {
            int(r["step"]): float(r["train/lr"]) for r in csv.DictReader(file) if r["train/lr"]
        }
    assert list(rates) == [1, 2, 3, 4, 5]
    assert list(rates.values()) == pytest.approx([0.05, 0.05, 0.05, 0.001, 0.001])
    saved = torch.load(begun.folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 5


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError, "failed"), (KeyboardInterrupt, "interrupted")]
)
def test_run_that_ends_badly_says_so_and_can_go_on(
    fit: Fits, error: type[BaseException], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Raise, "error", error)
    runs = fit.world.folder / "runs"
    before = set(runs.iterdir()) if runs.is_dir() else set()
    with pytest.raises((RuntimeError, SystemExit)):
        fit(
            *SHORT,
            "--run.checkpoint_every_steps=2",
            "--trainer.callbacks=tiny_world.Raise",
            "--trainer.max_steps=4",
        )
    (folder,) = set(runs.iterdir()) - before
    run = Run(folder)
    assert run.record["status"] == status
    assert error.__name__ in run.record["error"]
    assert run.record["seconds"]["total"] > 0
    assert not (folder / "adapter").exists()
    monkeypatch.setattr(Raise, "error", None)
    main(["fit", "--resume", str(folder), "--trainer.callbacks=null"])
    assert run.record["status"] == "completed"
    assert "error" not in run.record
    assert list(losses(run)) == sorted(losses(run))
    assert json.loads((folder / "plan.json").read_text())["digest"]


def test_last_and_best_are_what_they_say(fit: Fits) -> None:
    options = ["--trainer.max_steps=3", "--eval.every_steps=1", "--eval.test=false"]
    run = fit(*options)
    history = {entry["step"]: entry["score"] for entry in run.record["metrics"]["dev_history"]}
    assert set(history) == {0, 1, 2, 3}
    best = run.record["selected"]
    assert best["score"] == pytest.approx(max(history[step] for step in (1, 2, 3)))
    assert history[best["step"]] == pytest.approx(best["score"])
    last = fit(*options, "--eval.select=last")
    assert last.record["selected"]["step"] == 3
    assert (adapter(last) == adapter(run)) == (best["step"] == 3)


def test_no_better_score_stops_a_run_early(fit: Fits) -> None:
    run = fit(
        "--trainer.max_steps=8",
        "--eval.every_steps=1",
        "--eval.patience=1",
        "--eval.test=false",
        "--model.optimizer.lr=0.0",
    )
    assert run.record["steps"] == 2
    assert run.record["status"] == "completed"
    assert run.record["ended_by"] == "patience"


def test_last_step_is_scored_where_the_interval_does_not_divide_the_run(fit: Fits) -> None:
    run = fit(*SHORT, "--trainer.max_steps=4")
    assert [entry["step"] for entry in run.record["metrics"]["dev_history"]] == [0, 3, 4]
    assert run.record["ended_by"] == "steps"


def test_of_equal_scores_the_adapter_with_the_lower_loss_is_exported(fit: Fits) -> None:
    """Exact match stays 0 from the first step to the last."""
    run = fit(
        "--trainer.max_steps=3",
        "--eval.every_steps=1",
        "--eval.patience=1",
        "--eval.test=false",
        "--eval.dev_rows=1",
        "--data.tasks.turn.scoring={kind: text}",
    )
    history = run.record["metrics"]["dev_history"][1:]
    assert [entry["score"] for entry in history] == [0.0] * 3
    losses = [entry["loss_nats_per_token"]["turn"] for entry in history]
    selected = run.record["selected"]
    assert selected["tied_steps"] == [1, 2, 3]
    assert selected["step"] == 1 + losses.index(min(losses)) > 1


def test_checkpoints_hold_adapters_and_position_alone(halved: Run) -> None:
    saved = torch.load(halved.folder / "checkpoints/last.ckpt", weights_only=True)
    assert all("lora_" in name for name in saved["state_dict"])
    assert saved["TellDataModule"]["unit"] == "examples"
    assert saved["TellDataModule"]["consumed"] == saved["global_step"] * 4
    assert Path(halved.folder / "checkpoints/last.ckpt").stat().st_size < 1_000_000


def test_best_adapter_of_a_run_that_was_moved_is_still_known(fit: Fits, tmp_path: Path) -> None:
    options = ["--eval.every_steps=1", "--eval.test=false", "--eval.patience=null"]
    # Nothing is learned, so that the first score stays the best.
    run = fit(*options, "--trainer.max_steps=2", "--model.optimizer.lr=0.0")
    selected = run.record["selected"]
    assert selected["step"] == 1
    moved = Run(tmp_path / "moved")
    shutil.copytree(run.folder, moved.folder)
    shutil.rmtree(run.folder)
    main(["fit", "--resume", str(moved.folder), "--trainer.max_steps=3"])
    assert moved.record["selected"] == selected | {"tied_steps": [1, 2, 3]}
    assert not run.folder.exists()


def test_another_place_is_refused_on_resume(
    halved: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = ["fit", "--resume", str(halved.folder), "--trainer.max_steps=9"]
    assert error_of(capsys, *resume, "--run.name=other") == says(
        "run.name", rule="'tiny'", got="'other'"
    )
    place = str(halved.folder.parent)
    assert error_of(capsys, *resume, "--run.dir=other") == says(
        "run.dir", rule=f"'{place}'", got="'other'"
    )


def test_command_that_is_refused_leaves_no_folder(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*world.overlay, f"--run.dir={tmp_path}", "--data.micro_batch=3"]
    assert error_of(capsys, "fit", *options) == says(
        "data.optimizer_batch", cure="data.micro_batch"
    )
    assert not list(tmp_path.iterdir())


def test_what_was_typed_on_a_resume_that_failed_is_forgotten(
    begun: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun
    resume = ["fit", "--resume", str(run.folder), "--trainer.max_steps=4"]
    assert error_of(capsys, *resume, "--model.lora.rank=8") == says("checkpoint")
    main(resume)
    assert run.record["status"] == "completed"
    (saved,) = run.folder.glob("config.resume-*.yaml")
    assert yaml.safe_load(saved.read_text())["model"]["lora"]["rank"] == 4


def test_nothing_is_left_to_do_after_the_cycles(
    fit: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(*SHORT, "--trainer.max_steps=null", "--data.mixture.cycles=0.2")
    assert error_of(capsys, "fit", "--resume", str(run.folder)) == says(
        "--resume", got="all 3 steps", cure="data.mixture.cycles: 0.2"
    )


def test_run_that_was_killed_after_its_last_step_ends_with_its_scores(begun: Run) -> None:
    run = begun
    whole = run.record
    path = run.folder / "run.json"
    path.write_text(json.dumps(whole | {"status": "running", "metrics": {}}))
    shutil.rmtree(run.folder / "adapter")
    main(["fit", "--resume", str(run.folder)])
    assert run.record["status"] == "completed"
    assert run.record["metrics"] == whole["metrics"]
    assert run.record["metrics"]["dev"]["floors"]["turn"]
    assert adapter(run)
