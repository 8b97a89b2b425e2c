"""Choose the next token, greedily or by sampling, and note how sure each choice was.

transformers always takes the largest logit. For sampling, `Choices` adds noise that makes the
largest logit a sample, so a sample only depends on the seed of its row and the step, not on the
batch. Of each step it keeps two numbers a row, no logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CANDIDATES = 256
"""Most tokens that are drawn from where `top_p` is below 1; sorting a whole vocabulary is slow."""
NEAR_TIE = 1e-4
"""Two logits that differ by less may swap ranks in another batch, which rounds sums differently. In
bfloat16 and float16 rounding is coarser: there the bound is twice the last digit of the best."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """When an answer ends, and how its tokens are chosen."""

    stop_ids: tuple[int, ...]
    """Ids that end an answer, at least one."""
    max_new_tokens: int
    """Longest answer in tokens, including the stop token; at least 1."""
    min_new_tokens: int = 0
    """Tokens before an answer may end; 0 to max_new_tokens."""
    temperature: float = 0.0
    """0: greedy; above 0: logits are divided by it and tokens are drawn."""
    top_p: float = 1.0
    """Tokens are drawn from the most probable ones that together have this share, above 0 to 1."""


@dataclass(frozen=True)
class Noted:
    """Numbers about the tokens of one answer, including the stop token."""

    logprob: float
    """Sum of the log-probabilities in nats, each over the allowed tokens."""
    near_ties: int
    """Tokens whose two best values are so close that rounding may decide (`NEAR_TIE`)."""


class Choices:
    """Chooses the tokens of one batch; a logits processor of transformers."""

    def __init__(
        self,
        seeds: Sequence[int],
        temperature: float,
        dtype: torch.dtype = torch.float32,
        top_p: float = 1.0,
    ) -> None:
        """Start a batch.

        Args:
            seeds: A seed for each row.
            temperature: As in `Decoding`.
            dtype: Type of the model's numbers; transformers converts the logits to float32.
            top_p: As in `Decoding`.
        """
        self._temperature, self._top_p = temperature, top_p
        self._last_digit = torch.finfo(dtype).eps
        self._draws = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
        self._size, self._rows = len(seeds), torch.arange(len(seeds))
        self._logprobs: list[Tensor] = []
        self._ties: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Note the choice of a step, and return the values whose largest is chosen.

        Args:
            input_ids: Tokens so far [B, T].
            scores: Logits of the next token [B, V].

        Returns:
            [B, V]. The largest of logits with Gumbel noise is a draw from their softmax.
        """
        values = scores.float()
        if self._temperature > 0 and self._top_p < 1:
            found, places = self._most_probable(values / self._temperature)
            drawn = found + self._noise(found)
            values = torch.full_like(values, -torch.inf).scatter(1, places, drawn)
        elif self._temperature > 0:
            values = values / self._temperature + self._noise(values)
        best, chosen = values.topk(2, dim=-1)
        near = (scores.float().amax(-1).abs() * 2 * self._last_digit).clamp(min=NEAR_TIE)
        self._ties.append(self._spread(best[:, 0] - best[:, 1] < near))
        logprobs = scores.float().log_softmax(-1).gather(1, chosen[:, :1])[:, 0]
        self._logprobs.append(self._spread(logprobs))
        return values

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the present rows alone, given by their index among these."""
        self._draws = [self._draws[row] for row in rows]
        self._rows = self._rows[torch.tensor(rows)]

    def _spread(self, values: Tensor) -> Tensor:
        """Put the values of the present rows in the places of all rows [B]; the others are 0."""
        if len(self._rows) == self._size:
            return values
        return values.new_zeros(self._size).index_copy(0, self._rows.to(values.device), values)

    def _noise(self, values: Tensor) -> Tensor:
        """Draw Gumbel noise for values [B, K], each row by its own seed."""
        drawn = [torch.rand(values.shape[1], generator=draw) for draw in self._draws]
        noise = torch.stack(drawn).clamp(min=1e-30).to(values.device)
        return -torch.log(-torch.log(noise))

    def _most_probable(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest values of each row [B, K] and their places; the others are -inf.

        A token is kept if those before it have less than the share `top_p`.
        """
        found, places = values.topk(min(CANDIDATES, values.shape[1]), dim=-1)
        shares = (found - values.logsumexp(-1, keepdim=True)).exp()
        before = shares.cumsum(-1) - shares
        return found.masked_fill(before >= self._top_p, -torch.inf), places

    def noted(self, lengths: Sequence[int]) -> list[Noted]:
        """Sum up the notes of each row.

        Args:
            lengths: Tokens of each answer, including the stop token.
        """
        logprobs = torch.stack(self._logprobs, 1).double().cpu()
        ties = torch.stack(self._ties, 1).cpu()
        return [
            Noted(float(logprobs[row, :length].sum()), int(ties[row, :length].sum()))
            for row, length in enumerate(lengths)
        ]
