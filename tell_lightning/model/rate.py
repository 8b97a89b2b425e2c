"""The learning rate where none is given: by the width of the base and its family.

    5e-4 x (2000 / width)^p x FACTOR        p: 0.781 for a Llama, 0.0775 for a Qwen

The formula is that of tinker-cookbook (`hyperparam_utils.get_lr`, fitted on LoRA runs of models of
0.6 to 235 billion parameters). `FACTOR` is ours: `experiments/defaults/`.
"""

from dataclasses import replace
from typing import NamedTuple

from tell_lightning.data.tokenizer import BaseModelError
from tell_lightning.model.base import load_config
from tell_lightning.model.settings import ModelSettings

EXPONENTS = {"llama": 0.781, "qwen": 0.0775}
"""How fast the rate falls with the width, by what the type of a model has in its name."""
FACTOR = 0.5
"""What our runs of few examples took best, divided by the formula (`experiments/defaults/`)."""


class Rate(NamedTuple):
    """A learning rate, and where it is from."""

    value: float
    why: str


def rate_of(settings: ModelSettings) -> Rate:
    """Return the learning rate of a run. Reads the configuration of the base, but no weights.

    A family that nothing is known of gets the lower of the rates of the known ones.

    Raises:
        BaseModelError: The configuration cannot be loaded, or names no width.
    """
    if settings.optimizer.lr != "auto":
        return Rate(settings.optimizer.lr, "as set")
    config = load_config(settings).get_text_config(decoder=True)
    width = getattr(config, "hidden_size", None)
    if not isinstance(width, int) or width < 1:
        raise BaseModelError(
            f"model.optimizer.lr: auto needs the width of the base, got no hidden_size in the "
            f"configuration of '{settings.base}'. Set a number, such as 3e-4."
        )
    family = next((name for name in EXPONENTS if name in config.model_type.lower()), None)
    if family is not None:
        return Rate(by_width(width, family), f"auto, a {family.capitalize()} of width {width:,}")
    value = min(by_width(width, name) for name in EXPONENTS)
    known = " and a ".join(map(str.capitalize, EXPONENTS))
    return Rate(value, f"auto, the lower of a {known} of width {width:,}")


def by_width(width: int, family: str) -> float:
    """Return the rate of a family at a width, to two digits.

    >>> by_width(576, "llama"), by_width(4096, "llama"), by_width(4096, "qwen")
    (0.00066, 0.00014, 0.00024)
    """
    return float(f"{FACTOR * 5e-4 * (2000 / width) ** EXPONENTS[family]:.2g}")


def with_rate(settings: ModelSettings) -> ModelSettings:
    """Put the number in the place of `auto`."""
    rate = rate_of(settings).value
    return replace(settings, optimizer=replace(settings.optimizer, lr=rate))
