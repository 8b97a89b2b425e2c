"""Write an adapter folder: PEFT's files, the tokenizer, `anchor.json` and a README.

A draft is written in the same parent folder and renamed, so the folder is never incomplete.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tell_lightning.data.base_files import base_digests
from tell_lightning.data.datamodule import TellDataModule
from tell_lightning.data.templates import PLAIN_TEMPLATE
from tell_lightning.data.tokenizer import base_path
from tell_lightning.export.anchor_file import WEIGHTS, AnchorFile, TaskPrompt
from tell_lightning.files import as_json, follow_umask, sha256_of
from tell_lightning.model.module import TellModule
from tell_lightning.model.settings import ModelSettings

UNKNOWN_LENGTH = 256
"""Longest answer, in tokens, of a task without dev and test rows."""


def save_adapter(
    folder: str | Path,
    module: TellModule,
    data: TellDataModule,
    *,
    weights: Mapping[str, Any] | None = None,
    base_files: dict[str, str] | None = None,
) -> None:
    """Write the adapter of a trained module with the anchors of its tasks.

    PEFT can load the folder, and `predict --adapter` adds the anchors by itself.

    Args:
        folder: Folder to write; an older adapter folder is replaced.
        module: The module after training.
        data: The data module of the training.
        weights: The complete adapter tensors by name; needed if the model is sharded.
        base_files: Digests of the base when it was loaded; None: those of now.
    """
    settings = data.settings
    rows = {**data.evaluation["dev"], **data.evaluation["test"]}
    tasks = {
        name: TaskPrompt(
            anchor=task.anchor,
            max_new_tokens=rows[name].max_new_tokens if name in rows else UNKNOWN_LENGTH,
            fields=task.fields,
            min_new_tokens=task.min_new_tokens,
            stop_tokens=task.stop_tokens,
            force_response_prefix=task.force_response_prefix,
            scoring=data.prepared.scorings[name],
        )
        for name, task in settings.tasks.items()
    }
    anchors = AnchorFile(
        base=module.settings.base,
        revision=module.settings.revision,
        variant=settings.mixture.anchor,
        template_digest=data.prepared.encoder.renderer.template_digest,
        tasks=tasks,
        thinking=settings.thinking,
        base_files=base_files or base_digests(module.settings.base, module.settings.revision),
    )
    write_adapter(
        module.model, data.tokenizer, Path(folder), module.settings, anchors, weights=weights
    )


def write_adapter(
    model: Any,
    tokenizer: Any,
    folder: Path,
    settings: ModelSettings,
    anchors: AnchorFile,
    *,
    weights: Mapping[str, Any] | None = None,
) -> None:
    """Write an adapter folder; an older one is replaced.

    Args:
        model: The PEFT model.
        tokenizer: The tokenizer of the base model, unchanged.
        folder: Folder to write.
        settings: The model section, for the name of the base.
        anchors: The content of `anchor.json`.
        weights: The complete adapter tensors by name; None: those of `model`, if it is not sharded.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".adapter-", dir=folder.parent))
    try:
        # By default ('auto') PEFT asks the hub whether the vocabulary has grown; it never has here.
        model.save_pretrained(str(draft), state_dict=weights, save_embedding_layers=False)
        _settle_config(draft / "adapter_config.json", settings)
        tokenizer.save_pretrained(str(draft))
        anchors = replace(anchors, weights_sha256=sha256_of(draft / WEIGHTS))
        if not tokenizer.chat_template:  # other tools then prompt as in training
            (draft / "chat_template.jinja").write_text(PLAIN_TEMPLATE, encoding="utf-8")
        text = as_json(anchors.to_json(), indent=2) + "\n"
        (draft / "anchor.json").write_text(text, encoding="utf-8")
        (draft / "README.md").write_text(_readme(model, settings, anchors), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        follow_umask(draft)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _settle_config(path: Path, settings: ModelSettings) -> None:
    """Sort the modules, which PEFT writes in the random order of a set, and name the base."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base_path(settings.base)
    config["revision"] = settings.revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _readme(model: Any, settings: ModelSettings, anchors: AnchorFile) -> str:
    base = base_path(settings.base)
    revision = f', revision="{settings.revision}"' if settings.revision else ""
    dtype = str(model.dtype).removeprefix("torch.")
    tasks = "\n".join(
        f"- **{name}** ({task.anchor.position}): {task.anchor.text!r}"
        for name, task in anchors.tasks.items()
    )
    return f"""\
---
library_name: peft
---

# LoRA adapter for `{settings.base}`

Trained by tell_lightning. The tasks answer to their anchor, which `anchor.json` holds:

{tasks}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}"{revision}, dtype="{dtype}")
model = PeftModel.from_pretrained(base, "adapter")
tokenizer = AutoTokenizer.from_pretrained("adapter")
```

`python -m tell_lightning predict --adapter adapter` puts the anchor on by itself.
"""
