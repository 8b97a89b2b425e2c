"""Has the chat of the base changed? A hundred short prompts that no training source holds.

The base, its adapter switched off, answers each prompt greedily. Of an adapter it is then measured
how probable these answers still are (nats a token), and how many of its own answers are the same,
token for token. The prompts are in `probe.txt`.

    prompt   Which planet is known as the red planet?
    base     Mars.                 loss 0.21   unchanged
    adapter  The red planet is it. loss 2.75   changed
"""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device

from tell_lightning.data.anchors import Example
from tell_lightning.data.batches import Item, collate_unpacked
from tell_lightning.data.records import Turn
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder
from tell_lightning.generation.answer import gather
from tell_lightning.generation.batched import Budget, generate
from tell_lightning.generation.decoding import Decoding
from tell_lightning.generation.probe_prompts import prompts
from tell_lightning.model.evaluating import evaluating
from tell_lightning.model.loss import token_losses
from tell_lightning.progress import Progress

LONGEST = 32
"""Tokens of an answer at most."""
LEAST_VOCABULARY = 8_000
"""A tokenizer with fewer tokens is of a toy model, such as the microworld's, which cannot chat."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class ProbeScores:
    """How the chat of a model compares with that of its base."""

    rows: int
    loss: float
    """Of the base's own answers, in nats a token, the end of the turn included."""
    unchanged: float
    """Share of prompts with the base's answer, 0 to 1."""


def can_chat(tokenizer: Any) -> bool:
    """Say whether a base is a chat model, by its tokenizer: a template, and a full vocabulary."""
    return bool(tokenizer.chat_template) and len(tokenizer) >= LEAST_VOCABULARY


class Probe:
    """Measures a model with an adapter against its base.

    The base's answers are generated once, when they are first needed.
    """

    def __init__(self, tokenizer: Any, budget: Budget, rank: int = 0, world: int = 1) -> None:
        """Tokenise the prompts.

        Args:
            tokenizer: Of the base.
            budget: Tokens of a generation batch; lowered if memory runs out.
            rank: Rank of this process.
            world: Number of processes that share the prompts.
        """
        renderer = Renderer(tokenizer)
        examples = [
            Example(str(number), f"probe.txt:{number}", (Turn("user", text),), {})
            for number, text in enumerate(prompts(), start=1)
        ]
        self._prompts = Encoder(tokenizer, renderer).prompt_ids(examples)
        self._decoding = Decoding(stop_ids=renderer.stop_ids, max_new_tokens=LONGEST)
        self._tokenizer, self._budget = tokenizer, budget
        self._rank, self._world = rank, world
        self._base: list[Tokens] = []

    def score(self, model: Any, *, adapted: bool) -> ProbeScores:
        """Score a model.

        Args:
            model: A PEFT model.
            adapted: Whether its adapter has been trained; if not, it is the base.
        """
        if not self._base:
            with model.disable_adapter():
                self._base = self._answers(model)
        answers = self._answers(model) if adapted else self._base
        same = sum(map(Tokens.__eq__, answers, self._base))
        return ProbeScores(len(answers), self._loss(model), same / len(answers))

    def _answers(self, model: Any) -> list[Tokens]:
        """Answer all prompts, each rank its share; the end of the turn is part of an answer."""
        places = range(len(self._prompts))[self._rank :: self._world]
        with Progress("chat prompts", len(places), shown=self._rank == 0) as progress:
            generated = generate(
                model,
                self._tokenizer,
                [self._prompts[place] for place in places],
                self._decoding,
                budget=self._budget,
                answered=progress.advance,
            )
        end = self._decoding.stop_ids[:1]
        answers = [
            (place, (*answer.token_ids, *(end if answer.stopped else ())))
            for place, answer in zip(places, generated, strict=True)
        ]
        found = dict(gather(answers, self._world))
        return [found[place] for place in sorted(found)]

    def _loss(self, model: Any) -> float:
        """Compute the loss of the base's answers, on every rank alike."""
        nats = tokens = 0.0
        with evaluating(model), torch.no_grad():
            for batch in self._batches():
                losses, _ = token_losses(model, move_data_to_device(batch, model.device))
                nats += float(losses.double().sum())
                tokens += len(losses)
        return nats / tokens

    def _batches(self) -> list[Any]:
        items = [
            Item([*prompt, *answer], [*[False] * len(prompt), *[True] * len(answer)], 0, row, row)
            for row, (prompt, answer) in enumerate(zip(self._prompts, self._base, strict=True))
            if answer
        ]
        size = max(1, self._budget.tokens // max(len(item.input_ids) for item in items))
        return [collate_unpacked(items[at : at + size]) for at in range(0, len(items), size)]
