"""Read the text of a run: every task split and held-out set; general sources are only opened.

General sources may be of any size: they are digested here, and read when they are prepared. Needs
neither torch nor a tokenizer, so a mistake in a small file is reported at once.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from tell_lightning.data.anchors import Anchor, Example, anchor_record
from tell_lightning.data.formats import Meter, RowFile
from tell_lightning.data.ids import Ids
from tell_lightning.data.leaks import Protected, check_disjoint
from tell_lightning.data.permutation import derive_key, permute
from tell_lightning.data.reading import (
    Location,
    RecordSet,
    iterate_records,
    open_rows,
    read_records,
)
from tell_lightning.data.records import Fields, Record
from tell_lightning.data.settings import DataSettings, General, Task
from tell_lightning.errors import TellError
from tell_lightning.files import expanded
from tell_lightning.microworld.world import WORLDS, data_root

STARTING_ROWS = 1_000
"""Rows of a general source that are checked at once."""


class SplitError(TellError):
    """A data section whose parts do not fit together."""


@dataclass(frozen=True)
class Splits:
    """The records of a run, by the name of their task or source.

    Attributes:
        general: The opened general sources; their rows are read when they are prepared.
        protected: The texts that no general row may repeat.
    """

    train: dict[str, RecordSet] = field(default_factory=dict)
    dev: dict[str, RecordSet] = field(default_factory=dict)
    test: dict[str, RecordSet] = field(default_factory=dict)
    held_out: dict[str, RecordSet] = field(default_factory=dict)
    general: dict[str, RowFile] = field(default_factory=dict)
    protected: Protected = field(default_factory=lambda: Protected([]))


def cache_folder(
    settings: DataSettings,
    where: str = "data.cache_dir",
    cure: str = "Write --data.cache_dir=FOLDER",
) -> Path:
    """Return the folder for prepared data; a missing folder is made.

    Args:
        settings: The data section.
        where: The key that an error names.
        cure: What to do about an error.

    Raises:
        SplitError: The folder cannot be made, or starts from a home that is not known.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = os.path.expanduser(settings.cache_dir or os.path.join(base, "tell_lightning"))
    if path.startswith("~"):
        raise SplitError(
            f"{where}: must not start from a home that is not known, got '{path}'. {cure}, or "
            "set HOME."
        )
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SplitError(
            f"{where}: must be a folder to write to, got '{folder}': {error.strerror}. {cure}."
        ) from error
    return folder


def resolve_root(settings: DataSettings) -> Path:
    """Return the folder that the paths of the configuration start from.

    Raises:
        SplitError: The folder does not exist.
    """
    if settings.root in WORLDS:
        return data_root(cache_folder(settings), settings.root)
    root = expanded(settings.root)
    if not root.is_dir():
        raise SplitError(
            f"data.root: must be an existing folder, got '{settings.root}' "
            f"(looked in {Path.cwd()}). Give the folder that your data files are in."
        )
    return root


def read_splits(settings: DataSettings) -> Splits:
    """Read and check every task split and held-out set; open the general sources.

    Raises:
        TellError: A missing file, a bad row, a missing anchor, a test row in the training rows.
    """
    _check_names(settings)
    check_general(settings.general)
    root = resolve_root(settings)
    read = partial(
        read_records,
        root=root,
        on_bad_rows=settings.on_bad_rows,
        max_bad_share=settings.max_bad_share,
    )
    sources = Splits()
    for name, task in settings.tasks.items():
        for split in ("train", "dev", "test"):
            location = getattr(task, split)
            if location is not None:
                getattr(sources, split)[name] = read(
                    location,
                    fields=task.fields,
                    name=f"{name}.{split}",
                    examine=partial(  # a row may lack an anchor that it must carry
                        anchor_record,
                        anchor=task.anchor,
                        anchored=True,
                        check_reference=split == "train",
                    ),
                )
        if task.dev_from_train is not None:
            _set_dev_apart(name, task, task.dev_from_train, sources)
        for split in ("dev", "test"):
            if name in sources.train and name in getattr(sources, split):
                held_out = getattr(sources, split)[name].records
                check_disjoint(sources.train[name].records, held_out, task.anchor)
    for name, general in settings.general.items():
        sources.general[name] = open_rows(
            rows_of(name, general), fields=general.fields, root=root, name=f"{name}.train"
        )
        if settings.on_bad_rows == "error":
            _check_start(sources.general[name], general.fields)
        if general.held_out is not None:
            sources.held_out[name] = read(
                general.held_out, fields=general.fields, name=f"{name}.held_out"
            )
    return replace(sources, protected=Protected(_protected(settings, sources)))


