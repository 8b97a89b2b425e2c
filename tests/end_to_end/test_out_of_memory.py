"""Memory that runs out ends in one line, which names the keys to lower with their values."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from messages import says
from tiny_runs import environment, refused
from tiny_world import World

from tell_lightning.data.tokenizer import BaseModelError
from tell_lightning.generation import batched
from tell_lightning.memory import available_bytes, is_out_of_memory, resident_bytes
from tell_lightning.model import base as model_base
from tell_lightning.model import module
from tell_lightning.model.settings import ModelSettings

SHORT = ("--eval.before=false", "--eval.test=false", "--eval.dev_rows=1")
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: not enough memory: you "
    "tried to allocate 8 bytes."
)


def raising(error: BaseException) -> Callable[..., Any]:
    def run(*_: object, **__: object) -> None:
        raise error

    return run


def test_training_names_the_batch_and_the_longest_row(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "token_losses", raising(CUDA))
    options = (*world.overlay, *SHORT, f"--run.dir={tmp_path}", "--data.max_tokens=300")
    text = refused(capsys, "fit", *options)
    keys = ["data.micro_batch (now 2)", "data.max_tokens (now 300)", "activation_checkpointing"]
    assert text == says("training", got="none left", cure=keys)
    (folder,) = tmp_path.iterdir()
    assert "data.micro_batch" in (folder / "run.json").read_text("utf-8")


def test_what_cannot_be_lowered_is_not_named(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "token_losses", raising(CUDA))
    lowest = ("--data.micro_batch=1", "--model.activation_checkpointing=true")
    text = refused(capsys, "fit", *world.overlay, *SHORT, f"--run.dir={tmp_path}", *lowest)
    assert text == says("training", cure="Lower data.max_tokens (now 1,024).")


def test_scoring_names_the_tokens_of_a_batch(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = (*world.overlay, f"--run.dir={tmp_path}", "--eval.batch_tokens=500")
    with monkeypatch.context() as patch:
        patch.setattr(batched._Batches, "_answer", raising(CPU))
        text = refused(capsys, "fit", *options)
    assert text == says("eval.batch_tokens", got="none left", cure="max_new_tokens (now 8)")
    monkeypatch.setattr(module, "token_losses", raising(CUDA))
    text = refused(capsys, "fit", *options)
    keys = ["eval.batch_tokens (now 500)", "data.micro_batch (now 2)", "max_new_tokens"]
    assert text == says("scoring", got="none left", cure=keys)


def test_a_base_that_does_not_fit_says_how_it_may(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", raising(CPU))
    cure = ["model.dtype: bfloat16", "model.quantize: nf4", "smaller"]
    with pytest.raises(BaseModelError, check=says("model.base", cure=cure)):
        model_base.load_base(ModelSettings(base=str(world.base)))
    with pytest.raises(BaseModelError, match=r"in bfloat16\. Set model\.quantize: nf4, or"):
        model_base.load_base(ModelSettings(base=str(world.base), dtype="bfloat16"))


def test_memory_runs_out_in_many_ways() -> None:
    assert is_out_of_memory(CUDA)
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError, check=is_out_of_memory):
        torch.empty(2**55)


def test_other_errors_are_no_memory_that_ran_out() -> None:
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("not enough memory"))  # a text of the user's
    outer = ValueError("cannot load")
    outer.__cause__ = OSError(12, "Cannot allocate memory")
    assert is_out_of_memory(outer)


def test_a_process_has_some_memory_and_may_get_more() -> None:
    assert 0 < resident_bytes() < available_bytes()


class LittleMemory(pl.Callback):
    """Lets the process have hardly more than it has when training begins."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the limit."""
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        size = pages * resource.getpagesize() + 2**24
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="Requires: /proc of Linux")
def test_an_allocator_that_fails_is_told_in_one_line(world: World, tmp_path: Path) -> None:
    """The limit is real: 256 rows through a vocabulary of 400 do not fit into 16 MiB."""
    callback = "[{class_path: test_out_of_memory.LittleMemory}]"
    options = ["--data.optimizer_batch=256", "--data.micro_batch=256", "--trainer.max_steps=1"]
    options += [f"--trainer.callbacks={callback}", "--data.mixture.general_repeat=true"]
    options += [f"--run.dir={tmp_path / 'runs'}"]
    done = subprocess.run(
        [sys.executable, "-m", "tell_lightning", "fit", *world.overlay, *SHORT, *options],
        env=environment(tmp_path, PYTHONPATH=f"{Path(__file__).parent}:{paths()}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    error = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    keys = ["data.micro_batch (now 256)", "data.max_tokens (now 1,024)"]
    assert error.removeprefix("error: ") == says("training", cure=keys)
    assert "Traceback" not in done.stderr


def paths() -> str:
    """Where the imports of this process are found."""
    return ":".join(path for path in sys.path if path)
