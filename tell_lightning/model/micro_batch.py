"""Find the largest micro-batch that fits into memory, by trying.

A try is the forward and backward pass of `training_step` on the longest rows of a run, in the
Trainer's precision, with room for the optimizer's two means (and, on several devices, for the
gradients that are sent). Nothing of it stays: gradients, sums and random generators are as before.

On a GPU a micro-batch fits if it leaves a tenth of the memory. On a CPU, where the system may end a
process that takes too much, it fits if the process stays within half of the memory that is
available, and it is tried only if the try before lets expect that.
"""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tell_lightning.data.batches import Batch
from tell_lightning.memory import (
    available_bytes,
    is_out_of_memory,
    peak_since_reset,
    reset_peak,
    resident_bytes,
)
from tell_lightning.model.base import fork_rng

GPU_SHARE, CPU_SHARE = 0.9, 0.5
"""Share of the available memory that a try may take."""
CPU_MOST = 16
"""Largest micro-batch on a CPU, where more rows at once are hardly faster."""


def largest_that_fits(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """Return the largest size that fits; None if not even the smallest does.

    Sizes are at least doubled until one does not fit; then those between are tried downwards.

    Args:
        sizes: Ascending.
        fits: Tries a size; if one fits, so do all smaller ones.

    >>> largest_that_fits([1, 2, 3, 4, 6, 12], lambda size: size <= 6)
    6
    """
    best: int | None = None
    left = list(sizes)
    while left:
        size = next((size for size in left if best is None or size >= 2 * best), left[-1])
        if fits(size):
            best = size
            left = [other for other in left if other > size]
            continue
        between = [other for other in left if other < size]
        return next((other for other in reversed(between) if fits(other)), best)
    return best


def largest_micro_batch(
    module: Any, sizes: Sequence[int], batch_of: Callable[[int], Batch]
) -> int | None:
    """Try micro-batches on a module, as its Trainer would train it; each rank by itself.

    Args:
        module: A module with its model, connected to a Trainer.
        sizes: The sizes to choose from, ascending.
        batch_of: Makes the batch of a size, with the longest rows.

    Returns:
        The largest size that fits; None if not even the smallest does.
    """
    trainer = module.trainer
    device = trainer.strategy.root_device
    module.model.to(device)
    if device.type == "cpu":
        sizes = [size for size in sizes if size <= max(CPU_MOST, sizes[0])]
    tries = _Tries(module, batch_of, device)
    found = largest_that_fits(sizes, tries.fits)
    tries.end()
    return found


class _Tries:
    """Tries on one device."""

    def __init__(self, module: Any, batch_of: Callable[[int], Batch], device: Any) -> None:
        self.module, self.batch_of, self.device = module, batch_of, device
        self.on_gpu = device.type == "cuda"
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        copies = 2 + (module.trainer.world_size > 1)
        self.held = [torch.ones_like(each) for each in trained for _ in range(copies)]
        reset_peak()
        if self.on_gpu:
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info(device)
            self.before = torch.cuda.memory_allocated(device)
            self.limit = GPU_SHARE * (free + self.before)
        else:
            self.before = resident_bytes()
            self.limit = CPU_SHARE * available_bytes() / max(1, module.trainer.num_devices)
        self.grown = 0.0  # of the try before, for each row

    def fits(self, size: int) -> bool:
        if not self.on_gpu and self.before + self.grown * size > self.limit:
            return False
        try:
            self._step(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self._forget()
        peak = torch.cuda.max_memory_allocated(self.device) if self.on_gpu else peak_since_reset()
        self.grown = max(0, peak - self.before) / size
        return peak <= self.limit

    def _step(self, size: int) -> None:
        trainer = self.module.trainer
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        with fork_rng(), torch.enable_grad():
            batch = trainer.strategy.batch_to_device(self.batch_of(size), self.device)
            with trainer.precision_plugin.train_step_context():
                loss = self.module.training_step(batch, 0)
            loss.backward()

    def _forget(self) -> None:
        self.module.on_fit_start()
        self.module.zero_grad(set_to_none=True)
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def end(self) -> None:
        """Free what was held; the peak memory of the tries is not that of the run."""
        self.held.clear()
        reset_peak(remember=False)
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
