"""A model made ready to answer, and given back as it was.

A model enters a `with` block; inside, it is in eval mode (no dropout, no activation checkpointing,
which would drop the key-value cache and make wrong text) and without its own generation settings.
Afterwards, also after an exception, every module is as before. Microseconds a module.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import GenerationConfig

_SETTINGS = "generation_config"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode and set its own generation settings aside.

    Those settings (temperature, repetition penalty, suppressed tokens ... of a hub model) would
    fill in whatever a call to `generate` leaves open.
    """
    modes = [(module, module.training) for module in model.modules()]
    owned = [
        (module, vars(module)[_SETTINGS])
        for module in model.modules()
        if isinstance(vars(module).get(_SETTINGS), GenerationConfig)
    ]
    try:
        model.eval()
        for module, _ in owned:
            setattr(module, _SETTINGS, GenerationConfig())  # type: ignore[no-untyped-call]
        yield
    finally:
        for module, settings in owned:
            setattr(module, _SETTINGS, settings)
        for module, mode in modes:
            module.training = mode
