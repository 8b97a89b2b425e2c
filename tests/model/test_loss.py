"""The loss of the judged positions alone is the loss of the full logits."""

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BloomConfig, BloomForCausalLM, PreTrainedModel

from tell_lightning.data.batches import IGNORE, PADDING, Batch, Item, collate, collate_unpacked
from tell_lightning.model.lora import add_adapters
from tell_lightning.model.loss import sums_by_source, takes_positions, token_losses
from tell_lightning.model.settings import LoraSettings


@pytest.fixture(params=["untied", "tied", "softcapped"])
def model(
    request: pytest.FixtureRequest,
    make_llama: Callable[..., PreTrainedModel],
    make_gemma: Callable[[], PreTrainedModel],
) -> PreTrainedModel:
    if request.param == "softcapped":
        return make_gemma()
    return make_llama(tied=request.param == "tied")


@pytest.fixture
def batch(training: ModuleType) -> Batch:
    """Eight padded examples; one has labels on its first token and with a gap, one has none."""
    batch: Batch = training.batch_of(range(8))
    labels = batch.labels.clone()
    labels[0, 0] = batch.input_ids[0, 0]  # nothing precedes it, so nothing predicts it
    labels[3, 9:12] = IGNORE
    labels[4] = IGNORE
    return batch._replace(labels=labels)


def mask_of(batch: Batch) -> Tensor:
    """The attention mask of the textbook: 1 on tokens, 0 on padding."""
    return (batch.examples >= 0).long()


def full_losses(model: Any, batch: Batch) -> Tensor:
    """The textbook form: all logits, shifted."""
    logits = model(input_ids=batch.input_ids, attention_mask=mask_of(batch)).logits
    labels = batch.labels[:, 1:]
    losses = functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels, reduction="none", ignore_index=IGNORE
    )
    return losses[labels != IGNORE]


def test_equals_the_cross_entropy_of_the_full_logits(model: PreTrainedModel, batch: Batch) -> None:
    losses, _ = token_losses(model, batch)
    torch.testing.assert_close(losses, full_losses(model, batch), rtol=1e-5, atol=1e-5)


def test_equals_the_loss_of_transformers(model: PreTrainedModel, batch: Batch) -> None:
    losses, _ = token_losses(model, batch)
    theirs = model(
        input_ids=batch.input_ids, attention_mask=mask_of(batch), labels=batch.labels
    ).loss
    torch.testing.assert_close(losses.mean(), theirs, rtol=1e-5, atol=1e-6)


