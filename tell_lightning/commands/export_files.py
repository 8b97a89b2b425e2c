"""The files of an exported folder: prompting, merged weights, GGUF and Modelfiles."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tell_lightning.commands.export_check import answers_of
from tell_lightning.commands.export_request import ExportSource
from tell_lightning.data.records import Record
from tell_lightning.export.gguf import TYPES
from tell_lightning.export.serving import ADAPTER_GGUF, MODEL_GGUF, MODELFILE, Served
from tell_lightning.files import follow_umask
from tell_lightning.progress import Progress
from tell_lightning.settings import ConfigError

if TYPE_CHECKING:
    from tell_lightning.data.tokens import Encoder
    from tell_lightning.export.chat_template import ServedAnchor


@contextmanager
def draft_folder(target: Path) -> Iterator[Path]:
    """Make a folder beside the target that takes its name at the end, if nothing goes wrong."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    except OSError as error:
        raise ConfigError(
            f"--to: must be a folder that can be written, got '{target}': {error.strerror}. Name "
            "another one."
        ) from error
    try:
        yield draft
        follow_umask(draft)
        os.rename(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def served_anchors_of(
    encoder: "Encoder", sources: Sequence[ExportSource]
) -> dict[str, "ServedAnchor"]:
    """Return what the template puts on for each task; one entry if it is the same for all."""
    from tell_lightning.data.anchors import Anchor
    from tell_lightning.export.chat_template import ServedAnchor, served_anchor

    found = {
        name: served_anchor(
            encoder.renderer,
            task.anchor,
            source.anchors.variant,
            force_response_prefix=task.force_response_prefix,
            where=f"data.tasks.{name}.anchor",
        )
        for source in sources
        for name, task in source.tasks.items()
    }
    if len(set(found.values())) > 1:
        return found
    return dict(list(found.items())[:1]) or {"none": ServedAnchor(Anchor())}


def write_prompting(
    draft: Path,
    encoder: "Encoder",
    sources: Sequence[ExportSource],
    anchors: Mapping[str, "ServedAnchor"],
) -> None:
    """Write the tokenizer with its templates, and how to generate."""
    from transformers import AutoTokenizer, GenerationConfig

    from tell_lightning.export.chat_template import served_template

    thinking = sources[0].anchors.thinking
    encoder.tokenizer.save_pretrained(str(draft))
    for old in ("chat_template.jinja", "additional_chat_templates"):
        if (draft / old).is_dir():
            shutil.rmtree(draft / old)
        (draft / old).unlink(missing_ok=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(draft))
    template = served_template(encoder, anchors, thinking)
    alone = {name: served_template(encoder, {name: one}, thinking) for name, one in anchors.items()}
    tokenizer.chat_template = template if len(anchors) == 1 else {**alone, "default": template}
    tokenizer.save_pretrained(str(draft))
    tasks = [task for source in sources for task in source.tasks.values()]
    ends = [encoder.token_id(text, "stop_tokens") for task in tasks for text in task.stop_tokens]
    if len({task.stop_tokens for task in tasks}) > 1:
        print("stop_tokens differ between the tasks: requests name their own, as `stop`.")
        ends = []
    temperature = sources[0].config.eval.temperature
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    config: Any = GenerationConfig
    config(
        **(sampling if temperature else {"do_sample": False}),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(dict.fromkeys((*encoder.renderer.stop_ids, *ends))),
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=max((task.max_new_tokens for task in tasks), default=256),
    ).save_pretrained(str(draft))


def compare_prompts(
    draft: Path,
    encoder: "Encoder",
    sources: Sequence[ExportSource],
    rows: Mapping[str, Sequence[Record]],
    anchors: Mapping[str, "ServedAnchor"],
) -> bool:
    """Compare a server's prompts with those of `predict`, and say how many are the same."""
    from transformers import AutoTokenizer

    from tell_lightning.export.prompt_check import check_prompts

    tokenizer = AutoTokenizer.from_pretrained(str(draft))
    alike = True
    for source, name in ((one, name) for one in sources for name in one.tasks):
        if not rows[name]:
            continue
        task = source.tasks[name]
        keywords = {"task": name} if len(anchors) > 1 else {}
        with Progress("rendering prompts"):
            found = check_prompts(
                encoder, tokenizer, rows[name], task, source.anchors.variant, keywords
            )
        print(
            f"Prompts: {found.alike:,} of {found.rows:,} rows of {name} have the tokens of "
            "`predict`, sent plain or with the anchor."
        )
        if found.spelt:
            print(
                f"  {found.spelt:,} spell a control token, which a server's tokenizer would not "
                "read as text: the template puts a space into it."
            )
        if found.first_other:
            alike = False
            print(f"  Others differ, such as {found.first_other}: answer them by `predict`.")
    return alike


def write_merged(
    draft: Path, encoder: "Encoder", source: ExportSource, rows: Mapping[str, Sequence[Record]]
) -> None:
    """Write the merged model, and compare its answers with those of base and adapter."""
    from transformers import GenerationConfig

    from tell_lightning.export.merged import (
        compare_answers,
        merged_model,
        own_dtype,
        save_merged,
    )

    settings = source.config.model
    if settings.quantize:
        print(
            f"Merged: the adapter was trained on weights in {settings.quantize}, and is added to "
            "the base's own. It has not seen these, so that answers may differ."
        )
    dtype = own_dtype(settings)
    before = answers_of(source, encoder, rows)
    with Progress("merging"):
        model = merged_model(replace(settings, quantize=None), source.run.adapter, dtype)
        model.generation_config = GenerationConfig.from_pretrained(str(draft))
        save_merged(model, draft)
        del model
    after = answers_of(source, encoder, rows, merged=draft)
    if before:
        found = compare_answers(
            *([answer for some in each.values() for answer in some] for each in (before, after))
        )
        others = f", {found.near_ties} of the others at near ties" if found.near_ties else ""
        print(
            f"Merged: {found.alike} of {found.rows} answers are those of base and adapter{others}; "
            f"the weights are {dtype}, as the base's."
        )


def converters_for(source: ExportSource, base: str) -> Path:
    """Bring llama.cpp's converters, and check that they know the base."""
    from tell_lightning.data.settings import DataSettings
    from tell_lightning.data.splits import cache_folder
    from tell_lightning.export import converters
    from tell_lightning.export.gguf import check_base

    cache = cache_folder(DataSettings(), "--format gguf", "Set XDG_CACHE_HOME to such a folder")
    folder = converters.converters_dir(cache)
    with Progress("asking llama.cpp's converter whether it knows the base"):
        check_base(folder, _base_folder(source, base))
    return folder


def _base_folder(source: ExportSource, base: str) -> Path:
    """Return the folder of the base; of a hub model it is in the cache."""
    if Path(base).is_dir():
        return Path(base)
    from transformers.utils.hub import cached_file

    revision = source.config.model.revision
    return Path(str(cached_file(base, "config.json", revision=revision))).parent


def write_gguf(
    draft: Path,
    folder: Path,
    converters: Path,
    source: ExportSource,
    served: Served,
    kind: str | None,
) -> None:
    """Convert the merged model in a folder, or the adapter alone, and keep the templates."""
    from tell_lightning.data.tokenizer import base_path
    from tell_lightning.export.gguf import convert_adapter, convert_model
    from tell_lightning.export.merged import own_dtype

    model = source.config.model
    with Progress("converting to GGUF"):
        if served.gguf_base is None:
            kind = kind or TYPES[own_dtype(model)]
            convert_model(converters, folder, draft / MODEL_GGUF, kind)
        else:
            base = _base_folder(source, base_path(model.base))
            convert_adapter(converters, source.run.adapter, base, draft / ADAPTER_GGUF)
    for name in ("chat_template.jinja", "additional_chat_templates"):
        if (folder / name).exists():
            os.rename(folder / name, draft / name)


def write_modelfiles(
    draft: Path,
    encoder: "Encoder",
    served: Served,
    anchors: Mapping[str, "ServedAnchor"],
    source: ExportSource,
) -> bool:
    """Write a Modelfile for each task, or say why Ollama cannot prompt as training did."""
    from tell_lightning.export.modelfile import ModelfileError, modelfile, turn_texts

    try:
        texts = turn_texts(encoder)
    except ModelfileError as error:
        print(error)
        return False
    for name, anchor in anchors.items():
        task = source.tasks.get(name)
        text = modelfile(
            texts,
            anchor,
            model=served.gguf_base or f"./{MODEL_GGUF}",
            adapter=f"./{ADAPTER_GGUF}" if served.gguf_base else None,
            stop=[*encoder.renderer.stop_texts, *(task.stop_tokens if task else ())],
            temperature=served.temperature,
            max_new_tokens=task.max_new_tokens if task else served.max_new_tokens,
        )
        file = MODELFILE if len(anchors) == 1 else f"{MODELFILE}-{name}"
        (draft / file).write_text(text, encoding="utf-8")
    return True
