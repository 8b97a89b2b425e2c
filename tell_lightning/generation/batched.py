"""Answer many prompts in batches, with the same answers as one by one.

Prompts of similar length share a batch, padded on the left. A batch with its answers holds at most
as many tokens as its budget, which is halved if memory runs out:

    A A . . Q Q | R R R .        longest prompt + max_new_tokens wide
    A A Q Q Q Q | R . . .        A is read once for all batches (`prefix`), '.' is masked or cut
                                 off, R ends before the stop token

On a CPU, rows that have ended leave the batch (`one_batch`). Before the first answer, `layout`
finds out whether the model gives the same answers in this way; otherwise less of it is used. Each
new token of a batch takes one forward pass. Ranks may have different numbers of prompts. If the
model is sharded (FSDP2), all ranks still make the same number of forward passes.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from transformers import DynamicCache

from tell_lightning.generation.decoding import Choices, Decoding, Noted
from tell_lightning.generation.layout import (
    GenerationError,
    Layout,
    generation_config,
    is_sharded,
    layout_of,
)
from tell_lightning.generation.one_batch import in_rounds, new_tokens
from tell_lightning.generation.prefix import Prefix, keeps_everything
from tell_lightning.memory import is_out_of_memory
from tell_lightning.model.evaluating import evaluating

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass
class Budget:
    """Most tokens of a batch: prompts, padding and answers.

    Halved if memory runs out. Calls share one budget, so memory runs out only once.
    """

    tokens: int


@dataclass(frozen=True)
class Generated:
    """One answer."""

    text: str
    """The decoded answer, special tokens skipped, white space as generated."""
    token_ids: tuple[int, ...]
    """The new tokens before the first stop token."""
    stopped: bool
    """Whether a stop token ended the answer; else it reached `max_new_tokens`."""
    logprob: float
    """Log-probability of the tokens in nats, the stop token included."""
    near_ties: int
    """Tokens, the stop token included, that rounding may have decided (`NEAR_TIE`)."""


def generate(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    budget: Budget,
    prefix: Prefix | None = None,
    seeds: Sequence[int] | None = None,
    answered: Callable[[int], None] | None = None,
) -> list[Generated]:
    """Answer prompts.

    The model runs in eval mode, without gradients and without the sampling and penalty defaults of
    hub models. Afterwards each of its modules has its old mode again.

    Args:
        model: A causal language model; it stays on its device and in its precision.
        tokenizer: Decodes the answers; it is not changed.
        prompts: Token ids of each prompt, not padded; at least one id each.
        decoding: When answers end and how tokens are chosen.
        budget: Most tokens of a batch; a longer prompt is answered alone.
        prefix: The common prefix of the prompts (`Prefix.add`); None: prompts are read from their
            start.
        seeds: A seed for each prompt, for draws; None: nothing is drawn.
        answered: Called after each batch with its number of prompts.

    Returns:
        An answer for each prompt, in the same order.

    Raises:
        GenerationError: A prompt has no tokens, there is no stop token, the limits contradict each
            other, or a single prompt does not fit into memory.
    """
    _check(prompts, decoding)
    answers: dict[int, Generated] = {}
    # Parameters that FSDP2 gathers in inference mode cannot be trained afterwards.
    no_gradients = torch.no_grad() if is_sharded(model) else torch.inference_mode()
    with evaluating(model), no_gradients:
        batches = _Batches(
            model, prompts, decoding, prefix or Prefix(), seeds or [0] * len(prompts)
        )
        for rows, new_ids, noted in batches.answer(budget):
            for row, ids, about in zip(rows, new_ids, noted, strict=True):
                answers[row] = _decode(tokenizer, ids, decoding, about)
            if answered is not None:
                answered(len(rows))
    return [answers[row] for row in range(len(prompts))]


class _Batches:
    """The prompts of one call, answered batch by batch."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        prefix: Prefix,
        seeds: Sequence[int],
    ) -> None:
        self.model = model
        self.prompts = prompts
        self.decoding = decoding
        self.seeds = seeds
        self.sharded = is_sharded(model)
        self.layout, self.cache = self._begin(prefix)
        self.prefix = () if self.cache is None else prefix.ids
        # A GPU takes about as long for a few rows as for all.
        self.rounds = (
            self.layout == Layout.PREFIX
            and not self.sharded
            and self.model.device.type == "cpu"
            and keeps_everything(model)
        )
        self.config = generation_config(
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens,
            stop_ids=decoding.stop_ids,
            # Any id will do: padding is masked in prompts and cut off in answers.
            pad_id=decoding.stop_ids[0],
            use_cache=self.layout > Layout.UNCACHED,
        )

    def _begin(self, prefix: Prefix) -> tuple[Layout, DynamicCache | None]:
        """Find out how the model can be asked, and read the prefix if that is possible."""
        try:
            layout = layout_of(self.model)
            return layout, prefix.read(self.model) if layout == Layout.PREFIX else None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise _no_memory(1, len(prefix.ids), self.decoding) from error

    def answer(self, budget: Budget) -> Iterator[tuple[list[int], list[list[int]], list[Noted]]]:
        """Yield for each batch its rows, their new ids up to the stop token, and their notes.

        The longest prompts come first, so a batch that does not fit in memory fails at once.
        """
        left = sorted(range(len(self.prompts)), key=lambda row: -len(self.prompts[row]))
        while self._go_on(left):
            if not left:  # another rank of a sharded model has rows left: join its passes
                self._answer([[*self.prefix, self.decoding.stop_ids[0]]], [0])
                continue
            rows = self._batch(left, budget.tokens)
            answered = self._try(rows)
            if answered is not None:
                del left[: len(rows)]
                yield rows, *answered
                continue
            budget.tokens = len(rows) * self._width(rows[0]) // 2
            logger.warning(
                "out of memory with %d prompts in a batch; going on with %s tokens, half of it: "
                "set eval.batch_tokens to that",
                len(rows),
                f"{budget.tokens:,}",
            )

    def _batch(self, left: Sequence[int], tokens: int) -> list[int]:
        """Return the next rows to answer together, of those left, the longest first."""
        most = max(1, tokens // self._width(left[0])) if self.layout >= Layout.EQUAL else 1
        rows = list(left[:most])
        if self.layout >= Layout.PADDED:
            return rows
        return [row for row in rows if self._width(row) == self._width(left[0])]

    def _go_on(self, left: Sequence[int]) -> bool:
        """Say whether a row is left: here, or on any rank of a sharded model."""
        if not self.sharded:
            return bool(left)
        rows = torch.tensor(len(left), device=self.model.device)
        distributed.all_reduce(rows, distributed.ReduceOp.MAX)
        return bool(rows)

    def _width(self, row: int) -> int:
        return len(self.prompts[row]) + self.decoding.max_new_tokens

    def _try(self, rows: Sequence[int]) -> tuple[list[list[int]], list[Noted]] | None:
        """Answer a batch; None if memory ran out, and a smaller batch may fit.

        Raises:
            GenerationError: There is no memory for a single row, or for a batch of a sharded model,
                where one rank cannot retry alone.
        """
        try:
            return self._answer([self.prompts[row] for row in rows], [self.seeds[r] for r in rows])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1 or self.sharded:
                width = self._width(rows[0])
                raise _no_memory(len(rows), width, self.decoding) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _answer(
        self, batch: Sequence[Sequence[int]], seeds: Sequence[int]
    ) -> tuple[list[list[int]], list[Noted]]:
        how = self.decoding
        choices = Choices(seeds, how.temperature, self.model.dtype, how.top_p)
        if self.rounds:
            new_ids = in_rounds(self.model, batch, choices, self.config, cache=self.cache)
        else:
            options = {"synced_gpus": True} if self.sharded else {}
            new_ids = new_tokens(
                self.model, batch, choices, self.config, cache=self.cache, **options
            )
        ended = [_through_stop(ids, self.decoding.stop_ids) for ids in new_ids]
        return ended, choices.noted([len(ids) for ids in ended])


def _through_stop(new_ids: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    """Cut off the padding after the first stop token."""
    ends = (place for place, token in enumerate(new_ids) if token in stop_ids)
    return list(new_ids[: next(ends, len(new_ids)) + 1])


def _decode(
    tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], decoding: Decoding, noted: Noted
) -> Generated:
    stopped = ids[-1] in decoding.stop_ids
    kept = list(ids[:-1] if stopped else ids)
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return Generated(text, tuple(kept), stopped, noted.logprob, noted.near_ties)


def _no_memory(rows: int, width: int, decoding: Decoding) -> GenerationError:
    cure = f"the task's max_new_tokens (now {decoding.max_new_tokens})"
    return GenerationError(
        f"eval.batch_tokens: must leave memory to generate in, got none left for {rows} prompt(s) "
        f"with {width} tokens each, answers included. "
        + (f"Lower {cure}." if rows == 1 else f"Lower it to {rows * width // 2}, or {cure}.")
    )


def _check(prompts: Sequence[Sequence[int]], decoding: Decoding) -> None:
    empty = [row for row, prompt in enumerate(prompts) if not prompt]
    if empty:
        raise GenerationError(
            f"prompts: each needs one token or more, got none in prompt {empty[0]} (from 0). "
            "Check the template and the row."
        )
    if not decoding.stop_ids:
        raise GenerationError(
            "stop_ids: generation needs one stop token or more, got none. "
            "Use a tokenizer that has an end-of-text or end-of-turn token."
        )
    if decoding.max_new_tokens < 1:
        raise GenerationError(
            f"max_new_tokens: must be 1 or more, got {decoding.max_new_tokens}. Set a larger cap."
        )
    if not 0 <= decoding.min_new_tokens <= decoding.max_new_tokens:
        raise GenerationError(
            f"min_new_tokens: must be 0 to max_new_tokens ({decoding.max_new_tokens}), got "
            f"{decoding.min_new_tokens}. Lower it."
        )
