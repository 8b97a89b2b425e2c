"""The contenders of `train.py`, and what runs where."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Contender:
    """One way to train.

    Attributes:
        label: Name in the tables.
        module: Module of `trainers`.
        needs: Packages of its own environment besides PyTorch; empty: the project's environment.
        without: Packages that come with them and are taken away again, for they need CUDA.
        options: Options of the module.
        bins: Bins of a forward pass: those of the case, one, or all of an optimizer step.
        other_rows: Why its steps have other rows than those of ours; empty: they have the same.
    """

    label: str
    module: str
    needs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    bins: str = "case"
    other_rows: str = ""


TRL = ("trl==1.16.0", "peft==0.21.2")
FLEX = {"attention": "flex_attention"}
UNPACKED = "a step has a fixed number of rows instead of bins"
CONTENDERS = {
    "ours": Contender("ours", "ours"),
    "ours_compiled": Contender("ours, compiled", "ours", options={"model": {"compile": True}}),
    "bare": Contender("bare loop", "bare"),
    "trl_packed": Contender("TRL, packed, bin by bin", "trl_sft", TRL, bins="one"),
    "trl_flat": Contender("TRL, packed, all bins at once", "trl_sft", TRL, bins="all"),
    "trl_flex": Contender("TRL, packed, flex_attention", "trl_sft", TRL, options=FLEX, bins="all"),
    "trl_padded": Contender(
        "TRL, padded", "trl_sft", TRL, options={"packed": False}, other_rows=UNPACKED
    ),
    "ours_padded": Contender(
        "ours, padded", "ours", options={"packed": False}, other_rows=UNPACKED
    ),
    "ms_swift": Contender(
        "ms-swift, padded", "ms_swift", ("ms-swift==4.6.0",), other_rows=UNPACKED
    ),
    "llama_factory": Contender(
        "LLaMA-Factory, neat packing",
        "llama_factory",
        ("llamafactory==0.9.5",),
        without=("torchvision", "torchaudio"),
    ),
    "unsloth": Contender("Unsloth", "unsloth_sft", ("unsloth==2026.10.9",), bins="all"),
    "matmul": Contender("matrix product", "matmul"),
    "generate_ours": Contender("ours", "generation", options={"ours": True}),
    "generate_plain": Contender("transformers", "generation", options={"ours": False}),
}
GROUPS = {"trl": ("trl_packed", "trl_flat", "trl_padded")}
ON_CPU = ("ours", "bare", *GROUPS["trl"], "ours_padded", "ms_swift", "llama_factory")
ON_GPU = (
    ("1.5B", ("matmul", "ours", "bare", "trl_packed")),
    ("7B", ("ours", "trl_packed")),
    ("135M", ("ours", "bare", "trl_packed", "generate_ours", "generate_plain", "ours_compiled")),
    ("1.5B", ("ours_compiled", "unsloth", "trl_flex")),
)
"""What runs on a GPU; the most important first, for time may run out."""
CHECKPOINTED = ("7B",)
