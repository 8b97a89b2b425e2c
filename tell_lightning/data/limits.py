"""What a base can take, read from its configuration: positions and token embeddings."""

from dataclasses import dataclass
from typing import Any

from tell_lightning.errors import TellError


class LimitError(TellError):
    """A base that cannot take all tokens of its tokenizer."""


@dataclass(frozen=True)
class Limits:
    """The limits of a base; None where there is none or it is not known.

    Attributes:
        positions: The longest sequence in tokens.
        learned: Whether each position has a learned embedding: one more position is an error.
        embeddings: The number of token embeddings.
    """

    positions: int | None = None
    learned: bool = False
    embeddings: int | None = None


def base_limits(tokenizer: Any) -> Limits:
    """Read the limits from the configuration that lies beside a tokenizer."""
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(
            tokenizer.name_or_path,
            local_files_only=True,
            trust_remote_code=False,  # unset, transformers would ask on standard input
        )
    # A tokenizer without a model, or with one whose configuration is code.
    except (OSError, ValueError, KeyError, ImportError):
        return Limits()
    config = config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    rotary = getattr(config, "rope_parameters", None)
    if positions is not None and rotary is not None:
        # YaRN and others stretch the positions of the pre-training.
        before = rotary.get("original_max_position_embeddings") or 0
        positions = max(positions, int(before * (rotary.get("factor") or 1)))
    return Limits(positions, rotary is None, getattr(config, "vocab_size", None))


def check_embeddings(tokenizer: Any, limits: Limits) -> None:
    """Check that the model has an embedding for each token.

    Raises:
        LimitError: The tokenizer has more tokens.
    """
    if limits.embeddings is not None and len(tokenizer) > limits.embeddings:
        raise LimitError(
            f"model.base: the tokenizer must have at most as many tokens as the model has "
            f"embeddings, {limits.embeddings:,}, got {len(tokenizer):,}. Use the model's own "
            "tokenizer, or call model.resize_token_embeddings(len(tokenizer)) and save both."
        )
