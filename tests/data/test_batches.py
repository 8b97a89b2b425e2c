"""Collating: what goes in can be read back; padding carries nothing; examples restart."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data.batches import (
    IGNORE,
    PADDING,
    BatchError,
    Item,
    collate,
    collate_unpacked,
)

NAMES = [f"source {n}" for n in range(100)]

rows = st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=1, max_size=12).map(
    lambda pairs: ([token for token, _ in pairs], [flag for _, flag in pairs])
)


def test_the_example_of_the_module() -> None:
    # Token 0 is a token like any other: its label is kept, that of the padding is not there.
    first = Item([7, 9, 4], [False, True, True], 0, 6, 18)
    second = Item([7, 8], [True, True], 2, 0, 19)  # its first token has none to predict it
    third = Item([7, 5, 3, 0], [False, False, True, True], 1, 4, 20)
    batch = collate([[first, second], [third], []], NAMES)
    assert batch.input_ids.tolist() == [[7, 9, 4, 7, 8], [7, 5, 3, 0, 0], [0] * 5]
    assert batch.labels.tolist() == [
        [IGNORE, 9, 4, IGNORE, 8],
        [IGNORE, IGNORE, 3, 0, IGNORE],
        [IGNORE] * 5,
    ]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert batch.examples.tolist() == [[0, 0, 0, 1, 1], [2, 2, 2, 2, PADDING], [PADDING] * 5]
    assert batch.sources.tolist() == [0, 2, 1]
    assert batch.rows.tolist() == [6, 0, 4]
    assert batch.positions.tolist() == [18, 19, 20]
    assert {tensor.dtype for tensor in batch[:7]} == {torch.int64}


@settings(derandomize=True, max_examples=100)
@given(st.lists(st.lists(rows, max_size=5), min_size=1, max_size=5))
def test_items_can_be_read_back_and_padding_carries_nothing(
    bins: list[list[tuple[list[int], list[bool]]]],
) -> None:
    numbers = iter(range(100))
    items = [
        [Item(ids, flags, n := next(numbers), n + 7, n + 5) for ids, flags in members]
        for members in bins
    ]
    batch = collate(items, NAMES)
    every = [(where, item) for where, members in enumerate(items) for item in members]
    sizes = [sum(len(ids) for ids, _ in members) for members in bins]
    assert batch.input_ids.shape == (len(bins), max(2, *sizes))
    for number, (row, item) in enumerate(every):
        mine = batch.examples == number
        assert mine.any(1).nonzero().flatten().tolist() == [row]
        assert batch.input_ids[mine].tolist() == item.input_ids
        assert batch.position_ids[mine].tolist() == list(range(len(item.input_ids)))
        pairs = zip(item.input_ids, item.supervised, strict=True)
        wanted = [token if flag else IGNORE for token, flag in pairs]
        assert batch.labels[mine].tolist() == [IGNORE, *wanted[1:]]
    padding = batch.examples == PADDING
    assert padding.sum(1).tolist() == [max(2, *sizes) - size for size in sizes]
    assert (batch.labels[padding] == IGNORE).all()
    origins = [batch.sources.tolist(), batch.rows.tolist(), batch.positions.tolist()]
    assert origins == [[getattr(i, name) for _, i in every] for name in Item._fields[2:]]
    # A restart stands where an example begins, and nowhere else: not where its padding does.
    restarts = (torch.diff(batch.position_ids) != 1).sum(1).tolist()
    assert restarts == [max(0, len(members) - 1) for members in bins]


def test_a_bin_for_each_example_is_an_unpacked_batch() -> None:
    items = [Item([5, 6, 7], [False, True, True], 0, 0, 0), Item([5, 6], [False, True], 0, 1, 1)]
    batch = collate_unpacked(items)
    for mine, wanted in zip(batch[:7], collate([[items[0]], [items[1]]])[:7], strict=True):
        assert torch.equal(mine, wanted)
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 1, 2]]  # no restart, so no block mask


def test_a_source_without_a_name_is_refused() -> None:
    item = Item([5, 6], [False, True], 1, 0, 0)
    with pytest.raises(BatchError, match=r"^collate: .* names \('data',\), got 1\. Pass"):
        collate([[item]])
    assert not collate([[item]], ["a", "b"], "dev").packed
    assert collate([[item, item]], ["a", "b"]).packed


def test_rows_of_no_weight_have_no_label() -> None:
    batch = collate([[Item([5, 6], [False, False], 0, 0, 0)]])
    assert batch.labels.tolist() == [[IGNORE, IGNORE]]


def test_nothing_but_empty_bins_is_a_batch_of_padding() -> None:
    batch = collate([[], []])
    assert batch.examples.tolist() == [[PADDING] * 2] * 2
    assert batch.labels.tolist() == [[IGNORE] * 2] * 2
    assert [len(t) for t in (batch.sources, batch.rows, batch.positions)] == [0, 0, 0]
    assert {tensor.dtype for tensor in batch[:7]} == {torch.int64}
