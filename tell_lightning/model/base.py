"""Load the base model and its tokenizer, from the hub or a folder.

Enters: `ModelSettings`. Leaves: a transformers causal LM with every weight frozen, or a tokenizer
with a padding token. The embedded default goes through the same calls as any other folder.
"""

import os
from pathlib import Path
from typing import Any

import torch

from tell_lightning.errors import TellError
from tell_lightning.microworld.world import base_dir
from tell_lightning.model.settings import ModelSettings


class BaseModelError(TellError):
    """A base model that cannot be had or used."""


def base_path(settings: ModelSettings) -> str:
    """Return what transformers loads: a folder or a hub id.

    Raises:
        BaseModelError: A folder was meant, and it is not there.
    """
    if settings.base == "microworld":
        return str(base_dir())
    folder = Path(settings.base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BaseModelError(
                f"model.base: a model folder holds config.json, got '{settings.base}' without it. "
                "Give a folder that `save_pretrained` wrote."
            )
        return str(folder)
    if settings.base.startswith((".", "/", "~")) or settings.base.count("/") > 1:
        raise BaseModelError(
            f"model.base: no such folder, got '{settings.base}' (looked in {Path.cwd()}). "
            "Give an existing folder or a Hugging Face hub id."
        )
    return settings.base


def load_tokenizer(settings: ModelSettings) -> Any:
    """Load the tokenizer; a missing padding token becomes the end-of-text token.

    Raises:
        BaseModelError: It cannot be loaded, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer

    # Batches are already tokenised when worker processes start.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    path = base_path(settings)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **_options(settings))
    except (OSError, ValueError, KeyError) as error:
        raise _unavailable("tokenizer", settings, error) from error
    if tokenizer.eos_token_id is None:
        raise BaseModelError(
            f"model.base: the tokenizer needs an end-of-text token, got none in "
            f"'{settings.base}'. Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(settings: ModelSettings, device_type: str | None = None) -> Any:
    """Load the frozen base model.

    Args:
        settings: The model section.
        device_type: Where it will compute, 'cuda' or 'cpu', which decides its type of numbers;
            None: where it is loaded, on the default device.

    Raises:
        BaseModelError: It cannot be loaded, or weights are missing or of another shape, which
            transformers would fill with random values.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    auto: Any = AutoModelForCausalLM
    dtype = settings.dtype
    if dtype == "auto":
        device_type = device_type or torch.get_default_device().type
        dtype = "bfloat16" if device_type == "cuda" else "float32"
    path = base_path(settings)
    try:
        model, loaded = auto.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            attn_implementation=settings.attn_implementation,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below, with the missing ones
            **_options(settings),
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise _unavailable("model", settings, error) from error
    random = sorted({*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])})
    if random:
        raise BaseModelError(
            f"model.base: the weights must be those that config.json describes, got {len(random)} "
            f"missing or of another shape in '{settings.base}', such as {random[0]}. "
            "Give a causal language model that `save_pretrained` wrote."
        )
    model.requires_grad_(False)
    return model


def load_skeleton(settings: ModelSettings) -> Any:
    """Build the base model without weights, to look at its layers; costs no memory.

    Raises:
        BaseModelError: Its configuration cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(base_path(settings), **_options(settings))
        with torch.device("meta"):
            return auto.from_config(config, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _unavailable("configuration", settings, error) from error


def _options(settings: ModelSettings) -> dict[str, Any]:
    return {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}


def _unavailable(what: str, settings: ModelSettings, error: Exception) -> BaseModelError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "trust_remote_code" in str(error):
        advice = "Read that code, and set model.trust_remote_code: true if you trust it."
    elif Path(settings.base).expanduser().is_dir():
        advice = "Give a folder that `save_pretrained` wrote in full."
    else:
        advice = "Check the name, model.revision and the network, or give a local folder."
    return BaseModelError(
        f"model.base: the {what} of '{settings.base}' could not be loaded, got: "
        f"{reason.rstrip('.:, ')}. {advice}"
    )
