"""An adapter folder that stands alone: PEFT's files, the tokenizer and the anchors.

Enters: the trained model. Leaves: `adapter_config.json`, `adapter_model.safetensors`, tokenizer
files, `anchor.json` and a README that says how to load it. Written beside and renamed, so the
folder is whole or not there. Merged weights are not written here.
"""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tell_lightning.data.anchors import Anchor, anchor_from_json, anchor_to_json
from tell_lightning.errors import TellError
from tell_lightning.model.base import base_path
from tell_lightning.model.settings import ModelSettings

FORMAT = 1


class AdapterFolderError(TellError):
    """An adapter folder that cannot be used."""


@dataclass(frozen=True)
class TaskPrompt:
    """What belongs to an adapter so that a task is asked as in training."""

    anchor: Anchor
    max_new_tokens: int


@dataclass(frozen=True)
class AnchorFile:
    """`anchor.json`: the base, the template's digest and each task's prompt form."""

    base: str
    revision: str | None
    anchored: bool
    template_digest: str
    tasks: dict[str, TaskPrompt]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        tasks = {
            name: {"anchor": anchor_to_json(task.anchor), "max_new_tokens": task.max_new_tokens}
            for name, task in self.tasks.items()
        }
        return {"format": FORMAT, **asdict(self), "tasks": tasks}


def read_anchor_file(folder: Path) -> AnchorFile:
    """Read `anchor.json` of an adapter folder.

    Raises:
        AdapterFolderError: It is missing or not in the known form.
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
            )
            for name, task in data["tasks"].items()
        }
        return AnchorFile(
            data["base"], data["revision"], bool(data["anchored"]), data["template_digest"], tasks
        )
    except FileNotFoundError as error:
        raise AdapterFolderError(
            f"{folder}: an adapter folder holds anchor.json, got none. "
            "Give the adapter/ folder of a run."
        ) from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise AdapterFolderError(
            f"{path}: must be the file that `fit` wrote, got {error!r}. Export the adapter again."
        ) from error


def save_adapter(
    model: Any, tokenizer: Any, folder: Path, settings: ModelSettings, anchors: AnchorFile
) -> None:
    """Write an adapter folder, in place of an older one.

    Args:
        model: The PEFT model.
        tokenizer: The base model's tokenizer, unchanged.
        folder: Where to.
        settings: The model section, for the name of the base.
        anchors: What `anchor.json` says.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".adapter-", dir=folder.parent))
    try:
        # 'auto' would ask the hub whether the vocabulary has grown; it has not.
        model.save_pretrained(str(draft), save_embedding_layers=False)
        _settle_config(draft / "adapter_config.json", settings)
        tokenizer.save_pretrained(str(draft))
        text = json.dumps(anchors.to_json(), indent=2, ensure_ascii=False) + "\n"
        (draft / "anchor.json").write_text(text, encoding="utf-8")
        (draft / "README.md").write_text(_readme(settings, anchors), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.chmod(draft, 0o755)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _settle_config(path: Path, settings: ModelSettings) -> None:
    """Sort what PEFT writes in the order of a set, and name the base."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base_path(settings)
    config["revision"] = settings.revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _readme(settings: ModelSettings, anchors: AnchorFile) -> str:
    lines = [
        "---",
        "library_name: peft",
        "---",
        "",
        f"# LoRA adapter for `{settings.base}`",
        "",
        "Trained by tell_lightning. The tasks answer to their anchor, which `anchor.json` holds:",
        "",
    ]
    for name, task in anchors.tasks.items():
        lines += [f"- **{name}** ({task.anchor.position}): {task.anchor.text!r}"]
    lines += [
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{base_path(settings)}")',
        'model = PeftModel.from_pretrained(base, "adapter")',
        'tokenizer = AutoTokenizer.from_pretrained("adapter")',
        "```",
        "",
        "`python -m tell_lightning predict --adapter adapter` puts the anchor on by itself.",
        "",
    ]
    return "\n".join(lines)
