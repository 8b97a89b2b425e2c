"""Merge adapters into the weights of their base, and compare the answers.

The sum of weight and update is taken in float32 and rounded once, to the type of the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from tell_lightning.data.tokenizer import base_path
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.model.base import load_base
from tell_lightning.model.lora import load_adapter
from tell_lightning.model.settings import ModelSettings

SHARD = "5GB"
"""The largest file of weights."""


@dataclass(frozen=True)
class AnswerCheck:
    """How many answers of the merged model are those of base and adapter."""

    rows: int
    alike: int
    near_ties: int
    """Answers that differ, and that rounding may decide."""


def own_dtype(settings: ModelSettings) -> str:
    """Return the type of the base's own weights; float32 if it has none of the usual types."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base_path(settings.base), **settings.hub_options)
    dtype = str(getattr(config, "dtype", None)).removeprefix("torch.")
    return dtype if dtype in {"float32", "bfloat16", "float16"} else "float32"


def merged_model(settings: ModelSettings, adapter: Path, dtype: str) -> Any:
    """Load a base in one type, on the CPU, and add an adapter to its weights.

    Args:
        settings: The base.
        adapter: An adapter folder.
        dtype: The type of the weights.
    """
    from peft.tuners.lora import LoraLayer

    typed = replace(settings, dtype=cast("Any", dtype))
    model = load_adapter(load_base(typed, "cpu"), adapter)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                weight = cast("Any", layer.get_base_layer()).weight
                for name in layer.active_adapters:
                    update = cast("Any", layer).get_delta_weight(name)
                    weight.copy_((weight.float() + update.float()).to(weight.dtype))
    return model.unload()


def save_merged(model: Any, folder: Path) -> None:
    """Write the weights as safetensors, in files of at most `SHARD`, and the configuration."""
    model.save_pretrained(str(folder), max_shard_size=SHARD)


def compare_answers(before: Sequence[Prediction], after: Sequence[Prediction]) -> AnswerCheck:
    """Count the answers that are the same before and after merging."""
    pairs = list(zip(before, after, strict=True))
    differ = [old for old, new in pairs if old.prediction != new.prediction]
    return AnswerCheck(
        len(pairs), len(pairs) - len(differ), sum(old.near_ties > 0 for old in differ)
    )
