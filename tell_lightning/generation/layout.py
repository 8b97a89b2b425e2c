"""Find out once, before a model generates, whether its answers depend on the batch.

Padding on the left, a prefix that is read once, and a cache change no answer of most models. But
recurrent layers read the padding, and some attention counts positions wrongly behind a prefix; no
error says so. So a few prompts of random tokens are tried out, with given tokens as their answers:

    reference   A A A Q Q r r r        one pass over each prompt with its answer, without a cache
    layout      A A A . Q | r r r      `generate` in this layout must see the same logits
                A A A Q Q | r r r

The fastest layout without a difference is used from then on. The check takes about ten short
passes.
"""

import logging
from collections.abc import Sequence
from enum import IntEnum
from math import inf
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor
from transformers import GenerationConfig

from tell_lightning.errors import TellError
from tell_lightning.generation.one_batch import new_tokens
from tell_lightning.generation.prefix import SHORTEST, Prefix
from tell_lightning.memory import is_out_of_memory
from tell_lightning.model.base import fork_rng, unwrapped
from tell_lightning.model.isolation import random_tokens

logger = logging.getLogger(__name__)

LENGTHS = (1, 9, 9)
"""Tokens of the prompts after their common prefix: unequal ones, and two of one length."""
STEPS = 5
"""Tokens of each answer; from the second on, the cache is read."""
LARGEST = {torch.float32: 0.01, torch.bfloat16: 0.1, torch.float16: 0.1}
"""Largest change of the logits, relative to their spread, by the type that a model computes in.
Rounding changes them by 2e-6 in float32 and 0.03 in bfloat16, a wrong layout by 0.15 or more."""


class GenerationError(TellError):
    """A model, prompts or limits that do not allow generation, or too little memory."""


class Layout(IntEnum):
    """How prompts are answered, the slowest first. Each is the one before it and something more."""

    UNCACHED = 0
    """One by one, each token by a pass over all tokens before it."""
    ALONE = 1
    """One by one, with a cache."""
    EQUAL = 2
    """Prompts of the same length share a batch."""
    PADDED = 3
    """Prompts of any length share a batch, padded on the left."""
    PREFIX = 4
    """What all prompts begin with is read once."""


MEANS = {
    Layout.UNCACHED: "one by one and without a cache, which is slow",
    Layout.ALONE: "one by one",
    Layout.EQUAL: "in batches of prompts of the same length",
    Layout.PADDED: "without a shared prefix",
}
"""How a message names a layout that is not the fastest."""

_found: WeakKeyDictionary[nn.Module, Layout] = WeakKeyDictionary()


def layout_of(model: Any) -> Layout:
    """Return the fastest layout in which a model gives each prompt the answer of its own.

    The first call for a model tries it out and, if it is not the fastest one there is, says so.

    Args:
        model: A causal LM in eval mode, bare or wrapped by PEFT, on its device. If it is sharded,
            every rank must call this.

    Raises:
        GenerationError: The forward pass of the model fails.
    """
    base = unwrapped(model)
    if base not in _found:
        with fork_rng():
            _found[base] = _try_out(model)
        if (layout := _found[base]) in MEANS:
            logger.warning(
                "%s answers prompts %s: in a trial before generation, its answers depended on the "
                "other prompts of a batch or on what is kept of earlier tokens",
                type(base).__name__,
                MEANS[layout],
            )
    return _found[base]


def _try_out(model: Any) -> Layout:
    first, *tails, answer = random_tokens(model, (SHORTEST, *LENGTHS, STEPS))
    try:
        plain = _Trial(model, tails, answer)
        with_prefix = _Trial(model, [[*first, *tail] for tail in tails], answer)
    except Exception as error:  # whatever a stranger's model may raise
        if is_out_of_memory(error):
            raise
        raise GenerationError(
            "model.base: must be a model whose forward pass takes token ids alone, got "
            f"{type(unwrapped(model)).__name__}, which fails with {type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}. Choose another base."
        ) from error
    if not with_prefix.is_finite:
        return Layout.PREFIX  # nothing can be compared
    layouts = (Layout.PADDED, Layout.EQUAL, Layout.ALONE)
    layout = next((layout for layout in layouts if plain.accepts(layout)), Layout.UNCACHED)
    fastest = layout == Layout.PADDED and with_prefix.accepts(Layout.PREFIX)
    return Layout.PREFIX if fastest else layout


class _Trial:
    """Prompts with given answers, and the logits that the model has for these."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], answer: Sequence[int]) -> None:
        self.model, self.prompts, self.answer = model, prompts, answer
        self.wanted = [self._reference(prompt) for prompt in prompts]

    def _reference(self, prompt: Sequence[int]) -> Tensor:
        """Return the logits of each token of the answer [STEPS, V], of one pass without a cache."""
        ids = torch.tensor([[*prompt, *self.answer[:-1]]], device=self.model.device)
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits[0, len(prompt) - 1 :]

    @property
    def is_finite(self) -> bool:
        """Whether the logits are numbers."""
        return all(bool(logits.isfinite().all()) for logits in self.wanted)

    def accepts(self, layout: Layout) -> bool:
        """Say whether the logits are the same in a layout; all ranks of a sharded model agree."""
        try:
            change = self._change(layout)
        except Exception as error:  # a cache or a mask that the model cannot take
            if is_out_of_memory(error):
                raise
            change = inf
        if is_sharded(self.model):
            largest = torch.tensor(change, device=self.model.device)
            distributed.all_reduce(largest, distributed.ReduceOp.MAX)
            change = float(largest)
        kind = torch.device(self.model.device).type
        autocast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if autocast else self.model.dtype
        return change <= LARGEST.get(dtype, LARGEST[torch.float32])

    def _change(self, layout: Layout) -> float:
        """Return the largest change of the logits of a prompt, divided by their spread.

        Of the steps of an answer the median counts: in one of them, rounding may choose another
        expert.
        """
        cache = None
        if layout == Layout.PREFIX:
            prefix = Prefix()
            prefix.add(self.prompts)
            cache = prefix.read(self.model)
        batches = {Layout.ALONE: [[0], [1], [2]], Layout.EQUAL: [[0], [1, 2]]}
        config = generation_config(
            max_new_tokens=len(self.answer), stop_ids=(), pad_id=self.answer[0]
        )
        changes = []
        for rows in batches.get(layout, [[0, 1, 2]]):
            forced = _Forced(self.answer)
            prompts = [self.prompts[row] for row in rows]
            new_tokens(self.model, prompts, forced, config, cache=cache)
            for row, logits in zip(rows, torch.stack(forced.logits, dim=1), strict=True):
                wanted = self.wanted[row].float()
                spread = (wanted - wanted.mean(-1, keepdim=True)).norm(dim=-1)
                changes.append(float(((logits - wanted).norm(dim=-1) / spread).median()))
        return max(changes)


class _Forced:
    """Chooses given tokens, and keeps the logits that the model had for them."""

    def __init__(self, answer: Sequence[int]) -> None:
        self.answer = answer
        self.logits: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self.answer[len(self.logits)]
        self.logits.append(scores.float())
        return torch.zeros_like(scores).index_fill(1, torch.tensor([token]).to(scores.device), 1.0)


def generation_config(
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
    min_new_tokens: int = 0,
    use_cache: bool = True,
) -> GenerationConfig:
    """Return the settings of a greedy `generate`, without the defaults of hub models."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=1,
        use_cache=use_cache,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens or None,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=pad_id,
    )


def is_sharded(model: Any) -> bool:
    """Say whether a model is sharded over processes, which then must all call it equally often."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())
