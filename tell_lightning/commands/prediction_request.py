"""The request to `predict`: which model answers which rows, with which anchor.

All files are read and checked here, before torch is imported. Typed keys win over `-c FILE`, which
wins over the run's configuration. Base and anchors are those that the adapter was trained with.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.callbacks.folder import existing_folder
from tell_lightning.commands.check import Config, check
from tell_lightning.commands.config_files import read_config
from tell_lightning.commands.trust import check_trust, model_code, scoring_code
from tell_lightning.data.anchors import Example, anchor_digest
from tell_lightning.data.evaluation_rows import evaluation_example, settled_scoring
from tell_lightning.data.formats import RecordError, cut
from tell_lightning.data.prediction_rows import CheckedRows, check_rows, read_lines, settle_anchor
from tell_lightning.data.reading import Location
from tell_lightning.data.records import Record
from tell_lightning.data.settings import DataSettings, Task
from tell_lightning.data.splits import read_splits, resolve_root
from tell_lightning.data.variants import Variant
from tell_lightning.export.anchor_file import AnchorFile, check_weights, read_anchor_file
from tell_lightning.metrics.kinds.registry import reading_kind
from tell_lightning.model.settings import ModelSettings
from tell_lightning.settings import DEMO, ConfigError


@dataclass(frozen=True)
class Part:
    """Rows of one task, and how they become prompts."""

    name: str
    task: Task
    rows: Iterable[Record]
    known: tuple[Example, ...]
    """Rows with known answers, if the longest of these decides how long an answer may be."""
    free: bool
    """Whether the rows come from the user, not from the task's own files."""


@dataclass(frozen=True)
class PredictionRequest:
    """The rows to answer, and the model that answers them."""

    config: Config
    variant: Variant
    """The form of the anchor in the prompts."""
    trained_variant: Variant
    """The form of the anchor that the adapter was trained with."""
    model: ModelSettings
    adapter: Path | None
    template_digest: str | None
    base_files: Mapping[str, str]
    """Digests of the base that the adapter was trained on, which must be those of `model`."""
    parts: Sequence[Part]

    @property
    def total(self) -> int | None:
        """Count the rows; None if they come from a stream."""
        counts = [part.rows.count for part in self.parts if isinstance(part.rows, CheckedRows)]
        return sum(counts) if len(counts) == len(self.parts) else None


def read_request(options: argparse.Namespace, overrides: list[str]) -> PredictionRequest:
    """Read configuration, anchors and rows.

    Args:
        options: The options of `predict` itself.
        overrides: Keys of the configuration that were typed beside them.

    Raises:
        TellError: Something is missing, wrong, or does not fit the adapter.
    """
    files = list(options.config)
    adapter = Path(options.adapter) if options.adapter else None
    if options.run:
        folder = existing_folder(options.run)
        files = [str(folder.latest_config), *files]
        adapter = folder.adapter
        if not adapter.is_dir():
            raise ConfigError(
                f"--run: must be a run that has ended and left its adapter, got '{options.run}' "
                f"without one. Go on with it: fit --resume {options.run}."
            )
    anchors = read_anchor_file(adapter) if adapter else None
    alone = _task_options(anchors) if anchors and not _give_tasks(files) else []
    given = [*alone, *(part for file in files for part in ("-c", file))]
    # The adapter's own base and anchor win over files, and typed keys win over them.
    trained = _trained_options(anchors) if anchors else ()
    default = None if anchors else DEMO
    config = check([*given, *trained, *overrides], default)
    if options.run and not options.trust:
        own = [f"--config={file}" for file in options.config]
        code = scoring_code(config.values, "kind") | model_code(config.values)
        check_trust(Path(options.run), code, [*own, *overrides])
    tasks, model, variant = config.data.tasks, config.model, config.data.mixture.anchor
    if adapter and anchors:
        check_weights(adapter, anchors)
        tasks = _trained_tasks(tasks, anchors, adapter)
        if model.base != anchors.base:  # typed: the revision of the adapter's base is not for it
            model = check([*given, *overrides], default).model
        for line in _overruled(options.config, anchors, variant, model):
            say(line)
    request = PredictionRequest(
        config=config,
        variant=variant,
        trained_variant=anchors.variant if anchors else variant,
        model=model,
        adapter=adapter,
        template_digest=anchors.template_digest if anchors else None,
        base_files=anchors.base_files if anchors and not options.accept_base else {},
        parts=(),
    )
    return replace(request, parts=_parts(request, options, _chosen(tasks, options.task)))


