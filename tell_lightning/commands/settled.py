"""Numbers that a configuration leaves to the base and the rows: the learning rate, the steps."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tell_lightning.commands.check import Config
from tell_lightning.model.settings import ModelSettings

if TYPE_CHECKING:
    from tell_lightning.model.rate import Rate


def with_rate(config: Config, rate: "Rate") -> Config:
    """Return a configuration with the learning rate as a number."""
    optimizer = replace(config.model.optimizer, lr=rate.value)
    model = replace(config.model, optimizer=optimizer)
    return replace(config, model=model, values=_with(config, "model.optimizer.lr", rate.value))


def with_steps(config: Config, steps: int) -> Config:
    """Return a configuration with the number of optimizer steps."""
    values = _with(config, "trainer.max_steps", steps)
    return replace(config, trainer=values["trainer"], values=values)


def rate_facts(rate: "Rate", model: ModelSettings, steps: int) -> dict[str, Any]:
    """Return what `plan.json` says of the learning rate.

    Args:
        rate: The rate, and where it is from.
        model: The model section.
        steps: Optimizer steps of the run.
    """
    warmup = round(steps * model.optimizer.warmup_share)
    return {"value": rate.value, "why": rate.why, "warmup_steps": warmup}


def rate_line(facts: Mapping[str, Any]) -> str:
    """Say the learning rate in one line.

    >>> rate_line({"value": 6.6e-4, "why": "auto, a Llama of width 576", "warmup_steps": 8})
    'lr 6.6e-4: auto, a Llama of width 576; it rises in the first 8 steps.'
    """
    number = f"{facts['value']:.2e}".replace("e-0", "e-").replace("e+0", "e+")
    digits, _, power = number.partition("e")
    text = digits.rstrip("0").rstrip(".")
    return (
        f"lr {text}e{power}: {facts['why']}; it rises in the first {facts['warmup_steps']:,} steps."
    )


def _with(config: Config, key: str, value: Any) -> dict[str, Any]:
    """Copy the plain values with another value for one key."""
    values = copy.deepcopy(config.values)
    *above, last = key.split(".")
    inside = values
    for part in above:
        inside = inside[part]
    inside[last] = value
    return values
