"""A micro-step asks the device for nothing: a GPU would have to finish its work first."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tell_lightning.data.batches import Batch, collate, indexed
from tell_lightning.model.attention import use_packed_kernel
from tell_lightning.model.loss import sums_by_source, token_losses
from tell_lightning.model.module import DivergedError, Watched

READS = ("nonzero", "_local_scalar_dense", "item", "unique", "masked_select", "equal", "is_nonzero")


class Operators(TorchDispatchMode):
    """Counts the operators that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # the signature of PyTorch
        self.counts[func.__name__.partition(".")[0].strip("_")] += 1
        return func(*args, **(kwargs or {}))

    @property
    def reads(self) -> set[str]:
        """Those whose result depends on values, so that the host waits."""
        return {name for name in self.counts if name in {read.strip("_") for read in READS}}


@pytest.fixture
def batches(training: ModuleType) -> list[Batch]:
    items = training.items()
    packed = collate([items[:3], items[3:]], training.NAMES)
    return [indexed(training.batch_of(range(8))), indexed(packed)]


def test_the_counter_sees_reads() -> None:
    with Operators() as operators:
        torch.ones(3)[torch.tensor([True, False, True])].sum().item()
    assert operators.reads


def test_a_micro_step_reads_nothing(
    training: ModuleType, llama_folder: Path, batches: list[Batch]
) -> None:
    found: list[Operators] = []

    class Watched(training.TellModule):  # type: ignore[misc,name-defined]
        def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
            if batch_idx == 0:  # builds what is kept
                return super().training_step(batch, batch_idx)
            with Operators() as operators:
                loss = super().training_step(batch, batch_idx)
            found.append(operators)
            return loss

    training.fit(llama_folder, kind=Watched, micro_batch=2, accumulate=2, steps=2)
    assert len(found) == 3
    for operators in found:
        assert operators.counts["mm"]
        # On a CPU, transformers looks at the positions once, in search of packed rows.
        assert operators.reads <= {"local_scalar_dense"}
        assert operators.counts["local_scalar_dense"] <= 1


def test_a_packed_micro_step_reads_nothing(
    make_llama: Callable[..., Any], batches: list[Batch]
) -> None:
    model = make_llama()
    assert use_packed_kernel(model, "cpu")
    with Operators() as operators:
        losses, _ = token_losses(model, batches[1])
        sums_by_source(losses, batches[1])
    assert not operators.reads


def test_a_batch_that_is_not_indexed_has_the_same_losses(
    make_llama: Callable[..., Any], training: ModuleType
) -> None:
    """As another loader yields it."""
    batch = training.batch_of(range(8))
    assert batch.targets is None
    model = make_llama()
    wanted, _ = token_losses(model, indexed(batch))
    found, _ = token_losses(model, batch)
    assert torch.equal(found, wanted)
    assert torch.equal(sums_by_source(found, batch), sums_by_source(found, indexed(batch)))


def test_numbers_that_arrive_late_are_checked_before_anything_is_saved(
    training: ModuleType, llama_folder: Path
) -> None:
    """As on a GPU, where the host is ahead."""
    module = training.fit(llama_folder, micro_batch=2, accumulate=1).module
    late: Any = SimpleNamespace(query=lambda: False, synchronize=lambda: None)
    for save in (module.on_save_checkpoint, lambda _: module.on_validation_epoch_start()):
        module._watched.append(Watched(3, "adapters", torch.tensor([torch.nan]), late))
        module._check_watched(wait=False)
        with pytest.raises(DivergedError, match="adapters that are no numbers at step 3"):
            save({})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CUDA reports waiting")
def test_a_training_on_a_gpu_waits_for_nothing(training: ModuleType, llama_folder: Path) -> None:
    class Strict(training.TellModule):  # type: ignore[misc,name-defined]
        def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
            cuda: Any = torch.cuda
            cuda.set_sync_debug_mode("error" if batch_idx else "default")
            return super().training_step(batch, batch_idx)

        def on_train_end(self) -> None:
            cuda: Any = torch.cuda
            cuda.set_sync_debug_mode("default")
            super().on_train_end()

    trainer = {"accelerator": "gpu", "log_every_n_steps": 100, "callbacks": []}
    training.fit(llama_folder, kind=Strict, micro_batch=2, accumulate=2, steps=4, trainer=trainer)
