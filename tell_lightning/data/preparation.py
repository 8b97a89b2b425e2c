"""Tokenise training sources into the cache: one folder for each, named by a digest of its inputs.

A source of any size is prepared in chunks; only one chunk is in memory. If the process is killed,
the next one continues after the last complete chunk. Each source is tokenised only once, by
threads: while the tokenizer works in one, Python reads and renders in another.
"""

import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tell_lightning.data import store
from tell_lightning.data.anchors import Anchor, anchor_digest
from tell_lightning.data.encoding import Encoded, encode_source
from tell_lightning.data.formats import Meter, RowFile
from tell_lightning.data.ids import Ids
from tell_lightning.data.leaks import Protected
from tell_lightning.data.reading import RecordSet, check_bad_share, iterate_records
from tell_lightning.data.records import Fields, Record
from tell_lightning.data.report import CHANGES
from tell_lightning.data.settings import DataSettings, Overlong
from tell_lightning.data.splits import SplitError, Splits, cache_folder
from tell_lightning.data.tokens import Encoder, TokenError
from tell_lightning.errors import TellError
from tell_lightning.progress import Progress

CHUNK_ROWS = 20_000
"""Rows of a chunk. A killed process loses at most one chunk."""
CHUNK_TOKENS = 2**24
"""A chunk also ends after this many tokens."""
BATCH_ROWS = 500
"""Rows tokenised at once by one thread."""
BATCH_CHARACTERS = 2**21
"""A batch also ends after this many characters."""
MOST_THREADS = 4
"""Most threads that tokenise. More would wait for the one that Python runs."""
MOST_NOTES = 1_000
"""Most left-out rows that are named in the report; the others are only counted."""

Entry = Record | TellError


@dataclass(frozen=True)
class TrainingSource:
    """A source of training rows and all that decides its tokens.

    Attributes:
        key: Its key below `data` in the configuration, such as tasks.translate.
        rows: Records in memory, or a general source that is not read yet.
        chosen: Other plain values that the rows depend on.
        protected: The texts that no row may repeat.
    """

    key: str
    rows: RecordSet | RowFile
    fields: Fields
    anchor: Anchor
    overlong: Overlong
    chosen: Mapping[str, object]
    protected: Protected = field(default_factory=lambda: Protected([]))

    @property
    def name(self) -> str:
        """The name of the task or general source."""
        return self.key.partition(".")[2]


def training_sources(settings: DataSettings, splits: Splits) -> list[TrainingSource]:
    """List the sources to train on, tasks first."""
    sources = []
    for name, pool in splits.train.items():
        task = settings.tasks[name]
        chosen = {
            "anchor": anchor_digest(task.anchor),
            "variant": settings.mixture.anchor,
            "dev_from_train": task.dev_from_train,
        }
        sources.append(
            TrainingSource(f"tasks.{name}", pool, task.fields, task.anchor, task.overlong, chosen)
        )
    for name, opened in splits.general.items():
        general = settings.general[name]
        key, overlong = f"general.{name}", general.overlong
        sources.append(
            TrainingSource(key, opened, general.fields, Anchor(), overlong, {}, splits.protected)
        )
    return sources