def _give_tasks(files: Sequence[str]) -> bool:
    sections = [read_config(file).get("data") for file in files]
    return any(isinstance(data, Mapping) and "tasks" in data for data in sections)


def _task_options(anchors: AnchorFile) -> list[str]:
    """Return the options that replace the default's tasks by those of an adapter."""
    tasks = {
        name: {
            **asdict(prompt),
            "stop_tokens": list(prompt.stop_tokens),
            "scoring": prompt.reading,
        }
        for name, prompt in anchors.tasks.items()
    }
    # As YAML, not JSON: YAML reads JSON's escapes of letters beyond the basic plane differently.
    return ["--data.tasks={}", f"--data.tasks={yaml.safe_dump(tasks, default_flow_style=True)}"]


def _trained_options(anchors: AnchorFile) -> list[str]:
    """Return the options for the prompts and the base that an adapter was trained with."""
    return [
        f"--data.thinking={anchors.thinking}",
        f"--data.mixture.anchor={anchors.variant}",
        f"--model.base={anchors.base}",
        f"--model.revision={anchors.revision or 'null'}",
    ]


def _overruled(
    files: Sequence[str], anchors: AnchorFile, variant: Variant, model: ModelSettings
) -> Iterator[str]:
    """Yield a line for each value of a configuration file that the adapter's own value replaces."""
    own = {"data.mixture.anchor": anchors.variant, "model.base": anchors.base}
    used = {"data.mixture.anchor": variant, "model.base": model.base}
    for file in files:
        for key, trained in own.items():
            value: Any = read_config(file)
            for name in key.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
            if value not in {None, trained} and used[key] == trained:
                yield (
                    f"{file}: {key}: {cut(value)} is not used: the adapter was trained with "
                    f"{cut(trained)}; type --{key}={value} to use it all the same"
                )


def _trained_tasks(tasks: dict[str, Task], anchors: AnchorFile, adapter: Path) -> dict[str, Task]:
    """Return the adapter's tasks, with the configuration's settings for their rows and answers.

    Raises:
        ConfigError: The configuration gives a task another anchor than the trained one.
    """
    found = {}
    for name, prompt in anchors.tasks.items():
        task = tasks.get(name) or Task(**vars(prompt))
        if anchor_digest(task.anchor) != anchor_digest(prompt.anchor):
            raise ConfigError(
                f"data.tasks.{name}.anchor: must be the one that the adapter was trained with, in "
                f"{adapter / 'anchor.json'}, got {cut(task.anchor.text)}. Leave it out; "
                "--data.mixture.anchor=none asks without an anchor."
            )
        found[name] = replace(task, max_new_tokens=task.max_new_tokens or prompt.max_new_tokens)
    return found


def _chosen(tasks: dict[str, Task], wanted: str | None) -> dict[str, Task]:
    if not tasks:
        raise ConfigError(
            "data.tasks: predict needs a task, whose anchor the prompts get, got none. Add "
            "data.tasks.NAME; it needs no anchor."
        )
    if wanted is None:
        return tasks
    if wanted not in tasks:
        raise ConfigError(
            f"--task: must be one of {', '.join(tasks)}, got '{wanted}'. Choose one of them."
        )
    return {wanted: tasks[wanted]}


