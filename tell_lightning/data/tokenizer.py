"""Find a base model and load its tokenizer, without the model."""

import os
import re
from pathlib import Path
from typing import Any

from tell_lightning.data.hub import use_cache_without_network
from tell_lightning.data.named_bases import NAMED
from tell_lightning.errors import TellError
from tell_lightning.files import expanded

ON_HUB = "Check the name, model.revision and the network, or give a local folder."
CURES = (
    ("trust_remote_code", "Read that code, and set model.trust_remote_code: true if you trust it."),
    (
        "Specified `attn_implementation",
        "Set model.attn_implementation: auto, sdpa, eager, flex_attention or flash_attention_2.",
    ),
    ("scaled_dot_product_attention", "Set model.attn_implementation: eager."),
    ("does not support Flash", "Set model.attn_implementation: sdpa or eager."),
    (
        "(?i)flash.?att",
        "Install the package flash-attn, or set model.attn_implementation: sdpa.",
    ),
    (
        r"(?i)not installed|pip install|not found in your environment|No module named",
        "Install the package that is named there, with pip.",
    ),
    (r"(?i)gated|401 Client|403 Client", "Ask for access on its page, and `hf auth login`."),
)
"""What to do, by what the error of transformers says; the first that fits."""


class BaseModelError(TellError):
    """A base model that cannot be found, loaded or used."""


def base_path(base: str) -> str:
    """Return the folder or hub id that transformers loads; the first use of a name may make it.

    Raises:
        BaseModelError: `base` names a folder that does not exist or holds no model.
        TellError: A named base cannot be made.
    """
    if base in NAMED:
        return str(NAMED[base]())
    folder = expanded(base)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BaseModelError(
                f"model.base: a model folder holds config.json, got '{base}' without it. "
                "Give a folder that `save_pretrained` wrote."
            )
        return str(folder)
    if base.startswith((".", "/", "~")) or base.count("/") > 1:
        raise BaseModelError(
            f"model.base: no such folder, got '{base}' (looked in {Path.cwd()}). "
            "Give an existing folder or a Hugging Face hub id."
        )
    return base


def load_tokenizer(
    base: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """Load the tokenizer; a missing padding token becomes the end-of-text token.

    Args:
        base: Hub id, folder, or a name of `NAMED`.
        revision: Commit, tag or branch of a hub model.
        trust_remote_code: Whether code from the model's repository may run on this machine.

    Raises:
        BaseModelError: The tokenizer cannot be loaded, or has no end-of-text token.
    """
    from transformers import AutoTokenizer

    # Workers only read tokenised rows. Without this, tokenizers warns when a process is forked.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    path = base_path(base)
    if not Path(path).is_dir():
        use_cache_without_network()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise unavailable("tokenizer", base, error) from error
    if "local_files_only" in tokenizer.init_kwargs:
        # Where the files came from is no part of a tokenizer, but would be saved and digested.
        tokenizer.init_kwargs["local_files_only"] = False
    if tokenizer.eos_token_id is None:
        raise BaseModelError(
            f"model.base: the tokenizer needs an end-of-text token, got none in "
            f"'{base}'. Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def unavailable(what: str, base: str, error: Exception) -> BaseModelError:
    """Return the error that says why a part of a base cannot be loaded."""
    text = str(error).strip() or type(error).__name__
    reason = re.split(r"(?<=\.)\s+(?=[A-Z])", text.splitlines()[0])[0]
    local = expanded(base).is_dir()
    place = "Give a folder that `save_pretrained` wrote in full." if local else ON_HUB
    advice = next((cure for cause, cure in CURES if re.search(cause, text)), place)
    return BaseModelError(
        f"model.base: the {what} of '{base}' could not be loaded, got: "
        f"{reason.rstrip('.:, ')}. {advice}"
    )