def _check_start(source: RowFile, fields: Fields) -> None:
    """Report a bad row near the start of a large file at once, before the file is prepared.

    Raises:
        RecordError: One of the first rows is bad.
    """
    for entry in islice(iterate_records(source, fields, Ids(), Meter()), STARTING_ROWS):
        if not isinstance(entry, Record):
            raise entry


def general_example(record: Record) -> Example:
    """Turn a general record into an example without an anchor."""
    return anchor_record(record, Anchor(), anchored=False)


def _set_dev_apart(name: str, task: Task, count: int, sources: Splits) -> None:
    """Move training rows to dev; every seed moves the same rows."""
    key = f"data.tasks.{name}.dev_from_train"
    if task.dev is not None:
        raise SplitError(f"{key}: must stand alone, got dev as well. Leave one of the two out.")
    train = sources.train.get(name)
    rows = len(train.records) if train else 0
    if train is None or not 0 < count < rows:
        raise SplitError(
            f"{key}: must be at least 1 and leave a row to train on, got {count} of {rows} "
            "training rows. Lower it, or give dev."
        )
    chosen = set(permute(range(count), rows, derive_key(0, "dev_from_train")).tolist())
    split: dict[bool, list[Record]] = {False: [], True: []}
    for index, record in enumerate(train.records):
        split[index in chosen].append(record)
    sources.train[name] = replace(train, records=tuple(split[False]), set_apart=count)
    sources.dev[name] = replace(train, records=tuple(split[True]), bad=())


def _protected(settings: DataSettings, sources: Splits) -> Iterator[tuple[Record, Anchor]]:
    """Yield every record that no general row may repeat."""
    for split in (sources.train, sources.dev, sources.test):
        for name, rows in split.items():
            for record in rows.records:
                yield record, settings.tasks[name].anchor
    for rows in sources.held_out.values():
        for record in rows.records:
            yield record, Anchor()


def check_general(sources: Mapping[str, General]) -> None:
    """Check that each general source says in one way where its rows come from.

    Raises:
        SplitError: A source has neither train nor generate, or both, or names fields for rows that
            the base writes.
    """
    for name, source in sources.items():
        key = f"data.general.{name}"
        if (source.train is None) == (source.generate is None):
            got = "neither" if source.train is None else f"both, generate: {source.generate}"
            raise SplitError(
                f"{key}: must have train, or generate for rows that the base writes itself, got "
                f"{got}. Give one of the two."
            )
        if source.closings and source.generate is None:
            raise SplitError(
                f"{key}.closings: must go with generate, got {source.closings[0]!r:.60} for rows "
                "of a file. Remove it."
            )
        if source.generate is not None and source.fields != Fields():
            raise SplitError(
                f"{key}.fields: must be left out where the base writes the rows, which have prompt "
                f"and response, got {_changed_fields(source.fields)}. Remove it; a held_out with "
                "other fields can stand in a source of its own."
            )


def _changed_fields(given: Fields) -> str:
    usual = vars(Fields())
    return ", ".join(f"{key}: {value}" for key, value in vars(given).items() if value != usual[key])


def rows_of(name: str, source: General) -> Location:
    """Return where the rows of a source are.

    Raises:
        SplitError: The base has still to write them.
    """
    if source.train is None:
        raise SplitError(
            f"data.general.{name}.generate: the rows must be written before they are read, got "
            f"{source.generate} to write. From Python, use general={{'{name}': "
            f"generate_general(base, {source.generate})}}."
        )
    return source.train


def _check_names(settings: DataSettings) -> None:
    if not settings.tasks and not settings.general:
        raise SplitError(
            "data: needs tasks or general sources, got none. Add data.tasks and data.general."
        )
    both: set[str] = set(settings.tasks) & set(settings.general)
    names: dict[str, Task | General] = {**settings.tasks, **settings.general}
    for name in names:
        if name in both or not name.replace("_", "").replace("-", "").isalnum():
            raise SplitError(
                f"data: names of tasks and sources must be distinct and made of letters, digits, "
                f"'_' and '-', got '{name}'. Rename it."
            )
