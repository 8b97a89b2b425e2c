"""The clock of tokens per second runs while a run trains or waits for data, and only then."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tell_lightning.callbacks import throughput
from tell_lightning.callbacks.throughput import Throughput


def test_the_clock_stands_before_training_during_validation_and_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    trainer: Any = SimpleNamespace(
        log_every_n_steps=5, accumulate_grad_batches=1, global_step=1, world_size=2
    )
    module: Any = None
    batch: Any = SimpleNamespace(examples=torch.tensor([[0, 0, 1], [2, 2, throughput.PADDING]]))
    clock = Throughput()

    def wait(seconds: float) -> None:
        now[0] += seconds

    def validate() -> None:
        clock.on_validation_start(trainer, module)
        wait(100)
        clock.on_validation_end(trainer, module)

    validate()  # the base is scored before training
    wait(10)
    assert (clock.seconds, clock.tokens_per_second(trainer)) == (0.0, 0.0)
    assert clock.first_step is None
    clock.on_train_start(trainer, module)
    wait(3)  # for data, and for a step
    clock.on_train_batch_end(trainer, module, None, batch, 0)
    validate()
    wait(2)
    clock.on_train_batch_end(trainer, module, None, batch, 1)
    assert clock.first_step == 3.0
    clock.on_train_end(trainer, module)
    validate()
    assert clock.spent() == {"training": 5.0, "scoring": 300.0}
    clock.on_test_start(trainer, module)
    wait(7)
    clock.on_test_end(trainer, module)
    assert clock.spent() == {"training": 5.0, "scoring": 307.0}
    assert clock.tokens_per_second(trainer) == 2 * 10 / 5
