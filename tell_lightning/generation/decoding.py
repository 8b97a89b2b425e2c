"""How the next token is chosen, and what is noted of each choice.

The logits of a step enter; they leave as they are, or with noise that makes the best of them a
sample. One `Choices` goes with a batch: transformers calls it last, after its own processors, and
takes the largest value, so that greedy search and sampling are one loop, and a sample depends on
its row's seed and step alone, not on the batch. Kept of a step are two numbers a row, never logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NEAR_TIE = 1e-4
"""Two logits that differ by less may change places with another batch: sums round otherwise. Those
of a model in bfloat16 or float16 are rounded to more, and the last digit of the best one counts."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """When an answer ends, and whether its tokens are the best ones or drawn."""

    stop_ids: tuple[int, ...]
    """Ids that end an answer, at least one."""
    max_new_tokens: int
    """Longest answer in tokens, stop token included; at least 1."""
    min_new_tokens: int = 0
    """Tokens before an answer may end; 0 to max_new_tokens."""
    temperature: float = 0.0
    """0: greedy; above: tokens are drawn, and the logits are divided by it."""


@dataclass(frozen=True)
class Noted:
    """What is known of one answer's tokens, the stop token included."""

    logprob: float
    """Sum of the log-probabilities in nats, each among the tokens that were allowed."""
    near_ties: int
    """Tokens whose two best values differ by no more than rounding may (`NEAR_TIE`)."""


class Choices:
    """Chooses the tokens of one batch; a logits processor of transformers."""

    def __init__(
        self, seeds: Sequence[int], temperature: float, dtype: torch.dtype = torch.float32
    ) -> None:
        """Start a batch.

        Args:
            seeds: One a row, for its draws.
            temperature: As in `Decoding`.
            dtype: Type of the model's numbers; transformers makes the logits float32 from it.
        """
        self._temperature = temperature
        self._last_digit = torch.finfo(dtype).eps
        self._draws = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
        self._logprobs: list[Tensor] = []
        self._ties: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Note the choice of a step, and return values whose largest is chosen.

        Args:
            input_ids: Tokens so far [B, T].
            scores: Logits of the next token [B, V].

        Returns:
            [B, V]. Of logits with Gumbel noise the largest is a draw from their softmax.
        """
        values = scores.float()
        if self._temperature > 0:
            drawn = [torch.rand(values.shape[1], generator=draw) for draw in self._draws]
            noise = torch.stack(drawn).clamp(min=1e-30).to(values.device)
            values = values / self._temperature - torch.log(-torch.log(noise))
        best, chosen = values.topk(2, dim=-1)
        near = (scores.float().amax(-1).abs() * 2 * self._last_digit).clamp(min=NEAR_TIE)
        self._ties.append(best[:, 0] - best[:, 1] < near)
        self._logprobs.append(scores.float().log_softmax(-1).gather(1, chosen[:, :1])[:, 0])
        return values

    def noted(self, lengths: Sequence[int]) -> list[Noted]:
        """Sum up what was noted of each row.

        Args:
            lengths: Tokens of each answer, stop token included.
        """
        logprobs = torch.stack(self._logprobs, 1).double().cpu()
        ties = torch.stack(self._ties, 1).cpu()
        return [
            Noted(float(logprobs[row, :length].sum()), int(ties[row, :length].sum()))
            for row, length in enumerate(lengths)
        ]
