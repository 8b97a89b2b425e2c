"""`--trainer.strategy=fsdp2`: two processes that share the weights do what one does."""

import json

import pytest
import torch
from messages import says
from safetensors.torch import load_file
from tiny_runs import Fits, Run, audit, command, consumed
from tiny_world import World

from tell_lightning.cli import main
from tell_lightning.commands.check import check
from tell_lightning.settings import ConfigError

OPTIONS = [
    "--model.lora.dropout=0.0",
    "--eval.dev_rows=3",
    "--eval.test_rows=9",
    "--trainer.gradient_clip_val=0.5",
    "--data.audit=true",
]


@pytest.fixture(scope="module")
def one(world: World) -> Run:
    """A run of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        return Fits(world)(*OPTIONS)


@pytest.fixture(scope="module")
def two(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run of two processes."""
    home = tmp_path_factory.mktemp("home")
    cut = ["--trainer.devices=2", "--trainer.strategy=fsdp2", f"--run.dir={home / 'runs'}"]
    done = command(["fit", *world.overlay, *OPTIONS, *cut], home=home)
    assert done.returncode == 0, done.stderr
    (folder,) = (home / "runs").iterdir()
    return Run(folder, done.stdout, done.stderr)


@pytest.mark.ddp
@pytest.mark.long
def test_two_processes_that_share_the_weights_make_the_adapter_of_one(one: Run, two: Run) -> None:
    ours, theirs = (
        load_file(run.folder / "adapter/adapter_model.safetensors") for run in (two, one)
    )
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        torch.testing.assert_close(ours[name], values, rtol=1e-3, atol=1e-5)
    assert len(audit(two.folder)) == 2
    assert consumed(two.folder) == consumed(one.folder)


@pytest.mark.ddp
@pytest.mark.long
def test_they_answer_every_row_once_with_the_scores_of_one(one: Run, two: Run) -> None:
    names = sorted(path.stem for path in (one.folder / "predictions").iterdir())
    assert names == sorted(path.stem for path in (two.folder / "predictions").iterdir())
    for name in names:
        ours, theirs = two.jsonl(name), one.jsonl(name)
        assert [row["id"] for row in ours] == [row["id"] for row in theirs]
        assert [row["prediction"] for row in ours] == [row["prediction"] for row in theirs]
    assert two.record["devices"] == 2
    ours, theirs = two.record["metrics"]["test"], one.record["metrics"]["test"]
    for when in ("before", "after"):
        assert ours[when]["tasks"] == theirs[when]["tasks"]
        loss = theirs[when]["loss_nats_per_token"]
        assert ours[when]["loss_nats_per_token"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.ddp
@pytest.mark.long
def test_their_screen_is_that_of_one(two: Run) -> None:
    screen = two.stdout + two.stderr
    assert "Warning" not in screen
    assert screen.count("Run: ") == 2  # at the start and at the end, by one rank
    assert screen.count("4,096 of ") == 1


@pytest.mark.ddp
@pytest.mark.long
def test_the_adapter_is_scored_again_by_two_and_by_one(two: Run) -> None:
    after = two.record["metrics"]["test"]["after"]
    file = two.folder / "scores-test.json"
    patient = {
        "class_path": "tell_lightning.model.sharding.FullySharded",
        "init_args": {"timeout": "0:05:00"},
    }
    options = [f"--trainer.strategy={json.dumps(patient)}"]
    done = command(["test", str(two.folder), *options], home=two.folder.parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text())["after"]["tasks"] == after["tasks"]
    file.unlink()
    main(["test", str(two.folder), "--trainer.devices=1", "--trainer.strategy=auto"])
    assert json.loads(file.read_text())["after"]["tasks"] == after["tasks"]


@pytest.mark.ddp
@pytest.mark.long
def test_one_process_goes_on_where_two_ended(world: World, two: Run) -> None:
    alone = ["--trainer.devices=1", "--trainer.strategy=auto", "--trainer.max_steps=6"]
    main(["fit", "--resume", str(two.folder), *alone])
    whole = Fits(world)(*OPTIONS, "--trainer.max_steps=6")
    assert consumed(two.folder) == consumed(whole.folder)
    ours, theirs = (
        torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (two, whole)
    )
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        torch.testing.assert_close(ours[name], values, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "strategy", ["fsdp", "lightning.pytorch.strategies.FSDPStrategy", "ModelParallelStrategy"]
)
def test_other_ways_to_cut_weights_are_refused(strategy: str) -> None:
    assert _message(f"--trainer.strategy={strategy}") == says(
        "trainer.strategy", rule="FSDP2", got=strategy, cure="--trainer.strategy=fsdp2"
    )


def test_half_precision_that_scales_the_loss_is_refused() -> None:
    assert _message("--trainer.strategy=fsdp2", "--trainer.precision=16-mixed") == says(
        "trainer.precision",
        rule=["fsdp2", "bf16-mixed", "32-true"],
        got="16-mixed",
        cure="bf16-mixed",
    )


def _message(*options: str) -> str:
    with pytest.raises(ConfigError) as error:
        check(list(options))
    return str(error.value)