def test_gradients_equal_those_of_the_full_logits(model: PreTrainedModel, batch: Batch) -> None:
    parameters = list(model.parameters())
    ours = torch.autograd.grad(token_losses(model, batch)[0].sum(), parameters)
    theirs = torch.autograd.grad(full_losses(model, batch).sum(), parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_names_the_example_of_every_token(model: PreTrainedModel, batch: Batch) -> None:
    _, examples = token_losses(model, batch)
    counts = (batch.labels[:, 1:] != IGNORE).sum(1)
    assert examples.tolist() == [row for row, n in enumerate(counts.tolist()) for _ in range(n)]


def test_the_output_layer_sees_the_judged_positions_alone(
    model: PreTrainedModel, batch: Batch
) -> None:
    shapes = []
    head = model.get_output_embeddings()
    with head.register_forward_hook(
        lambda _, inputs, output: shapes.append((inputs[0].shape, output.shape))
    ):
        losses, _ = token_losses(model, batch)
    judged = int((batch.labels[:, 1:] != IGNORE).sum())
    assert len(losses) == judged
    assert shapes == [((judged, 32), (judged, 96))]


def test_logits_are_judged_in_float32(
    make_llama: Callable[..., PreTrainedModel], batch: Batch
) -> None:
    losses, _ = token_losses(make_llama().to(torch.bfloat16), batch)
    assert losses.dtype == torch.float32


@pytest.mark.parametrize("extra", [1, 7])
def test_right_padding_changes_no_value(
    model: PreTrainedModel, training: ModuleType, extra: int
) -> None:
    for item in training.items():
        alone = collate_unpacked([item], training.NAMES)
        length = alone.input_ids.shape[1]
        padded = alone._replace(
            input_ids=functional.pad(alone.input_ids, (0, extra), value=9),
            labels=functional.pad(alone.labels, (0, extra), value=IGNORE),
            position_ids=torch.arange(length + extra)[None],
            examples=functional.pad(alone.examples, (0, extra), value=PADDING),
        )
        torch.testing.assert_close(
            token_losses(model, padded)[0], token_losses(model, alone)[0], rtol=1e-5, atol=1e-5
        )


def test_what_follows_the_last_label_has_no_gradient(
    model: PreTrainedModel, training: ModuleType
) -> None:
    item: Item = training.items()[3]
    supervised = [6 <= place < 10 for place in range(len(item.input_ids))]
    seen = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        seen.append(output.requires_grad_())
        output.retain_grad()

    with model.get_input_embeddings().register_forward_hook(keep):
        token_losses(
            model, collate_unpacked([item._replace(supervised=supervised)], training.NAMES)
        )[0].sum().backward()
    assert seen[0].grad is not None
    by_position = seen[0].grad[0].abs().sum(-1)
    assert (by_position[:9] > 0).all()  # token 8 predicts token 9, the last label
    assert (by_position[9:] == 0).all()


def test_an_example_without_labels_adds_no_gradient(
    model: PreTrainedModel, training: ModuleType
) -> None:
    with_labels, without = training.items()[2:4]
    without = without._replace(supervised=[False] * len(without.input_ids))
    parameters = list(model.parameters())
    alone = torch.autograd.grad(
        token_losses(model, collate_unpacked([with_labels], training.NAMES))[0].sum(), parameters
    )
    both = torch.autograd.grad(
        token_losses(model, collate_unpacked([with_labels, without], training.NAMES))[0].sum(),
        parameters,
    )
    for mine, other in zip(both, alone, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_a_batch_without_labels_has_a_loss_of_zero(
    model: PreTrainedModel, training: ModuleType
) -> None:
    batch = training.batch_of([0, 1])
    losses, examples = token_losses(model, batch._replace(labels=batch.labels.fill_(IGNORE)))
    assert len(losses) == len(examples) == 0
    losses.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("packed", [False, True])
def test_the_one_row_that_flash_attention_needs_has_the_same_losses(
    make_llama: Callable[..., PreTrainedModel], training: ModuleType, packed: bool
) -> None:
    items = training.items()
    batch = (
        collate([items[:3], [], items[3:]], training.NAMES)
        if packed
        else collate_unpacked(items, training.NAMES)
    )
    model = make_llama()
    wanted, examples = token_losses(model, batch)
    shapes = []
    # The layers keep the configuration that they were made with, and so their attention.
    model.config = copy.deepcopy(model.config)
    model.config._attn_implementation_internal = "flash_attention_2"
    assert model.model.config._attn_implementation == "sdpa"
    model.model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(given["input_ids"].shape), with_kwargs=True
    )
    found, same = token_losses(model, batch)
    assert shapes == [(1, batch.input_ids.numel())]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(same, examples)


def test_a_model_that_takes_no_positions_reads_unpacked_batches(training: ModuleType) -> None:
    torch.manual_seed(7)
    config = BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    model = BloomForCausalLM(config).eval()
    assert not takes_positions(model)
    losses, _ = token_losses(model, training.batch_of(range(8)))
    alone = [
        token_losses(model, collate_unpacked([item], training.NAMES))[0]
        for item in training.items()
    ]
    torch.testing.assert_close(losses, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_adapters_do_not_hide_that_a_model_takes_positions(
    make_llama: Callable[..., PreTrainedModel],
) -> None:
    assert takes_positions(make_llama())
    assert takes_positions(add_adapters(make_llama(), LoraSettings(), seed=0))


def test_leaves_no_hook_behind(model: PreTrainedModel, batch: Batch) -> None:
    token_losses(model, batch)
    assert not model.get_output_embeddings()._forward_pre_hooks
    with pytest.raises(IndexError):
        token_losses(model, batch._replace(input_ids=batch.input_ids + 1000))
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_sums_by_source(training: ModuleType) -> None:
    items = [
        Item([5, 6, 7, 8], [True] * 4, source=2, row=0, position=0),
        Item([5, 6], [False] * 2, source=0, row=0, position=1),
        Item([5, 6], [False, True], source=0, row=1, position=2),
    ]
    batch = collate([items[:2], items[2:]], ["a", "b", "c"])
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    sums = sums_by_source(losses, batch)
    # The second example has no supervised token.
    assert sums.tolist() == [[8, 1, 1], [0, 0, 0], [7, 3, 1]]
    assert not sums.requires_grad
