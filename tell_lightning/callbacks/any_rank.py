"""What any rank says, heard by all of them one optimizer step later, so that none waits.

    step          1        2        3
    rank 0 says   no       no       no
    rank 1 says   no       yes      yes
    all hear      no       no       yes

What is said travels while the step is computed. On a GPU the host is ahead of the device: an answer
to what was just said would come only after all the work before it. An answer of the step before has
arrived by then. All ranks hear the same of each step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, distributed


class AnyRank:
    """Yes or no of all ranks, to a fixed number of questions."""

    def __init__(self) -> None:
        """Nothing is on its way."""
        self._said: Tensor | None = None
        self._wait: Callable[[], object]

    def say(self, trainer: pl.Trainer, own: Sequence[bool]) -> None:
        """Send what this rank says. All ranks must call this."""
        if trainer.world_size == 1:
            return
        device = trainer.strategy.root_device
        said = torch.stack([torch.full((), float(each), device=device) for each in own])
        work: Any = distributed.all_reduce(said, distributed.ReduceOp.MAX, async_op=True)
        self._said, self._wait = said, work.wait
        if device.type == "cuda":
            work.wait()  # the stream waits, the host does not
            self._said = torch.empty(said.shape, pin_memory=True)
            self._said.copy_(said, non_blocking=True)
            cuda: Any = torch.cuda
            arrived = cuda.Event()
            arrived.record()
            self._wait = arrived.synchronize

    def hear(self, trainer: pl.Trainer, own: Sequence[bool]) -> list[bool]:
        """Return what any rank said last; a single rank hears at once. All ranks must call this.

        Args:
            trainer: The Trainer.
            own: What this rank says now. All wait for it if nothing has been said before.
        """
        if trainer.world_size == 1:
            return list(own)
        if self._said is None:
            self.say(trainer, own)
        assert self._said is not None
        self._wait()
        return [value > 0 for value in self._said.tolist()]

    def end(self) -> None:
        """Forget what was said, once it has arrived."""
        if self._said is not None:
            self._wait()
        self._said = None
