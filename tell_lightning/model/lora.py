"""Put LoRA adapters on a base model, by PEFT.

Enters: a frozen causal LM and `LoraSettings`. Leaves: a `PeftModel` whose adapters alone are
trained. Adapters stay in float32 whatever the base's type (PEFT's `autocast_adapter_dtype`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from tell_lightning.errors import TellError
from tell_lightning.model.settings import LoraSettings


class AdapterError(TellError):
    """Adapters that fit no layer, or a checkpoint that does not fit the adapters."""


@dataclass(frozen=True)
class ParameterCount:
    """How many parameters there are and how many are trained."""

    trained: int
    total: int

    def __str__(self) -> str:
        """Say it in one line."""
        share = self.trained / self.total
        return f"{self.trained:,} of {self.total:,} parameters are trained ({share:.2%})"


def add_adapters(base: Any, settings: LoraSettings, *, seed: int) -> Any:
    """Wrap a base model with freshly initialised adapters.

    Args:
        base: A transformers causal LM.
        settings: Rank, scale, dropout and where.
        seed: Seed of the adapters' first values.

    Raises:
        AdapterError: No layer has one of the names; the error lists those that exist.
    """
    from peft import LoraConfig, get_peft_model

    targets = check_lora(base, settings)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        use_rslora=settings.rslora,
    )
    # By default every visible device is forked, and so woken up, by every rank.
    cuda: Any = torch.cuda
    devices = [cuda.current_device()] if cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return get_peft_model(base, config)


def load_weights(model: Any, folder: Path) -> None:
    """Load an adapter folder's weights into a PEFT model of the same shape.

    Raises:
        AdapterError: There are none, or they are of another shape.
    """
    from peft import load_peft_weights, set_peft_model_state_dict
    from safetensors import SafetensorError

    try:
        result: Any = set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise AdapterError(
            f"{folder}: must hold adapter weights that fit model.lora, got: "
            f"{str(error).splitlines()[0]} Use the configuration of the run that wrote it."
        ) from error
    missing = [name for name in result.missing_keys if "lora_" in name]
    for names, how in ((result.unexpected_keys, "besides"), (missing, "not at all")):
        if names:
            raise AdapterError(
                f"{folder}: must hold the adapters that model.lora describes, got {names[0]} "
                f"{how}. Use the base and the configuration of the run that wrote it."
            )


def load_adapter(base: Any, folder: Path) -> Any:
    """Put the adapter of a folder on a base, to answer with.

    Args:
        base: The base model; the adapter goes where it is, in float32.
        folder: An adapter folder.

    Raises:
        AdapterError: There is none, or it is another base's.
    """
    from peft import PeftConfig, get_peft_model

    try:
        config: Any = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        config.base_model_name_or_path = None  # PEFT warns of a base that was moved
        model = get_peft_model(base, config)
    except (OSError, ValueError, TypeError) as error:
        raise AdapterError(
            f"{folder}: must hold an adapter_config.json that fits the base, got: "
            f"{str(error).splitlines()[0]} Use the base (model.base) that it was trained on."
        ) from error
    load_weights(model, folder)
    return model


def check_lora(base: Any, settings: LoraSettings) -> list[str] | str:
    """Check ranges and names; the base may be without weights.

    Returns:
        The names of the layers to adapt, or 'all-linear'.

    Raises:
        AdapterError: A value out of its range, or a name that no layer has.
    """
    if settings.rank < 1:
        raise AdapterError(
            f"model.lora.rank: must be at least 1, got {settings.rank}. Typical values are 8 to 64."
        )
    if not 0 <= settings.dropout < 1:
        raise AdapterError(
            f"model.lora.dropout: must be 0 or more and below 1, got {settings.dropout}. Try 0.05."
        )
    targets = settings.target_modules
    if targets == "all-linear":
        return "all-linear"
    wanted = [targets] if isinstance(targets, str) else list(targets)
    existing = linear_names(base)
    missing = [name for name in wanted if name not in existing]
    if missing or not wanted:
        raise AdapterError(
            f"model.lora.target_modules: every name must be a linear layer of the base model, "
            f"got {missing or wanted}. Choose from: {', '.join(existing)}; or 'all-linear'."
        )
    return wanted


def linear_names(model: Any) -> list[str]:
    """List the last part of the name of every linear layer but the output layer, sorted."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, (nn.Linear, Conv1D)) and module is not head
        }
    )


def is_untrained(model: nn.Module) -> bool:
    """Say whether the adapters still change nothing: LoRA begins with B = 0.

    Of a sharded model this speaks of the part that this process has.
    """
    values = (p for name, p in model.named_parameters() if ".lora_B." in name)
    return not any(bool((p.to_local() if isinstance(p, DTensor) else p).any()) for p in values)


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count trained and all parameters."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return ParameterCount(
        trained=sum(size for size, trained in sizes if trained),
        total=sum(size for size, _ in sizes),
    )
