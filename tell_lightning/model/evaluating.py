"""Put a model into eval mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import GenerationConfig

_SETTINGS = "generation_config"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode without its own generation settings; restore both afterwards.

    In train mode, dropout and activation checkpointing are on; the latter drops the key-value cache
    and gives wrong text. The generation settings of a hub model (temperature, repetition penalty,
    suppressed tokens ...) would apply wherever a call of `generate` does not set them.
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
