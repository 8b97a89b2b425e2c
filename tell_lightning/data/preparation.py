"""Training sources become prepared rows in the cache.

Enters: the text of the sources and an encoder. Leaves: one folder of token rows a source, named by
everything that the rows were made from. Costs the tokenising once; afterwards a look at the name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tell_lightning.data import store
from tell_lightning.data.anchors import Anchor, anchor_digest
from tell_lightning.data.records import Fields
from tell_lightning.data.settings import DataSettings, Overlong
from tell_lightning.data.sources import Pool, Sources, cache_folder
from tell_lightning.data.tokens import Encoder, encode_source


@dataclass(frozen=True)
class TrainingSource:
    """A source of training rows and all that decides its tokens.

    Attributes:
        key: Its place below `data` in the configuration, such as tasks.translate.
        chosen: Plain values that decide, beside the file, which rows there are and how they read.
    """

    key: str
    pool: Pool
    fields: Fields
    anchor: Anchor
    overlong: Overlong
    chosen: Mapping[str, object]

    @property
    def name(self) -> str:
        """The name of the task or general source."""
        return self.key.partition(".")[2]


def training_sources(settings: DataSettings, text: Sources) -> list[TrainingSource]:
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
    for name, pool in text.general.items():
        general = settings.general[name]
        # Which rows are left depends on every file that they are compared with.
        rows = blake2b("\n".join(record.id for record in pool.records).encode(), digest_size=16)
        kept = {"rows": rows.hexdigest(), "counts": dict(pool.counts)}
        sources.append(
            TrainingSource(
                f"general.{name}", pool, general.fields, Anchor(), general.overlong, kept
            )
        )
    return sources


class Preparation:
    """Tokenises sources with one encoder and settings."""

    def __init__(self, settings: DataSettings, encoder: Encoder) -> None:
        """Keep the encoder; `tokenizer_digest` says which tokenizer it has."""
        self.settings = settings
        self.encoder = encoder
        self.tokenizer_digest = store.tokenizer_digest(encoder.tokenizer)

    def folder(self, source: TrainingSource) -> Path:
        """Return where a source's rows are, or will be."""
        key = store.content_key(
            {
                "file": source.pool.sha256,
                "fields": asdict(source.fields),
                "bad_rows": self.settings.on_bad_rows,
                "max_tokens": self.settings.max_tokens,
                "overlong": source.overlong,
                "template": self.encoder.renderer.template_digest,
                "tokenizer": self.tokenizer_digest,
                **source.chosen,
            }
        )
        return cache_folder(self.settings) / f"tokens-{key}"

    def prepare(self, sources: Sequence[TrainingSource]) -> None:
        """Tokenise what is not in the cache.

        Raises:
            TokenError: An example that is too long, or that has nothing to train on.
        """
        for source in sources:
            store.prepare(self.folder(source), partial(self._build, source))

    def _build(self, source: TrainingSource) -> tuple[dict[str, list[Any]], dict[str, Any]]:
        """Return the columns and the report of a source."""
        records, pool = source.pool.records, source.pool
        encoded = encode_source(
            self.encoder,
            records,
            source.anchor,
            name=f"data.{source.key}",
            variant=self.settings.mixture.anchor,
            max_tokens=self.settings.max_tokens,
            overlong=source.overlong,
        )
        columns: dict[str, list[Any]] = {
            "input_ids": [row.input_ids for row in encoded.rows],
            "supervised": [row.supervised for row in encoded.rows],
            "id": [records[index].id for index in encoded.records],
            "where": [records[index].where for index in encoded.records],
        }
        counts = {
            **pool.counts,
            "overlong": len(encoded.dropped),
            "truncated": encoded.truncated,
            "kept": len(encoded.rows),
        }
        left_out = [*pool.notes, *encoded.dropped]
        return columns, {"counts": counts, "sha256": pool.sha256, "left_out": left_out}
