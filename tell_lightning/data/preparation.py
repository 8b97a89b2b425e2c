"""Training sources become prepared rows in the cache.

Enters: the sources and an encoder. Leaves: one folder of token rows a source, named by everything
that the rows were made from. A source of any size passes through in chunks, with the memory of one;
a process that is killed leaves its complete chunks to the next. Costs the tokenising once, about
the time of reading and rendering again; afterwards a look at the name.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tell_lightning.data import store
from tell_lightning.data.anchors import Anchor, anchor_digest
from tell_lightning.data.formats import Meter, RecordError, RowFile
from tell_lightning.data.ids import Ids
from tell_lightning.data.leaks import Protected
from tell_lightning.data.progress import PreparingProgress
from tell_lightning.data.reading import check_bad_share, iterate_records
from tell_lightning.data.records import Fields, Record
from tell_lightning.data.settings import DataSettings, Overlong
from tell_lightning.data.splits import Pool, SplitError, Splits, cache_folder
from tell_lightning.data.tokens import Encoder, TokenError, encode_source

CHUNK_ROWS = 20_000
"""Rows of a chunk; what a killed process has to do again."""
CHUNK_TOKENS = 2**24
"""Tokens that end a chunk of long rows before."""
BATCH_ROWS = 1_000
"""Rows that are tokenised at once."""
BATCH_CHARACTERS = 2**22
"""Characters that end a batch of long rows before."""
MOST_NOTES = 1_000
"""Rows left out that are named in the report; the rest is counted."""

Entry = Record | RecordError


@dataclass(frozen=True)
class TrainingSource:
    """A source of training rows and all that decides its tokens.

    Attributes:
        key: Its place below `data` in the configuration, such as tasks.translate.
        rows: Records in memory, or a general source that is still to be read.
        chosen: Plain values that decide, beside the file, which rows there are and how they read.
        protected: What no row may hold.
    """

    key: str
    rows: Pool | RowFile
    fields: Fields
    anchor: Anchor
    overlong: Overlong
    chosen: Mapping[str, object]
    protected: Protected = field(default_factory=lambda: Protected([]))

    @property
    def name(self) -> str:
        """The name of the task or general source."""
        return self.key.partition(".")[2]


def training_sources(settings: DataSettings, text: Splits) -> list[TrainingSource]:
    """List the sources to train on, tasks first."""
    sources = []
    for name, pool in text.train.items():
        task = settings.tasks[name]
        chosen = {
            "anchor": anchor_digest(task.anchor),
            "variant": settings.mixture.anchor,
            "dev_from_train": task.dev_from_train,
        }
        sources.append(
            TrainingSource(f"tasks.{name}", pool, task.fields, task.anchor, task.overlong, chosen)
        )
    for name, opened in text.general.items():
        general = settings.general[name]
        sources.append(
            TrainingSource(
                f"general.{name}",
                opened,
                general.fields,
                Anchor(),
                general.overlong,
                {},
                text.protected,
            )
        )
    return sources


@dataclass
class Tally:
    """What became of the rows of a source, or of those of a chunk.

    Attributes:
        rows: Rows that were looked at.
        counts: Rows by reason: bad, leaks, overlong, truncated, kept.
        notes: One line for each row left out, by reason; at most `MOST_NOTES` for each.
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, notes: Sequence[str]) -> None:
        """Count rows that are left out, and note them."""
        self.add(0, {reason: len(notes)}, {reason: notes})

    def add(self, rows: int, counts: Mapping[str, int], notes: Mapping[str, Sequence[str]]) -> None:
        """Add the tally of the next chunk."""
        self.rows += rows
        self.counts.update(counts)
        for reason, lines in notes.items():
            kept = self.notes.setdefault(reason, [])
            kept.extend(lines[: MOST_NOTES - len(kept)])