@dataclass
class Tally:
    """Counts of the rows of a source or of a chunk.

    Attributes:
        rows: Number of rows read.
        counts: Numbers of rows: bad, leaks, overlong, truncated, kept, and those of `CHANGES`.
        notes: One line for each row left out, by reason; at most `MOST_NOTES` for each.
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, notes: Sequence[str]) -> None:
        """Count and note rows that are left out."""
        self.add(0, {reason: len(notes)}, {reason: notes})

    def add(self, rows: int, counts: Mapping[str, int], notes: Mapping[str, Sequence[str]]) -> None:
        """Add another tally."""
        self.rows += rows
        self.counts.update(counts)
        for reason, lines in notes.items():
            kept = self.notes.setdefault(reason, [])
            kept.extend(lines[: MOST_NOTES - len(kept)])


class Preparation:
    """Tokenises sources with one encoder and settings."""

    def __init__(self, settings: DataSettings, encoder: Encoder) -> None:
        """Digest the tokenizer."""
        self.settings = settings
        self.encoder = encoder
        self.tokenizer_digest = store.tokenizer_digest(encoder.tokenizer)

    def folder(self, source: TrainingSource) -> Path:
        """Return the folder of a source's prepared rows, which may not exist yet."""
        # Which rows are left depends on all files that they are compared with.
        key = store.content_key({**self._parts(source), "protected": source.protected.digest})
        return cache_folder(self.settings) / f"tokens-{key}"

    def _parts(self, source: TrainingSource) -> dict[str, object]:
        """Return everything that the tokens of a kept row depend on."""
        return {
            "file": source.rows.sha256,
            # False: not set; earlier versions did not have the setting.
            "fields": {k: v for k, v in asdict(source.fields).items() if v is not False},
            "bad_rows": self.settings.on_bad_rows,
            "max_bad_share": self.settings.max_bad_share,
            "max_tokens": self.settings.max_tokens,
            "overlong": source.overlong,
            "template": self.encoder.renderer.template_digest,
            "tokenizer": self.tokenizer_digest,
            **({"quoting": source.rows.quoting} if source.rows.quoting else {}),
            **source.chosen,
        }

    def prepare(self, sources: Sequence[TrainingSource]) -> None:
        """Tokenise the sources that are not in the cache.

        Raises:
            RecordError: A general source has a bad row, or too many bad rows.
            SplitError: A general source has only protected rows.
            TokenError: An example is too long, or has nothing to train on.
        """
        for source in sources:
            store.prepare(self.folder(source), partial(self._build, source))

    def _build(self, source: TrainingSource, draft: store.Draft) -> dict[str, Any]:
        """Add the chunks that a draft lacks, and return the report of the source."""
        total, ids, meter = Tally(), Ids(), Meter()
        for facts in draft.facts():
            total.add(**facts)
        for table in draft.ids():
            ids.extend(table)
        entries = self._entries(source, ids, meter, total.rows)
        what, share = f"preparing {source.name}", lambda: meter.share
        with Progress(what, done=total.rows, share=share) as progress, self._threads() as threads:
            while True:
                tally = Tally()
                batches = list(self._chunk(source, entries, tally, progress, threads))
                if not tally.rows:
                    break
                named = ids.settle() if source.fields.id is not None else None
                draft.add(batches, vars(tally), named)
                total.add(**vars(tally))
        parts = {**self._parts(source), "ids": draft.id_digest()}
        if total.counts["control_text"]:  # up to tokens-v4 these rows had other tokens
            parts["control_text"] = total.counts["control_text"]
        return {"parts": parts, **self._report(source, total)}

    def _entries(
        self, source: TrainingSource, ids: Ids, meter: Meter, start: int
    ) -> Iterator[Entry]:
        if isinstance(source.rows, RecordSet):
            return iter(source.rows.records[start:])
        return iterate_records(source.rows, source.fields, ids, meter, start=start)

    @contextmanager
    def _threads(self) -> Iterator[ThreadPoolExecutor]:
        """Yield threads; if an error ends the block, the batches that wait are not begun."""
        # A tokenizer in Python may not be used by two threads at once, and would gain nothing.
        number = min(MOST_THREADS, os.cpu_count() or 1) if self.encoder.tokenizer.is_fast else 1
        threads = ThreadPoolExecutor(number)
        try:
            yield threads
        finally:
            threads.shutdown(cancel_futures=True)

    def _chunk(
        self,
        source: TrainingSource,
        entries: Iterator[Entry],
        tally: Tally,
        progress: Progress,
        threads: ThreadPoolExecutor,
    ) -> Iterator[Any]:
        """Yield the Arrow batches of the next chunk; nothing at the end of the source."""
        tokens, at_end = 0, False
        begun: deque[tuple[int, Future[tuple[Encoded, Any]]]] = deque()
        while True:
            while not at_end and len(begun) <= MOST_THREADS:
                before = tally.rows
                full = before >= CHUNK_ROWS or tokens >= CHUNK_TOKENS
                records = [] if full else self._batch(source, entries, tally)
                at_end = tally.rows == before
                if not at_end:
                    begun.append(
                        (tally.rows - before, threads.submit(self._encode, source, records))
                    )
            if not begun:
                return
            rows, future = begun.popleft()
            encoded, batch = future.result()
            tally.leave_out("bad", encoded.bad)
            tally.leave_out("overlong", encoded.dropped)
            tally.counts.update({**encoded.counts, "kept": len(encoded.rows)})
            tokens += sum(len(row.input_ids) for row in encoded.rows)
            yield batch
            progress.advance(rows)

    def _encode(self, source: TrainingSource, records: Sequence[Record]) -> tuple[Encoded, Any]:
        """Tokenise a batch, and return it also as an Arrow batch."""
        encoded = encode_source(
            self.encoder,
            records,
            source.anchor,
            name=f"data.{source.key}",
            variant=self.settings.mixture.anchor,
            max_tokens=self.settings.max_tokens,
            overlong=source.overlong,
            skip=self.settings.on_bad_rows == "skip",
        )
        columns: dict[str, list[Any]] = {
            "input_ids": [row.input_ids for row in encoded.rows],
            "supervised": [row.supervised for row in encoded.rows],
            "id": [record.id for record in encoded.records],
            "where": [record.where for record in encoded.records],
        }
        return encoded, store.record_batch(columns)

    def _batch(
        self, source: TrainingSource, entries: Iterator[Entry], tally: Tally
    ) -> list[Record]:
        """Read the records of the next batch; bad and protected rows are left out and counted."""
        records: list[Record] = []
        rows = characters = 0
        while rows < BATCH_ROWS and characters < BATCH_CHARACTERS:
            entry = next(entries, None)
            if entry is None:
                break
            rows += 1
            if not isinstance(entry, Record):
                if self.settings.on_bad_rows == "error":
                    raise entry
                tally.leave_out("bad", [str(entry)])
            elif source.protected.holds(entry):
                note = f"{entry.where}: left out, a task or held-out set has it"
                tally.leave_out("leaks", [note])
            else:
                records.append(entry)
                characters += sum(len(turn.content) for turn in entry.turns)
        tally.rows += rows
        return records

    def _report(self, source: TrainingSource, total: Tally) -> dict[str, Any]:
        """Check the tally of a source and return its report.

        Raises:
            TellError: Too many rows are bad, or no row is left.
        """
        counts = total.counts
        refused, good = counts["bad"], total.rows - counts["bad"]
        if isinstance(source.rows, RecordSet):
            total.leave_out("bad", source.rows.bad)
            report_counts = source.rows.counts | {"bad": counts["bad"]}
            where = f"data.{source.key}"
        else:
            report_counts = {"read": total.rows, "bad": counts["bad"], "leaks": counts["leaks"]}
            where = source.rows.where
        if refused or not isinstance(source.rows, RecordSet):
            share = self.settings.max_bad_share
            check_bad_share(where, good, counts["bad"], total.notes.get("bad", []), share)
        if good == counts["leaks"]:
            raise SplitError(
                f"data.{source.key}: must hold rows that no task or held-out set has, got "
                f"{good} rows and no row is left. Give other general data."
            )
        if not counts["kept"]:
            raise TokenError(
                f"data.{source.key}: no example is left of {counts['overlong']}, all were longer "
                f"than data.max_tokens {self.settings.max_tokens}. Raise data.max_tokens."
            )
        report_counts |= {reason: counts[reason] for reason in ("overlong", "truncated", "kept")}
        report_counts |= {reason: counts[reason] for reason in CHANGES if counts[reason]}
        reasons = ("bad", "leaks", "overlong")
        left_out = [note for reason in reasons for note in total.notes.get(reason, [])]
        more = sum(counts[reason] for reason in reasons) - len(left_out[:MOST_NOTES])
        left_out[MOST_NOTES:] = [f"and {more:,} more rows"] if more else []
        return {"sha256": source.rows.sha256, "counts": report_counts, "left_out": left_out}
