"""`data.micro_batch: auto`: what it finds, that the order stays, and where it is written."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from messages import says
from tiny_runs import Fits, audit, command, consumed
from tiny_world import World

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.cli import main
from tell_lightning.commands.check import check, check_training
from tell_lightning.commands.session import open_session
from tell_lightning.data.batches import Batch
from tell_lightning.data.datamodule import StreamError, TellDataModule
from tell_lightning.model import micro_batch
from tell_lightning.model.micro_batch import largest_that_fits
from tell_lightning.model.module import TellModule
from tell_lightning.settings import ConfigError

SHORT = ("--eval.test=false", "--eval.before=false", "--eval.dev_rows=1", "--data.audit=true")
AUTO = "--data.micro_batch=auto"
PLAIN: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "limit_val_batches": 0,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture
def at_most(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let memory run out above a number of rows."""

    def limit(rows: int) -> list[int]:
        tried: list[int] = []
        step = micro_batch._Tries._step

        def limited(self: Any, size: int) -> None:
            tried.append(size)
            if size > rows:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            step(self, size)

        monkeypatch.setattr(micro_batch._Tries, "_step", limited)
        return tried

    return limit


@pytest.mark.parametrize("most", range(13))
@pytest.mark.parametrize("sizes", [[1, 2, 3, 4, 6, 12], [1, 2, 4, 8], [5], [1, 11]])
def test_the_largest_that_fits_is_found_with_few_tries(sizes: list[int], most: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= most

    best = max((size for size in sizes if size <= most), default=None)
    assert largest_that_fits(sizes, fits) == best
    assert len(tried) == len(set(tried))
    assert sum(size > most for size in tried) <= 1 + sum(size > most for size in sizes[:-1])


def test_order_and_plan_are_those_of_any_micro_batch_and_the_number_is_written(
    fit: Fits, at_most: Any, caplog: pytest.LogCaptureFixture
) -> None:
    explicit = fit(*SHORT, "--data.micro_batch=2")
    tried = at_most(2)
    run = fit(*SHORT, AUTO)
    assert tried == [1, 2, 4]
    assert "auto has found 2, which makes 2 forward passes" in caplog.text
    assert run.record["micro_batch"] == 2
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["data"]["micro_batch"] == 2
    for key in ("data", "mixture"):
        assert run.record[key] == explicit.record[key]
    assert consumed(run.folder) == consumed(explicit.folder)
    files = [one.folder / "adapter/adapter_model.safetensors" for one in (run, explicit)]
    assert files[0].read_bytes() == files[1].read_bytes()  # trying leaves nothing behind


@pytest.mark.long
def test_a_scoring_before_training_and_a_resume_use_the_number(fit: Fits, at_most: Any) -> None:
    tried = at_most(1)
    rows = ("--eval.test_rows=2", "--eval.dev_rows=1", "--data.audit=true")
    run = fit(AUTO, *rows, "--trainer.max_steps=2")
    assert tried == [1, 2]
    checkpoint = torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["TellDataModule"]["micro_batch"] == 1
    # As after a kill before the number was written.
    config = run.folder / "config.yaml"
    config.write_text(config.read_text().replace("micro_batch: 1", "micro_batch: auto"))
    main(["fit", "--resume", str(run.folder), "--trainer.max_steps=3"])
    assert tried == [1, 2]
    sessions = [line["session"] for line in audit(run.folder)[0] if "session" in line]
    assert [session["micro_batch"] for session in sessions] == [1, 1]
    saved = yaml.safe_load((run.folder / "config.resume-1.yaml").read_text())
    assert saved["data"]["micro_batch"] == 1


@pytest.mark.long
def test_packed_bins_are_tried(fit: Fits, at_most: Any) -> None:
    tried = at_most(4)
    packed = ("--data.packing=true", "--data.max_tokens=128", "--trainer.max_steps=1")
    assert fit(*SHORT, AUTO, *packed).record["micro_batch"] == 4
    assert tried == [1, 2, 4]


def test_not_even_one_row_fits(
    world: World, at_most: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at_most(0)
    with pytest.raises(SystemExit):
        main(["fit", *world.overlay, *SHORT, AUTO, f"--run.dir={tmp_path}"])
    error = capsys.readouterr().err.splitlines()[-1].removeprefix("error: ")
    cure = ["data.max_tokens (now 1,024)", "model.activation_checkpointing"]
    assert error == says("data.micro_batch", got="too little for one row", cure=cure)


def test_a_cpu_is_given_no_more_than_half_of_its_memory(
    fit: Fits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batch, "resident_bytes", lambda: 100)
    monkeypatch.setattr(micro_batch, "available_bytes", lambda: 800)
    peaks = iter([200, 300])  # 100 a row: 4 rows would take 500 of 400, and are not tried
    monkeypatch.setattr(micro_batch, "peak_since_reset", lambda: next(peaks))
    run = fit(*SHORT, AUTO, "--data.optimizer_batch=8", "--trainer.max_steps=1")
    assert run.record["micro_batch"] == 2


def test_a_plain_trainer_does_the_same(world: World, at_most: Any, tmp_path: Path) -> None:
    config = check([*world.overlay, AUTO, "--data.optimizer_batch=6"])
    data = TellDataModule.from_settings(config.data, tokenizer=str(world.base), seed=1)
    seen: list[int] = []

    class Sizes(pl.Callback):
        def on_train_batch_start(self, _: object, __: object, batch: Batch, ___: int) -> None:
            seen.append(len(batch.input_ids))

    at_most(3)
    trainer = pl.Trainer(max_steps=1, callbacks=[Sizes()], default_root_dir=tmp_path, **PLAIN)
    trainer.fit(TellModule(str(world.base)), datamodule=data)
    assert seen == [3, 3]
    assert (data.tried, trainer.accumulate_grad_batches) == (3, 2)


def test_what_cannot_try_is_refused(world: World, tmp_path: Path) -> None:
    config = check([*world.overlay, AUTO, "--trainer.strategy=fsdp2"])
    with pytest.raises(ConfigError, check=says("data.micro_batch", rule="fsdp2", got="auto")):
        check_training(config)

    class Other(pl.LightningModule):
        pass

    session = open_session(check([*world.overlay, AUTO]), RunFolder(tmp_path), None, training=False)
    data = session.datamodule
    data.trainer = session.trainer
    data.prepare_data()
    data.setup("fit")
    assert (data.micro_batch, data.tried) == (1, None)
    session.trainer.strategy.connect(Other())
    with pytest.raises(StreamError, check=says("data.micro_batch", got="auto with Other")):
        data.setup("fit")


@pytest.mark.ddp
@pytest.mark.long
def test_all_ranks_use_the_smallest(world: World, tmp_path: Path) -> None:
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.optimizer_batch=8"]
    options = [*world.overlay, *SHORT, AUTO, f"--run.dir={tmp_path / 'runs'}", *two]
    done = command(["fit", *options], home=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert record["micro_batch"] == 4
    assert [lines[0]["session"]["micro_batch"] for lines in audit(folder)] == [4, 4]