class Preparation:
    """Tokenises sources with one encoder and settings."""

    def __init__(self, settings: DataSettings, encoder: Encoder) -> None:
        """Keep the encoder; `tokenizer_digest` says which tokenizer it has."""
        self.settings = settings
        self.encoder = encoder
        self.tokenizer_digest = store.tokenizer_digest(encoder.tokenizer)

    def folder(self, source: TrainingSource) -> Path:
        """Return where a source's rows are, or will be."""
        # Which rows are left depends on every file that they are compared with.
        key = store.content_key({**self._parts(source), "protected": source.protected.digest})
        return cache_folder(self.settings) / f"tokens-{key}"

    def _parts(self, source: TrainingSource) -> dict[str, object]:
        """Return what decides how the rows read that are left."""
        return {
            "file": source.rows.sha256,
            "fields": asdict(source.fields),
            "bad_rows": self.settings.on_bad_rows,
            "max_bad_share": self.settings.max_bad_share,
            "max_tokens": self.settings.max_tokens,
            "overlong": source.overlong,
            "template": self.encoder.renderer.template_digest,
            "tokenizer": self.tokenizer_digest,
            **source.chosen,
        }

    def prepare(self, sources: Sequence[TrainingSource]) -> None:
        """Tokenise what is not in the cache.

        Raises:
            RecordError: A bad row of a general source, or too many of them.
            SplitError: A general source of protected rows alone.
            TokenError: An example that is too long, or that has nothing to train on.
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
        with PreparingProgress(source.name, meter, total.rows) as progress:
            while True:
                tally = Tally()
                batches = list(self._chunk(source, entries, tally, progress))
                if not tally.rows:
                    break
                named = ids.settle() if source.fields.id is not None else None
                draft.add(batches, vars(tally), named)
                total.add(**vars(tally))
        parts = {**self._parts(source), "ids": draft.id_digest()}
        return {"parts": parts, **self._report(source, total)}

    def _entries(
        self, source: TrainingSource, ids: Ids, meter: Meter, start: int
    ) -> Iterator[Entry]:
        if isinstance(source.rows, Pool):
            return iter(source.rows.records[start:])
        return iterate_records(source.rows, source.fields, ids, meter, start=start)

    def _chunk(
        self,
        source: TrainingSource,
        entries: Iterator[Entry],
        tally: Tally,
        progress: PreparingProgress,
    ) -> Iterator[Any]:
        """Yield the Arrow batches of the next chunk; none at the end."""
        tokens = 0
        while tally.rows < CHUNK_ROWS and tokens < CHUNK_TOKENS:
            before = tally.rows
            records = self._batch(source, entries, tally)
            if tally.rows == before:
                return
            encoded = encode_source(
                self.encoder,
                records,
                source.anchor,
                name=f"data.{source.key}",
                variant=self.settings.mixture.anchor,
                max_tokens=self.settings.max_tokens,
                overlong=source.overlong,
            )
            tally.leave_out("overlong", encoded.dropped)
            tally.counts.update(truncated=encoded.truncated, kept=len(encoded.rows))
            tokens += sum(len(row.input_ids) for row in encoded.rows)
            yield store.record_batch(
                {
                    "input_ids": [row.input_ids for row in encoded.rows],
                    "supervised": [row.supervised for row in encoded.rows],
                    "id": [records[index].id for index in encoded.records],
                    "where": [records[index].where for index in encoded.records],
                }
            )
            progress.advance(tally.rows - before)

    def _batch(
        self, source: TrainingSource, entries: Iterator[Entry], tally: Tally
    ) -> list[Record]:
        """Read the records of the next batch; bad and protected ones are left out and counted."""
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
        """Check what is left of a source and say what is not.

        Raises:
            TellError: Too many bad rows, or no row is left.
        """
        counts = total.counts
        if isinstance(source.rows, Pool):
            read = dict(source.rows.counts)
            total.leave_out("bad", source.rows.notes)
        else:
            good, bad = total.rows - counts["bad"], total.notes.get("bad", [])
            share = self.settings.max_bad_share
            check_bad_share(source.rows.where, good, counts["bad"], bad, share)
            read = {"read": total.rows, "bad": counts["bad"], "leaks": counts["leaks"]}
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
        read |= {reason: counts[reason] for reason in ("overlong", "truncated", "kept")}
        reasons = ("bad", "leaks", "overlong")
        left_out = [note for reason in reasons for note in total.notes.get(reason, [])]
        more = sum(counts[reason] for reason in reasons) - len(left_out[:MOST_NOTES])
        left_out[MOST_NOTES:] = [f"and {more:,} more rows"] if more else []
        return {"sha256": source.rows.sha256, "counts": read, "left_out": left_out}
