"""What a repetition of a run has in common with it, as run.json says it."""

from collections.abc import Iterator

import pytest
import torch

from tell_lightning.callbacks.run_record import promise


@pytest.fixture
def deterministic() -> Iterator[None]:
    """What the Trainer does with `deterministic: true`."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_a_cpu_gives_the_same_bits() -> None:
    assert promise("cpu").startswith("same bits on a CPU")


def test_a_gpu_gives_the_same_order_and_names_what_would_give_the_same_bits() -> None:
    assert promise("cuda").startswith("same order and same data")
    assert "trainer.deterministic: true" in promise("cuda")


@pytest.mark.usefixtures("deterministic")
def test_a_gpu_that_is_asked_for_it_gives_the_same_bits() -> None:
    assert promise("cuda").startswith("same bits on a GPU")
