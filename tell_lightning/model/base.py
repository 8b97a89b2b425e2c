"""Load the base model with frozen weights, and choose the precision of its computations.

On a GPU with bfloat16 the frozen weights are bfloat16, the adapters always float32. Training, the
loss of dev and test rows, and generation in `fit` and `predict` all run in the Trainer's precision:
bf16-mixed on such a GPU, 32-true elsewhere.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from logging import ERROR, getLogger
from typing import Any

import torch

from tell_lightning.data.tokenizer import BaseModelError, base_path, unavailable
from tell_lightning.memory import is_out_of_memory
from tell_lightning.model.settings import ModelSettings, check_quantize


def has_bfloat16() -> bool:
    """Say whether the GPU itself computes in bfloat16; emulation would be slow."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def default_precision(accelerator: str) -> str:
    """Return the Trainer's precision: bfloat16 autocast on a GPU that has it, else float32."""
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and has_bfloat16() else "32-true"


def precision_context(precision: str, device_type: str) -> AbstractContextManager[object]:
    """Return the context in which a Trainer of this precision computes losses and answers.

    Args:
        precision: A Trainer's precision, such as bf16-mixed or 32-true.
        device_type: 'cuda' or 'cpu'.
    """
    if "16" not in precision or precision.endswith("-true"):
        return nullcontext()
    dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float16
    return torch.autocast(device_type, dtype)


def fork_rng() -> AbstractContextManager[None]:
    """Return a context that restores the random generators of the CPU and the current GPU.

    By default, every process would initialise all visible GPUs.
    """
    cuda: Any = torch.cuda
    devices = [cuda.current_device()] if cuda.is_initialized() else []
    return torch.random.fork_rng(devices=devices)


def unwrapped(model: Any) -> Any:
    """Return the causal LM itself, if PEFT has wrapped it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def base_dtype(settings: ModelSettings, device_type: str) -> str:
    """Return the type of the frozen weights; auto: bfloat16 on a GPU that has it, else float32.

    Args:
        settings: The model section.
        device_type: The device that the model computes on: 'cuda' or 'cpu'.
    """
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if device_type == "cuda" and has_bfloat16() else "float32"


def load_base(settings: ModelSettings, device_type: str | None = None) -> Any:
    """Load the frozen base model.

    Args:
        settings: The model section.
        device_type: The device that it will compute on, 'cuda' or 'cpu'; None: the default device.

    Raises:
        BaseModelError: The model cannot be loaded, there is too little memory, or weights are
            missing or of another shape. transformers would fill these with random values.
        ConfigError: The base cannot be quantised.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    auto: Any = AutoModelForCausalLM
    dtype = base_dtype(settings, device_type or torch.get_default_device().type)
    check_quantize(settings)
    path = base_path(settings.base)
    with _room_for(settings, dtype):
        try:
            model, loaded = auto.from_pretrained(
                path,
                dtype=getattr(torch, dtype),
                attn_implementation=settings.attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the error below names them, with the missing ones
                **_quantization(settings, dtype),
                **settings.hub_options,
            )
        except (OSError, ValueError, ImportError, SafetensorError) as error:
            raise unavailable("model", settings.base, error) from error
    random = sorted({*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])})
    if random:
        raise BaseModelError(
            f"model.base: the weights must be those that config.json describes, got {len(random)} "
            f"missing or of another shape in '{settings.base}', such as {random[0]}. "
            "Give a causal language model that `save_pretrained` wrote."
        )
    for layer in model.modules() if settings.quantize else ():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # In eval mode, bitsandbytes would pack the weights for a product in bfloat16 that has
            # no gradient, and would not unpack them for training.
            layer.support_avx512bf16_for_cpu = False
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    if settings.attn_implementation == "auto" and capped:  # which `sdpa` cannot compute
        model.set_attn_implementation("eager")
    model.requires_grad_(False)
    return model


def _quantization(settings: ModelSettings, dtype: str) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for a base of 4 bits a weight; none for others."""
    if settings.quantize is None:
        return {}
    from transformers import BitsAndBytesConfig

    # It says, at its first product on a CPU, that a package of kernels from the hub is missing.
    getLogger("bitsandbytes").setLevel(ERROR)
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    return {"quantization_config": config, "device_map": {"": torch.get_default_device()}}


@contextmanager
def _room_for(settings: ModelSettings, dtype: str) -> Iterator[None]:
    """Turn memory that runs out while the base is loaded into an error of one line.

    Raises:
        BaseModelError: Memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        smaller = [] if dtype == "bfloat16" else ["model.dtype: bfloat16"]
        smaller += [] if settings.quantize else ["model.quantize: nf4"]
        cure = f"Set {' or '.join(smaller)}, or choose a smaller one." if smaller else ""
        raise BaseModelError(
            f"model.base: must fit into memory, got none left while '{settings.base}' was loaded "
            f"in {settings.quantize or dtype}. {cure or 'Choose a smaller one.'}"
        ) from error


def load_config(settings: ModelSettings) -> Any:
    """Load the configuration of the base model.

    Raises:
        BaseModelError: It cannot be loaded.
    """
    from transformers import AutoConfig

    path = base_path(settings.base)
    try:
        return AutoConfig.from_pretrained(path, **settings.hub_options)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise unavailable("configuration", settings.base, error) from error


def load_skeleton(settings: ModelSettings) -> Any:
    """Build the base model without weights, to check its layers; takes no memory.

    Raises:
        BaseModelError: The configuration of the model cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    config = load_config(settings)
    try:
        with torch.device("meta"):
            return auto.from_config(
                config,
                attn_implementation=settings.attention,
                trust_remote_code=settings.trust_remote_code,
            )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise unavailable("configuration", settings.base, error) from error
