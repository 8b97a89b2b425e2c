"""Put LoRA adapters on a frozen base model, with PEFT.

Only the adapters are trained. They are float32, whatever the type of the base (PEFT's
`autocast_adapter_dtype`).
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from tell_lightning.errors import TellError
from tell_lightning.model.base import fork_rng
from tell_lightning.model.settings import LoraSettings

MAMBA = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""The types of models in which PEFT refuses to adapt the output layer of the Mamba block."""


class AdapterError(TellError):
    """Adapters that do not fit the base, or a checkpoint that does not fit the adapters."""


class ParameterCount(NamedTuple):
    """The number of trained parameters and of all parameters."""

    trained: int
    total: int

    def __str__(self) -> str:
        """Return both numbers in one line."""
        share = self.trained / self.total
        return f"{self.trained:,} of {self.total:,} parameters are trained ({share:.2%})"


def add_adapters(base: Any, settings: LoraSettings, *, seed: int) -> Any:
    """Wrap a base model with freshly initialised adapters.

    Args:
        base: A transformers causal LM.
        settings: The adapters.
        seed: Seed of the adapters' initial values.

    Raises:
        AdapterError: A name in `target_modules` is no layer of the base, or is one where an adapter
            has no effect. The message lists the layers.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    from tell_lightning.model.fused import fuse  # imports PEFT, which takes seconds

    targets = check_lora(base, settings)
    conv1d = any(isinstance(module, Conv1D) for module in base.modules())  # GPT-2's linear layer
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        exclude_modules=_unadaptable(base) or None,
        fan_in_fan_out=conv1d,
        use_rslora=settings.rslora,
    )
    with fork_rng():
        torch.manual_seed(seed)
        return fuse(get_peft_model(base, config))


def load_weights(model: Any, folder: Path) -> None:
    """Load an adapter folder's weights into a PEFT model of the same shape.

    Raises:
        AdapterError: The folder holds no weights, or weights of another shape.
    """
    from peft import load_peft_weights, set_peft_model_state_dict
    from safetensors import SafetensorError

    try:
        weights = load_peft_weights(str(folder), device="cpu")
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterError(
            f"{folder}: must hold adapter weights that can be read, got: "
            f"{str(error).splitlines()[0]}. Copy the folder again."
        ) from error
    try:
        result: Any = set_peft_model_state_dict(model, weights)
    except RuntimeError as error:
        raise AdapterError(
            f"{folder}: must hold adapter weights that fit model.lora and the base, got: "
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
    """Put the adapter of a folder on a base, for generation.

    Args:
        base: The base model. The adapter is put on its device, in float32.
        folder: An adapter folder.

    Raises:
        AdapterError: The folder holds no adapter, or the adapter of another base.
    """
    from peft import PeftConfig, get_peft_model

    from tell_lightning.model.fused import fuse

    try:
        config: Any = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        config.base_model_name_or_path = None  # PEFT warns if the base has moved
    except (OSError, ValueError, TypeError) as error:
        raise AdapterError(
            f"{folder}: must hold the adapter_config.json that PEFT wrote, got: "
            f"{str(error).splitlines()[0]}. Copy the folder again, or give the adapter/ folder of "
            "a run."
        ) from error
    try:
        model = get_peft_model(base, config)
    except ValueError as error:
        raise AdapterError(
            f"{folder}: must hold an adapter_config.json that fits the base, got: "
            f"{str(error).splitlines()[0]} Use the base (model.base) that it was trained on."
        ) from error
    load_weights(model, folder)
    return fuse(model)


def check_lora(base: Any, settings: LoraSettings) -> list[str] | str:
    """Check the settings of the adapters against a base, which needs no weights.

    Returns:
        The names of the layers to adapt, or 'all-linear'.

    Raises:
        AdapterError: A name is no layer of the base, or is one where an adapter has no effect.
    """
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
    if passed_by := [name for name in wanted if name in _unadaptable(base)]:
        raise AdapterError(
            "model.lora.target_modules: must be layers whose adapters have an effect, got "
            f"{passed_by}, which the kernels of {type(base).__name__} read past any adapter. "
            "Leave them out, or set 'all-linear', which leaves them out."
        )
    return wanted


def _unadaptable(base: Any) -> list[str]:
    """Name the layers whose weights a kernel reads itself, past an adapter. PEFT refuses them."""
    return ["conv1d", "out_proj"] if base.config.model_type in MAMBA else []


def linear_names(model: Any) -> list[str]:
    """List the last part of the name of every linear layer except the output layer, sorted."""
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
    """Say whether the adapters have no effect yet: LoRA starts with B = 0.

    In a sharded model, only the shard of this process is checked.
    """
    values = (p for name, p in model.named_parameters() if ".lora_B." in name)
    return not any(bool((p.to_local() if isinstance(p, DTensor) else p).any()) for p in values)
