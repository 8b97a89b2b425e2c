"""All ranks hear the same a step later, and none waits; end_to_end has real ranks."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tell_lightning.callbacks import any_rank
from tell_lightning.callbacks.any_rank import AnyRank


class Ways:
    """Stands in for the process group: another rank says no, except at the steps of `yes`."""

    def __init__(self, yes: set[int]) -> None:
        self.yes = yes
        self.step = 0
        self.waits: list[int] = []

    def all_reduce(self, tensor: torch.Tensor, op: Any, async_op: bool) -> Any:
        assert async_op
        step, other = self.step, float(self.step in self.yes)

        def wait() -> None:
            self.waits.append(step)
            tensor.clamp_(min=other)

        return SimpleNamespace(wait=wait)


def trainer(ranks: int) -> Any:
    return SimpleNamespace(
        world_size=ranks, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )


@pytest.mark.parametrize("says", ["this rank", "the other"])
def test_each_step_hears_the_step_before(says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways({2} if says == "the other" else set())
    monkeypatch.setattr(any_rank.distributed, "all_reduce", ways.all_reduce)
    ranks, heard = AnyRank(), []
    for step in range(5):
        own = [says == "this rank" and step == 2, False]
        heard.append(ranks.hear(trainer(2), own))
        waits = len(ways.waits)
        ways.step = step
        ranks.say(trainer(2), own)
        assert len(ways.waits) == waits  # it is on its way
    assert [yes for yes, _ in heard] == [False, False, False, True, False]
    assert not any(other for _, other in heard) or says == "the other"
    assert ways.waits == [0, 0, 1, 2, 3]  # the first time all wait for what is said then
    ranks.end()
    assert ways.waits[-1] == 4
    ranks.end()
    assert len(ways.waits) == 6


def test_one_rank_hears_itself_at_once() -> None:
    ranks = AnyRank()
    ranks.say(trainer(1), [False, True])
    assert ranks.hear(trainer(1), [True, False]) == [True, False]
    ranks.end()
