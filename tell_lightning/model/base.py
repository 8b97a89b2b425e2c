"""Load the base model with frozen weights, and choose the precision of its computations.

On a GPU with bfloat16 the frozen weights are bfloat16, the adapters always float32. So they are on
a CPU with AMX, if the base is large. Training, the loss of dev and test rows, and generation in
`fit` and `predict` all run in the Trainer's precision: bf16-mixed there, 32-true elsewhere.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch

from tell_lightning.data.tokenizer import BaseModelError, base_path, unavailable
from tell_lightning.memory import is_out_of_memory
from tell_lightning.model.settings import ModelSettings, check_quantize

LARGE = 50_000_000
"""Parameters from which a base computes in bfloat16 on a CPU with AMX. Smaller ones spend their
time elsewhere than in products, and train in float32 to the bit as on other CPUs."""


def has_bfloat16() -> bool:
    """Say whether the GPU itself computes in bfloat16; emulation would be slow."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def has_amx() -> bool:
    """Say whether the processor multiplies matrices of bfloat16 in tiles (AMX).

    avx512_bf16 alone does not help: on such a processor, one thread of PyTorch 2.13 computed
    79 GFLOP/s in bfloat16 and 125 in float32. With AMX it was 235 and 63.
    """
    cpu: Any = torch.cpu
    return bool(cpu.get_capabilities().get("amx_bf16"))


def computes_in_bfloat16(settings: ModelSettings, device_type: str) -> bool:
    """Say whether bfloat16 is the faster type for a base on a device.

    Args:
        settings: The model section.
        device_type: The device that the model computes on: 'cuda' or 'cpu'.

    Raises:
        BaseModelError: The configuration of the model cannot be loaded.
    """
    if device_type == "cuda":
        return has_bfloat16()
    return device_type == "cpu" and has_amx() and parameters(settings) >= LARGE


def parameters(settings: ModelSettings) -> int:
    """Count the parameters of a base from its configuration."""
    return _parameters(settings.base, settings.revision, settings.trust_remote_code)


@cache
def _parameters(base: str, revision: str | None, trust_remote_code: bool) -> int:
    given = ModelSettings(base=base, revision=revision, trust_remote_code=trust_remote_code)
    return sum(parameter.numel() for parameter in load_skeleton(given).parameters())


def default_precision(settings: ModelSettings, accelerator: str) -> str:
    """Return the Trainer's precision: autocast where bfloat16 is faster, else float32.

    Args:
        settings: The model section.
        accelerator: That of the Trainer.
    """
    faster = computes_in_bfloat16(settings, _device_type(accelerator))
    return "bf16-mixed" if faster else "32-true"


def answering(settings: ModelSettings, trainer: Mapping[str, Any]) -> tuple[str, str]:
    """Return the device and the precision of a Trainer for answers without a Trainer.

    Args:
        settings: The model section.
        trainer: The trainer section; what it lacks is chosen.

    Returns:
        'cuda' or 'cpu', and a Trainer's precision.
    """
    accelerator = str(trainer.get("accelerator"))
    precision = trainer.get("precision") or default_precision(settings, accelerator)
    return _device_type(accelerator), str(precision)


def _device_type(accelerator: str) -> str:
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"


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


def decoder_layers(base: Any) -> list[Any]:
    """Return the layers of a causal LM, by the classes that it names; none if it names none."""
    names = set(base._no_split_modules or ())
    return [module for module in base.modules() if type(module).__name__ in names]


def base_dtype(settings: ModelSettings, device_type: str) -> str:
    """Return the type of the frozen weights; auto: bfloat16 where it is faster, else float32.

    Args:
        settings: The model section.
        device_type: The device that the model computes on: 'cuda' or 'cpu'.
    """
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if computes_in_bfloat16(settings, device_type) else "float32"


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
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    if settings.attn_implementation == "auto" and capped:  # which `sdpa` cannot compute
        model.set_attn_implementation("eager")
    for layer in model.modules() if settings.quantize else ():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # In eval mode, bitsandbytes would pack the weights for a product in bfloat16 that has
            # no gradient, and would not unpack them for training.
            layer.support_avx512bf16_for_cpu = False
    model.requires_grad_(False)
    return model


def _quantization(settings: ModelSettings, dtype: str) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for a base of 4 bits a weight; none for others."""
    if settings.quantize is None:
        return {}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    device: Any = torch.get_default_device()
    if device.type == "cuda":
        device = torch.cuda.current_device()
    return {"quantization_config": config, "device_map": {"": device}}


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
