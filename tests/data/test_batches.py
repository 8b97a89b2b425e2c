"""Padding: on the right, without weight; labels where a token is supervised and nowhere else."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data.batches import IGNORE, Item, collate

rows = st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=1, max_size=12).map(
    lambda pairs: ([token for token, _ in pairs], [flag for _, flag in pairs])
)


def test_the_example_of_the_module() -> None:
    # Token 0 is a token like any other: its label is kept, that of the padding is not there.
    batch = collate(
        [
            Item([7, 9, 4, 8, 2], [False, False, True, True, True], 0, 18),
            Item([7, 5, 3, 0], [False, False, True, True], 2, 19),
        ]
    )
    assert batch.input_ids.tolist() == [[7, 9, 4, 8, 2], [7, 5, 3, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch.labels.tolist() == [
        [IGNORE, IGNORE, 4, 8, 2],
        [IGNORE, IGNORE, 3, 0, IGNORE],
    ]
    assert batch.sources.tolist() == [0, 2]
    assert batch.positions.tolist() == [18, 19]
    assert {tensor.dtype for tensor in batch} == {torch.int64}


@settings(derandomize=True, max_examples=60)
@given(st.lists(rows, min_size=1, max_size=6))
def test_items_can_be_read_back_and_padding_carries_nothing(
    items: list[tuple[list[int], list[bool]]],
) -> None:
    batch = collate([Item(ids, flags, n, n + 5) for n, (ids, flags) in enumerate(items)])
    longest = max(len(ids) for ids, _ in items)
    assert batch.input_ids.shape == batch.labels.shape == (len(items), longest)
    for index, (ids, flags) in enumerate(items):
        size = len(ids)
        assert batch.input_ids[index, :size].tolist() == ids
        assert batch.attention_mask[index].tolist() == [1] * size + [0] * (longest - size)
        wanted = [token if flag else IGNORE for token, flag in zip(ids, flags, strict=True)]
        assert batch.labels[index].tolist() == wanted + [IGNORE] * (longest - size)


def test_rows_of_no_weight_have_no_label() -> None:
    batch = collate([Item([5, 6], [False, False], 0, 0)])
    assert batch.labels.tolist() == [[IGNORE, IGNORE]]
