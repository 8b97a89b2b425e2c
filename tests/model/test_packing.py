"""Packed examples have the losses and the gradients that they have unpacked."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tell_lightning.data.batches import Batch, Item, collate, collate_unpacked
from tell_lightning.model import loss
from tell_lightning.model.loss import causal_inputs, token_losses

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

TOLERANCE = 1e-5
BROKEN = 1e-2  # a thousand times as much
BINS = ((3, 0, 6, 4), (), (5, 1, 2, 7))  # four examples a bin, and an empty one

Losses = dict[int, Tensor]


def with_mask(model: Any, batch: Batch) -> dict[str, Any]:
    """What must not be: a mask, though it hides nothing."""
    inputs = causal_inputs(model, batch)
    return {**inputs, "attention_mask": torch.ones_like(inputs["input_ids"])}


def with_cache(model: Any, batch: Batch) -> dict[str, Any]:
    """What must not be: a cache, which is what transformers does when it is not asked."""
    return {**causal_inputs(model, batch), "use_cache": True}


@pytest.fixture(params=["sdpa", "eager"])
def attention(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def module(training: ModuleType, llama_folder: Path, attention: str) -> Any:
    """A base with adapters that do something."""
    module = training.make_module(training.TellModule, llama_folder, attn_implementation=attention)
    module.configure_model()
    training.warm_up(module)
    assert module.model.config._attn_implementation == attention
    return module


@pytest.fixture
def packed(training: ModuleType) -> Batch:
    items = training.items()
    return collate([[items[number] for number in members] for members in BINS], ("task", "general"))


@pytest.fixture
def unpacked(training: ModuleType) -> Batch:
    return collate_unpacked(training.items(), training.NAMES)


def by_position(module: Any, batch: Batch) -> Losses:
    """The losses of each example, whose position is its number in `items`."""
    losses, examples = token_losses(module.model, batch)
    positions = batch.positions[examples]
    return {int(p): losses[positions == p].detach() for p in batch.positions}


def largest_error(found: Losses, wanted: Losses) -> float:
    assert found.keys() == wanted.keys()
    return max(float((found[p] - wanted[p]).norm() / wanted[p].norm()) for p in wanted)


def gradients(training: ModuleType, module: Any, batch: Batch) -> Mapping[str, Tensor]:
    """Those of the adapters, for the token mean."""
    module.zero_grad()
    token_losses(module.model, batch)[0].mean().backward()
    found: Mapping[str, Tensor] = training.gradients_of(module)
    return found


def test_the_bins_hold_several_examples_of_different_lengths(
    training: ModuleType, packed: Batch
) -> None:
    lengths = [len(item.input_ids) for item in training.items()]
    assert len(set(lengths)) >= 6
    assert [len(members) for members in BINS] == [4, 0, 4]
    assert len(packed.input_ids) == 3
    assert (packed.examples[1] == -1).all()


def test_losses_and_gradients_equal_the_unpacked_ones(
    training: ModuleType, module: Any, packed: Batch, unpacked: Batch
) -> None:
    error = largest_error(by_position(module, packed), by_position(module, unpacked))
    wanted = gradients(training, module, unpacked)
    assert all("lora" in name for name in wanted)
    steep = training.relative_error(gradients(training, module, packed), wanted)
    print(f"relative error of losses {error:.1e}, of gradients {steep:.1e}")
    assert error < TOLERANCE
    assert steep < TOLERANCE


@pytest.mark.parametrize("wrong", [with_mask, with_cache])
def test_an_attention_mask_or_a_cache_would_break_both(
    training: ModuleType,
    module: Any,
    packed: Batch,
    unpacked: Batch,
    wrong: Callable[[Any, Batch], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted, slopes = by_position(module, unpacked), gradients(training, module, unpacked)
    monkeypatch.setattr(loss, "causal_inputs", wrong)
    # Unpacked batches would not tell.
    assert largest_error(by_position(module, unpacked), wanted) < TOLERANCE
    error = largest_error(by_position(module, packed), wanted)
    steep = training.relative_error(gradients(training, module, packed), slopes)
    print(f"{wrong.__name__}: relative error of losses {error:.1e}, of gradients {steep:.1e}")
    assert error > BROKEN
    assert steep > BROKEN


@pytest.mark.parametrize("changed", range(4))
def test_other_tokens_in_one_example_change_no_other(
    training: ModuleType, module: Any, changed: int
) -> None:
    items: list[Item] = [training.items()[number] for number in BINS[0]]
    before = by_position(module, collate([items], ("task", "general")))
    item = items[changed]
    other = item._replace(input_ids=[(token + 17) % 96 for token in item.input_ids])
    items[changed] = other
    after = by_position(module, collate([items], ("task", "general")))
    own = item.position
    assert largest_error({own: after[own]}, {own: before[own]}) > BROKEN
    del before[own], after[own]
    assert largest_error(after, before) < TOLERANCE


def test_a_batch_of_empty_bins_has_a_loss_of_zero_and_no_gradient(module: Any) -> None:
    losses, examples = token_losses(module.model, collate([[], []]))
    assert len(losses) == len(examples) == 0
    losses.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())


@pytest.fixture
def packed_data(training: ModuleType) -> Callable[..., Any]:
    """A data module that delivers micro-batches of bins."""

    def make(*micro_batches: tuple[tuple[int, ...], ...]) -> Any:
        items = training.items()
        batches = [
            collate([[items[number] for number in members] for members in bins], training.NAMES)
            for bins in micro_batches
        ]

        class Packed(training.Data):  # type: ignore[name-defined, misc]
            def train_dataloader(self) -> Any:
                return training.Batches(*batches)

        return Packed(1)

    return make


def test_a_training_step_on_bins_equals_one_on_examples(
    training: ModuleType, llama_folder: Path, packed_data: Callable[..., Any]
) -> None:
    examples = training.fit(llama_folder, micro_batch=2, accumulate=4)
    # Micro-batches of unequal bins and one of nothing else than padding.
    data = packed_data((BINS[0], ()), (BINS[2][:1], BINS[2][1:]), ((), ()))
    bins = training.fit(llama_folder, micro_batch=2, accumulate=3, data=data)
    error = training.relative_error(bins.gradients[0], examples.gradients[0])
    print(f"relative error of the gradients of a step {error:.1e}")
    assert error < TOLERANCE
    assert bins.logged[0] == pytest.approx(examples.logged[0], rel=1e-5)
    assert bins.logged[0]["train/examples/task"] == 4
