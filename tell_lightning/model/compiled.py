"""The decoder layer, compiled while it trains (`model.compile`).

All layers of a model share their code. So one layer is compiled (`torch.compile`), forward and
backward, for rows of any number and length, and all others use the result. In eval mode (losses of
dev and test rows, answers) layers compute as ever. Parameters keep their names: checkpoints and
adapter files are the same with and without.

PyTorch itself draws the random numbers of dropout in compiled code, and draws others. They still
depend on the seed, the step and the rank alone.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from tell_lightning.errors import TellError
from tell_lightning.model.base import decoder_layers, unwrapped
from tell_lightning.settings import ConfigError


class CompileError(TellError):
    """A model whose layers cannot be compiled."""


def compile_layers(model: Any) -> None:
    """Let the layers of a model compile themselves at the first training batch, in place.

    Args:
        model: A causal LM, bare or wrapped by PEFT.

    Raises:
        CompileError: The model does not name its layers. While training: one cannot be compiled.
    """
    base = unwrapped(model)
    layers = decoder_layers(base)
    if not layers:
        raise CompileError(
            "model.compile: needs a model that names its layers in _no_split_modules, got "
            f"{type(base).__name__}, which names none. Set model.compile: false."
        )
    # DDP would have each graph divided where gradients are sent; between two layers is enough.
    torch._dynamo.config.optimize_ddp = False
    for layer in layers:
        layer.compile(dynamic=True)
        layer._compiled_call_impl = _while_training(layer, layer._compiled_call_impl)


def _while_training(layer: nn.Module, compiled: Any) -> Callable[..., Any]:
    ordinary: Callable[..., Any] = layer._call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        if not layer.training:
            return ordinary(*args, **kwargs)
        try:
            return compiled(*args, **kwargs)
        except RuntimeError as error:
            if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            raise CompileError(
                "model.compile: needs layers that torch.compile can compile, got "
                f"{type(layer).__name__}: {_reason(error)}. Set model.compile: false."
            ) from error

    return call


@cache
def check_compiler(device_type: str) -> None:
    """Compile and run a small function on a device, once in a process; takes some seconds.

    Args:
        device_type: 'cpu' or 'cuda'.

    Raises:
        ConfigError: Something that compiling needs is missing.
    """
    needs = "Triton and a C compiler" if device_type == "cuda" else "a C++ compiler (Debian: g++)"
    try:
        torch.compile(_small, dynamic=True)(torch.ones(8, device=device_type))
    except (RuntimeError, OSError, ImportError) as error:
        raise ConfigError(
            f"model.compile: needs what torch.compile compiles with, got {_reason(error)}. "
            f"Install {needs}, or set model.compile: false."
        ) from error


def _small(values: Tensor) -> Tensor:
    return values.sin() * 2


def _reason(error: BaseException) -> str:
    """Return the first line of what the compiler said."""
    inner = getattr(error, "inner_exception", error)
    line = (str(inner).strip().splitlines() or [""])[0]
    return f"{type(inner).__name__}: {line[:160]}".rstrip(". ")