def _parts(
    request: PredictionRequest, options: argparse.Namespace, tasks: dict[str, Task]
) -> list[Part]:
    """Find the rows of each task, and check those that are in files."""
    data = request.config.data
    if options.input is None:
        if options.adapter and not any(task.test for task in tasks.values()):
            raise ConfigError(
                "--input: needs rows to answer, got none, and an adapter folder alone has no test "
                "rows. Write --input FILE, or --input - for standard input."
            )
        files = {name: _test_rows(name, task) for name, task in tasks.items()}
        root = resolve_root(data)
        return [
            _part(request, name, tasks[name], file, root, free=False)
            for name, file in files.items()
        ]
    if len(tasks) > 1:
        raise ConfigError(
            f"--task: must say whose anchor the rows get, got none. Choose one of "
            f"{', '.join(tasks)}."
        )
    ((name, task),) = tasks.items()
    if options.input == "-":
        # At a terminal the user sees what is wrong and types the line again.
        skip = data.on_bad_rows == "skip" or sys.stdin.isatty()
        rows = _lines(task, _examination(request, task, free=True), skip=skip)
        known = _known(data, name, task, request.variant)
        return [Part(name, _settled(data, name, task), rows, known, free=True)]
    return [_part(request, name, task, _input(options.input), Path(), free=True)]


def _part(
    request: PredictionRequest,
    name: str,
    task: Task,
    rows: Location,
    root: Path,
    *,
    free: bool,
) -> Part:
    data = request.config.data
    checked = check_rows(
        rows,
        fields=task.fields,
        root=root,
        examine=_examination(request, task, free=free),
        on_bad_rows=data.on_bad_rows,
        max_bad_share=data.max_bad_share,
    )
    for line in checked.bad:
        say(f"left out: {line}")
    known = _known(data, name, task, request.variant)
    return Part(name, _settled(data, name, task), checked, known, free)


def _examination(
    request: PredictionRequest, task: Task, *, free: bool
) -> Callable[[Record], object]:
    """Return a function that raises if a row cannot become a prompt, with or without the anchor."""

    def examine(record: Record) -> None:
        settled, anchor = settle_anchor(record, task.anchor, request.variant, free=free)
        evaluation_example(settled, anchor, request.variant)

    return examine


def _test_rows(name: str, task: Task) -> Location:
    if task.test is None:
        raise ConfigError(
            f"data.tasks.{name}.test: must name the rows to answer, got null. "
            "Write --input FILE, or set it to a file of rows."
        )
    return task.test


def _input(path: str) -> str:
    """Refuse a folder of several splits: each split has a folder of its own in it."""
    splits = Path(path) / "dataset_dict.json"
    if splits.is_file():
        names = json.loads(splits.read_text(encoding="utf-8"))["splits"]
        raise ConfigError(
            f"--input: must be one split of a data set, got '{path}' with {', '.join(names)}. "
            f"Write --input {Path(path) / names[0]}."
        )
    return path


def _lines(task: Task, examine: Callable[[Record], object], *, skip: bool) -> Iterator[Record]:
    for row in read_lines(sys.stdin.buffer, task.fields, examine):
        if isinstance(row, Record):
            yield row
        elif skip:
            say(f"left out: {row}")
        else:
            raise row


def _known(data: DataSettings, name: str, task: Task, variant: Variant) -> tuple[Example, ...]:
    """Read the known answers of a task, if the longest of them decides how long an answer may be.

    Raises:
        ConfigError: They cannot be read.
    """
    if task.max_new_tokens is not None:
        return ()
    records = _task_records(data, name, replace(task, test=None), needed_for="max_new_tokens")
    return tuple(evaluation_example(record, task.anchor, variant) for record in records)


def _settled(data: DataSettings, name: str, task: Task) -> Task:
    """Take the labels of a task from its rows, where none are configured.

    Raises:
        ConfigError: They cannot be read.
    """
    if reading_kind(task.scoring).is_settled:
        return task
    records = _task_records(data, name, task, needed_for="scoring.labels")
    return replace(task, scoring=settled_scoring(task, name, records))


def _task_records(data: DataSettings, name: str, task: Task, *, needed_for: str) -> list[Record]:
    """Read the rows of a task that have answers."""
    try:
        sources = read_splits(replace(data, tasks={name: task}, general={}))
    except RecordError as error:
        raise ConfigError(
            f"data.tasks.{name}.{needed_for}: must be set if the known answers cannot be read, "
            f"from which it follows, got null: {error}"
        ) from error
    pools = [each[name] for each in (sources.train, sources.dev, sources.test) if name in each]
    return [record for pool in pools for record in pool.records]


def say(text: str) -> None:
    """Print a line to standard error at once; standard output is for answers."""
    print(text, file=sys.stderr, flush=True)
