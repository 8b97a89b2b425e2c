"""The runs, tasks and rows that `export` is asked for; mistakes are found before a model loads."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tell_lightning.callbacks.folder import RunFolder, existing_folder
from tell_lightning.commands.check import Config, check
from tell_lightning.commands.trust import check_trust, model_code
from tell_lightning.data.base_files import check_base
from tell_lightning.data.reading import DataLocation, read_records
from tell_lightning.data.records import Record
from tell_lightning.data.settings import General, Task
from tell_lightning.data.splits import resolve_root
from tell_lightning.errors import TellError
from tell_lightning.export.anchor_file import (
    AnchorFile,
    TaskPrompt,
    check_weights,
    read_anchor_file,
)
from tell_lightning.export.card import DataSource
from tell_lightning.export.gguf import check_adapter, check_gguf_file
from tell_lightning.settings import ConfigError


@dataclass(frozen=True)
class ExportSource:
    """What is exported."""

    run: RunFolder
    config: Config
    anchors: AnchorFile
    tasks: Mapping[str, TaskPrompt]


def read_source(asked: argparse.Namespace, overrides: Sequence[str]) -> ExportSource:
    """Read the run; everything that can be wrong without a model is found here."""
    run = existing_folder(asked.run)
    if not run.adapter.is_dir():
        raise ConfigError(
            f"RUN: must be a run that has ended and left its adapter, got '{asked.run}' without "
            f"one. Go on with it: fit --resume {asked.run}."
        )
    anchors = read_anchor_file(run.adapter)
    check_weights(run.adapter, anchors)
    trained = [f"--model.base={anchors.base}", f"--model.revision={anchors.revision or 'null'}"]
    config = check(["-c", str(run.latest_config), *trained, *overrides], None)
    if not asked.trust:
        check_trust(run.path, model_code(config.values), overrides)
    _check_gguf_options(asked, run.adapter)
    if asked.task is not None and asked.task not in anchors.tasks:
        raise ConfigError(
            f"--task: must be one of {', '.join(anchors.tasks) or 'none'}, got '{asked.task}'. "
            "Choose one of them."
        )
    tasks = {name: t for name, t in anchors.tasks.items() if asked.task in {None, name}}
    if asked.check and config.eval.temperature:
        raise ConfigError(
            "--check: compares greedy answers, since drawn ones differ every time, got "
            f"eval.temperature: {config.eval.temperature:g}. Add --eval.temperature=0."
        )
    return ExportSource(run, config, anchors, tasks)


def read_beside(asked: argparse.Namespace, source: ExportSource) -> ExportSource:
    """Read the other run, and refuse what one server with one template cannot serve."""
    if asked.format != "adapter":
        raise ConfigError(
            f"--beside: goes with --format adapter, got {asked.format}, which is one whole model. "
            "Leave one of them out."
        )
    model = source.config.model
    keys = [f"--model.base={model.base}", f"--model.revision={model.revision or 'null'}"]
    other = argparse.Namespace(**{**vars(asked), "run": asked.beside, "task": None})
    found = read_source(other, keys)
    if not asked.accept_base:
        check_base(found.anchors.base_files, model.base, model.revision)
    for name in found.tasks:
        if name in source.tasks:
            raise ConfigError(
                f"--beside: must be a run with tasks of other names, since a request names one, "
                f"got '{name}' in both. Serve them by a server each."
            )
    if found.anchors.thinking != source.anchors.thinking:
        raise ConfigError(
            f"--beside: must be a run with data.thinking: {source.anchors.thinking}, got "
            f"{found.anchors.thinking}. Serve them by a server each."
        )
    if found.run.path.absolute().name == asked.to.absolute().name:
        raise ConfigError(
            f"--to: must have another name than the folder of --beside, by which requests choose "
            f"the adapter, got '{asked.to.absolute().name}' for both. Name another one."
        )
    return found


def _check_gguf_options(asked: argparse.Namespace, adapter: Path) -> None:
    """Refuse options of another format, and an adapter that GGUF cannot carry by itself."""
    for name, given in (("--gguf-base", asked.gguf_base), ("--gguf-type", asked.gguf_type)):
        if given is not None and asked.format != "gguf":
            raise ConfigError(
                f"{name}: belongs to --format gguf, got --format {asked.format}. Write --format "
                f"gguf, or leave {name} out."
            )
    if asked.gguf_base is None:
        return
    if asked.gguf_type is not None:
        raise ConfigError(
            "--gguf-type: is the type of a merged model, got --gguf-base, with which the adapter "
            "alone is written. Leave one of them out."
        )
    check_gguf_file(asked.gguf_base)
    check_adapter(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")))


def data_sources(config: Config) -> dict[str, DataSource]:
    """Return what a configuration says of its training rows, by task and general source."""
    sources: dict[str, Task | General] = {**config.data.tasks, **config.data.general}
    return {name: _data_source(source) for name, source in sources.items()}


def _data_source(source: Task | General) -> DataSource:
    place = source.train if isinstance(source.train, DataLocation) else DataLocation()
    return DataSource(place.hub, place.revision, source.license)


def test_rows(source: ExportSource, name: str) -> Iterator[Record]:
    """Read the test rows of a task, or its dev rows; none where they cannot be read here."""
    data = source.config.data
    settings = data.tasks.get(name)
    place = (settings.test or settings.dev) if settings else None
    if place is None:
        return
    try:
        found = read_records(
            place,
            fields=source.tasks[name].fields,
            root=resolve_root(data),
            on_bad_rows=data.on_bad_rows,
            max_bad_share=data.max_bad_share,
            need_response=False,
        )
    except TellError as error:
        print(f"Prompts: not checked for {name}, whose rows cannot be read: {error}")
        return
    yield from found.records


def example_prompt(source: ExportSource, rows: Mapping[str, Sequence[Record]]) -> str:
    """Return a short prompt of the first task, without its anchor, for the printed lines."""
    from tell_lightning.data.prediction_rows import settle_anchor

    for name, task in source.tasks.items():
        for record in rows[name]:
            plain, _ = settle_anchor(record, task.anchor, "none", free=True)
            text = plain.prompt_turns[-1].content
            if len(plain.prompt_turns) == 1 and len(text) <= 200:
                return text
        break
    return "Your text."
