"""Check once, before packed training, that examples in one row do not see each other.

transformers separates examples by restarting positions, but not in every model: recurrent layers,
convolutions and a model's own attention cross the border silently. So a pair of examples is tried:

    packed    a a a a b b b      the logits of b must be the same in all three rows
    other     c c c c b b b
    alone             b b b

A change is measured relative to the change when positions do not restart, and b sees a. The check
takes five short forward passes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tell_lightning.data.batches import Item, collate, indexed
from tell_lightning.errors import TellError
from tell_lightning.model.base import fork_rng, unwrapped
from tell_lightning.model.evaluating import evaluating
from tell_lightning.model.loss import causal_inputs, takes_positions

LENGTHS = (23, 23, 17)  # no multiples of a size into which a layer may divide its input
SEEN = 0.05
"""Largest relative change with another neighbour. If examples are separate it is 0, also in
bfloat16, because the two passes differ in nothing else. The smallest leak measured was 0.2."""
MOVED = 0.5
"""Largest relative change from the example alone. That pass has another shape, so it rounds
differently, and in bfloat16 may choose another expert: 0.14 was measured without a leak."""


class IsolationError(TellError):
    """A model that cannot be trained on packed examples."""


def check_isolation(model: Any) -> None:
    """Check that the logits of an example do not depend on its neighbour.

    The modes of the layers and the state of the random generators stay unchanged.

    Args:
        model: A causal LM, bare or wrapped by PEFT, on its device.

    Raises:
        IsolationError: The logits change, or the model takes no positions.
    """
    name = type(unwrapped(model)).__name__
    if not takes_positions(model):
        raise IsolationError(
            "data.packing: needs a model whose forward takes position_ids, which tell it where an "
            f"example begins, got {name}, which takes none. Set data.packing: false."
        )
    with evaluating(model), fork_rng():
        seen, moved = contamination(model)
    if not (seen <= SEEN and moved <= MOVED):  # also refuses NaN
        raise IsolationError(
            "data.packing: needs a model in which an example has the logits that it has alone, "
            f"whatever is before it in its row, got {name} with "
            f"{model.config._attn_implementation} attention: another neighbour makes {seen:.0%} "
            f"of the change that it would make without a border, any neighbour {moved:.0%}. "
            "Set data.packing: false."
        )


@torch.no_grad()
def contamination(model: Any) -> tuple[float, float]:
    """Measure how much the logits of an example depend on the example before it in its row.

    Returns:
        The change with another neighbour, and the change from the example alone. Both are divided
        by the same change in rows whose positions do not restart: 0 to about 1.
    """
    first, other, item = (
        Item(ids, [True] * len(ids), source=0, row=row, position=row)
        for row, ids in enumerate(random_tokens(model, LENGTHS))
    )

    def logits(*members: Item, restart: bool = True) -> Tensor:
        """Return the logits of the last example, [T, vocabulary] in float32."""
        batch = collate([members])
        positions = batch.position_ids
        if not restart:
            positions = torch.arange(positions.shape[1])[None]
        batch = indexed(batch._replace(position_ids=positions, packed=True))
        assert batch.borders is not None
        device = model.get_input_embeddings().weight.device
        batch = batch._replace(
            input_ids=batch.input_ids.to(device),
            position_ids=positions.to(device),
            borders=batch.borders.to(device),
        )
        values: Tensor = model(**causal_inputs(model, batch)).logits
        return values[0, -len(item.input_ids) :].float()

    alone, packed, free = logits(item), logits(first, item), logits(first, item, restart=False)
    seen = (packed - logits(other, item)).norm()
    seen_freely = (free - logits(other, item, restart=False)).norm()
    return float(seen / seen_freely), float((packed - alone).norm() / (free - alone).norm())


def random_tokens(model: Any, lengths: Sequence[int]) -> list[list[int]]:
    """Draw lists of random token ids of these lengths, the same in every process."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocabulary, (size,), generator=generator).tolist() for size in lengths]
