"""Recognise a base by its files: an adapter only fits the weights that it was trained on."""

from collections.abc import Mapping
from pathlib import Path

from tell_lightning.data.tokenizer import BaseModelError, base_path
from tell_lightning.files import sha256_of

PATTERNS = ("*.safetensors", "model*", "pytorch_model*", "config.json", "tokenizer.json")
"""The files of a folder that decide what a base computes."""
ACCEPT = "--accept-base"
"""The option of commands that takes a base that has changed."""
ACCEPT_HELP = "go on although the files of the base are not those of the training"


def base_digests(base: str, revision: str | None = None) -> dict[str, str]:
    """Return the SHA-256 of each file of a local base, about a second a gigabyte.

    Of a hub model it is the commit of the files in the cache, which loading the tokenizer or the
    model fills; nothing if there are none.

    Args:
        base: Hub id, folder, or a name of `NAMED`.
        revision: Commit, tag or branch of a hub model.
    """
    folder = Path(base_path(base))
    if folder.is_dir():
        files = {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
        return {path.name: sha256_of(path) for path in sorted(files)}
    from huggingface_hub import try_to_load_from_cache

    names = ("config.json", "tokenizer_config.json")
    found = [try_to_load_from_cache(base, name, revision=revision) for name in names]
    return next(({"commit": Path(path).parent.name} for path in found if isinstance(path, str)), {})


def check_base(saved: Mapping[str, str] | None, base: str, revision: str | None = None) -> None:
    """Refuse another base than the one of the training.

    Args:
        saved: What `base_digests` returned then; nothing is checked if nothing was saved.
        base: Hub id, folder or name, of now.
        revision: Commit, tag or branch of a hub model.

    Raises:
        BaseModelError: A file or the commit has changed.
    """
    now = base_digests(base, revision) if saved else {}
    if not saved or not now:
        return
    if changed := [name for name, digest in saved.items() if now.get(name) != digest]:
        name = changed[0]
        raise BaseModelError(
            f"model.base: must have the files that the adapter was trained on ({name} "
            f"{saved[name][:16]}), got {now.get(name, 'none')[:16]} in '{base}'"
            f"{f' and {len(changed) - 1} more that differ' if changed[1:] else ''}. Use the base "
            f"of the training, or write {ACCEPT} to go on with this one."
        )
