"""Whether a model keeps examples that share a row apart. Asked once, before packed training.

Enters: the model that is to be trained, on its device. Leaves: nothing, or an error. transformers
separates examples where positions restart, but not in every model: recurrent layers, convolutions
and attention of a model's own go on over the border and say nothing. So a pair is tried out.

    positions 0 1 2 3 0 1 2      the logits of b must be those of    c c c c b b b    and those of
    packed    a a a a b b b      b b b alone

What a change of them is measured by: what it is when the positions go on counting, so that b sees
a. Costs five forward passes of some tokens.
"""

from typing import Any

import torch
from torch import Tensor

from tell_lightning.data.batches import Batch, Item, collate
from tell_lightning.errors import TellError
from tell_lightning.model.loss import causal_inputs, takes_positions

LENGTHS = (23, 23, 17)  # no multiples of anything that a layer may cut its input into
SEEN = 0.05
"""The change with the neighbour may be this share of that of a free view. Where examples are
apart it is none, in bfloat16 too, for the passes differ in nothing else; the least leak seen was
0.2."""
MOVED = 0.5
"""The change from the logits alone may be this share: that one has other shapes, so it is rounded
otherwise, and in bfloat16 an expert may be chosen otherwise, which was seen to make 0.14."""


class IsolationError(TellError):
    """A model that cannot be trained on packed examples."""


def check_isolation(model: Any) -> None:
    """Try out whether an example has the logits that it has alone, whatever is before it.

    The modes of the layers and the state of the random generators are left as they were.

    Args:
        model: A causal LM, bare or wrapped by PEFT.

    Raises:
        IsolationError: It has not, or the model takes no positions.
    """
    name = type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__
    if not takes_positions(model):
        raise IsolationError(
            "data.packing: needs a model whose forward takes position_ids, which tell it where an "
            f"example begins, got {name}, which takes none. Set data.packing: false."
        )
    modes = {module: module.training for module in model.modules()}
    cuda: Any = torch.cuda
    devices = [cuda.current_device()] if cuda.is_initialized() else []
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices):
            seen, moved = contamination(model)
    finally:
        for module, training in modes.items():
            module.training = training
    if not (seen <= SEEN and moved <= MOVED):  # not a number is no success
        raise IsolationError(
            "data.packing: needs a model in which an example has the logits that it has alone, "
            f"whatever is before it in its row, got {name} with "
            f"{model.config._attn_implementation} attention: another neighbour makes {seen:.0%} "
            f"of the change that it would make without a border, any neighbour {moved:.0%}. "
            "Set data.packing: false."
        )


@torch.no_grad()
def contamination(model: Any) -> tuple[float, float]:
    """Measure how much the logits of an example change with what is before it in its row.

    Returns:
        The change when the neighbour is another, and the change from the logits alone; both over
        the same change in rows whose positions do not restart. 0 to about 1.
    """
    first, other, item = _examples(model)
    tokens = len(item.input_ids)

    def logits(*members: Item, restart: bool = True) -> Tensor:
        batch = collate([members])
        if not restart:
            batch = batch._replace(position_ids=torch.arange(batch.input_ids.shape[1])[None])
        return _logits(model, batch)[-tokens:]

    alone, packed, free = logits(item), logits(first, item), logits(first, item, restart=False)
    seen = (packed - logits(other, item)).norm()
    seen_freely = (free - logits(other, item, restart=False)).norm()
    return float(seen / seen_freely), float((packed - alone).norm() / (free - alone).norm())


def _examples(model: Any) -> list[Item]:
    """Make three examples of random tokens, the same in every process."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(vocabulary, (size,), generator=generator) for size in LENGTHS]
    return [
        Item(ids.tolist(), [True] * len(ids), source=0, row=row, position=row)
        for row, ids in enumerate(tokens)
    ]


def _logits(model: Any, batch: Batch) -> Tensor:
    """Return the logits of a batch of one row, [T, vocabulary] in float32."""
    device = model.get_input_embeddings().weight.device
    moved: list[Any] = [values.to(device) for values in batch if isinstance(values, Tensor)]
    batch = Batch(*moved)
    logits: Tensor = model(**causal_inputs(model, batch)).logits
    return logits[0].float()
