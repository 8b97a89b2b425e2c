"""`anchor.json` of an adapter folder: how to prompt its tasks. Needs no torch.

It holds the name and the digests of the base, the digest of the chat template and, for each task,
the anchor, the names of the fields, the length of the answers and how they are read.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from tell_lightning.data.anchors import Anchor, anchor_from_json, anchor_to_json
from tell_lightning.data.records import Fields
from tell_lightning.data.settings import Thinking
from tell_lightning.data.variants import Variant
from tell_lightning.errors import TellError
from tell_lightning.files import sha256_of
from tell_lightning.metrics.kinds.registry import BUILT_IN
from tell_lightning.metrics.settings import Scoring
from tell_lightning.settings import as_settings

FORMAT = 1
READING = ("kind", "label_key", "thought_key", "labels", "positive", "words_field")
"""The keys of a task's scoring that decide what `predict` says of an answer."""
WEIGHTS = "adapter_model.safetensors"
"""The file of the adapter's tensors."""


class AdapterFolderError(TellError):
    """An adapter folder that cannot be used."""


@dataclass(frozen=True)
class TaskPrompt:
    """The settings that make the prompts of a task the same as in training."""

    anchor: Anchor
    max_new_tokens: int
    fields: Fields = Fields()
    min_new_tokens: int = 0
    stop_tokens: tuple[str, ...] = ()
    force_response_prefix: bool = False
    scoring: Scoring = Scoring()
    """How answers are read: the kind, its labels and keys, and the field of listed words."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {
            "anchor": anchor_to_json(self.anchor),
            "max_new_tokens": self.max_new_tokens,
            "min_new_tokens": self.min_new_tokens,
            "stop_tokens": list(self.stop_tokens),
            "force_response_prefix": self.force_response_prefix,
            "fields": asdict(self.fields),
            "scoring": self.reading,
        }

    @property
    def reading(self) -> dict[str, Any]:
        """What decides how an answer is read; a class of the user's is left out, for it is code."""
        given = {name: getattr(self.scoring, name) for name in READING}
        if given["kind"] not in BUILT_IN:
            del given["kind"]
        values = {name: value for name, value in given.items() if value is not None}
        return values | ({"labels": list(values["labels"])} if "labels" in values else {})


@dataclass(frozen=True)
class AnchorFile:
    """The content of `anchor.json`."""

    base: str
    revision: str | None
    variant: Variant
    template_digest: str
    tasks: dict[str, TaskPrompt]
    thinking: Thinking = "strip"
    base_files: dict[str, str] = field(default_factory=dict)
    """Digests of the base (`base_digests`); empty in folders of earlier versions."""
    weights_sha256: str | None = None
    """Digest of the adapter's tensors; None in folders of earlier versions."""

    def to_json(self) -> dict[str, Any]:
        """Return the content as JSON values."""
        tasks = {name: task.to_json() for name, task in self.tasks.items()}
        return {"format": FORMAT, **asdict(self), "tasks": tasks}


def read_anchor_file(folder: Path) -> AnchorFile:
    """Read `anchor.json` of an adapter folder.

    Raises:
        AdapterFolderError: The file is missing or has another form.
    """
    path = folder / "anchor.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise AdapterFolderError(
                f"{path}: format must be {FORMAT}, got {data['format']}. "
                "Use the version of tell_lightning that wrote it."
            )
        tasks = {
            name: TaskPrompt(
                anchor_from_json(task["anchor"], where=f"{path}: tasks.{name}.anchor"),
                int(task["max_new_tokens"]),
                Fields(**task["fields"]),
                int(task.get("min_new_tokens", 0)),  # missing in folders of earlier versions
                tuple(task.get("stop_tokens", ())),
                bool(task.get("force_response_prefix", False)),
                as_settings(Scoring, task.get("scoring", {}), f"{path}: tasks.{name}.scoring"),
            )
            for name, task in data["tasks"].items()
        }
        return AnchorFile(
            data["base"],
            data["revision"],
            _variant(data["variant"], path),
            data["template_digest"],
            tasks,
            data.get("thinking", "strip"),  # missing in folders of earlier versions
            dict(data.get("base_files") or {}),
            data.get("weights_sha256"),
        )
    except FileNotFoundError as error:
        raise AdapterFolderError(
            f"{folder}: an adapter folder holds anchor.json, got none. "
            "Give the adapter/ folder of a run."
        ) from error
    except TellError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # also JSONDecodeError
        raise AdapterFolderError(
            f"{path}: must be the file that `fit` wrote, got {error!r}. Export the adapter again."
        ) from error


def check_weights(folder: Path, anchors: AnchorFile) -> None:
    """Check that an adapter folder has its files, and that the weights are those of the training.

    Raises:
        AdapterFolderError: A file is missing, or the weights have changed.
    """
    for name in ("adapter_config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise AdapterFolderError(
                f"{folder}: an adapter folder must have {name}, got none. Copy the whole folder."
            )
    wanted = anchors.weights_sha256
    if wanted is not None and (found := sha256_of(folder / WEIGHTS)) != wanted:
        raise AdapterFolderError(
            f"{folder / WEIGHTS}: must have the SHA-256 that anchor.json gives, {wanted:.12}..., "
            f"got {found:.12}...: the file is damaged or changed. Copy it again; if it was changed "
            "on purpose, set weights_sha256 in anchor.json to null."
        )


def check_template(folder: Path | None, wanted: str | None, found: str) -> None:
    """Check that the base's chat template is the one that an adapter was trained with.

    Args:
        folder: The adapter folder, which an error names.
        wanted: The template's digest in `anchor.json`; None: nothing is checked.
        found: The digest of the template that is used now.

    Raises:
        AdapterFolderError: It is another one.
    """
    if wanted not in {None, found}:
        raise AdapterFolderError(
            f"{folder}: the base's chat template must be the one of the training, got "
            "another. Use the base (model.base, model.revision) that the adapter was trained on."
        )


def _variant(value: object, path: Path) -> Variant:
    if value not in get_args(Variant):
        raise AdapterFolderError(
            f"{path}: variant must be one of {', '.join(get_args(Variant))}, got {value!r}. "
            "Export the adapter again."
        )
    return cast("Variant", value)
