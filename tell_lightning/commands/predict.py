"""`predict`: answer rows of a file or of standard input; prompts get the anchor automatically.

The command line, the files and the rows are read and checked before torch is imported
(`prediction_request`). With --output, a prediction that was stopped goes on when the same command
is typed again.
"""

import argparse
import hashlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from itertools import chain, islice, repeat
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from tell_lightning.commands.arguments import CommandParser
from tell_lightning.commands.check import Config
from tell_lightning.commands.prediction_request import Part, PredictionRequest, read_request, say
from tell_lightning.commands.startup import quieten
from tell_lightning.commands.trust import TRUST, TRUST_HELP
from tell_lightning.data.base_files import ACCEPT, ACCEPT_HELP, check_base
from tell_lightning.data.evaluation_rows import EvaluationRows
from tell_lightning.data.prediction_rows import CheckedRows, settle_anchor
from tell_lightning.data.records import other_columns
from tell_lightning.data.settings import Task
from tell_lightning.export.answers_file import (
    AnswersFile,
    AnswersStream,
    RowKey,
    open_answers,
)
from tell_lightning.files import sha256_of
from tell_lightning.metrics.kinds.registry import reading_kind
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import saved_row
from tell_lightning.progress import Progress
from tell_lightning.settings import ConfigError

if TYPE_CHECKING:
    from tell_lightning.data.tokens import Encoder

DESCRIPTION = """
Answer rows of a file or of standard input; prompts get the task's anchor automatically.

Without --input the task's test rows are answered. FILE may be whatever training reads (JSONL, JSON,
CSV, TSV, each also .gz and .zst, Parquet, a folder of save_to_disk); `-` reads standard input line
by line: a line that begins with `{` is a JSON row, any other line is a prompt. A row that already
has the anchor is not changed.

Answers are JSON, one object a line, in the order of the rows; columns that no field names stand
under `row`. With --output, a prediction that was stopped goes on when the same command is typed
again; existing lines are never changed.

--KEY=VALUE is a key of the configuration, such as --eval.batch_tokens=4096 or --model.base=DIR;
`python -m tell_lightning help` lists them.
"""
BLOCK = 2_048
"""Rows of a file that are tokenised together."""
FIRST_CHUNKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Sizes of the first chunks of rows, as shares of a batch; the others fill a whole batch. The
answers of a chunk are written together, so the first ones come soon."""

Answers = AnswersFile | AnswersStream


def predict(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
    """
    options, overrides = _parse(arguments)
    request = read_request(options, overrides)
    path = options.output
    with (
        open_answers(Path(path)) if path else nullcontext(AnswersStream(sys.stdout.buffer))
    ) as answers:
        if answers.lines:
            say(f"{path}: {_of(answers.lines, request.total)} are there")
        there = answers.lines
        try:
            seen = isinstance(answers, AnswersStream) and sys.stdout.isatty()
            shown = request.total is not None and not seen
            with (
                ended_by_sigterm(),
                Progress("answering", request.total, done=there, shown=shown) as progress,
            ):
                _answer(request, answers, progress)
        except (KeyboardInterrupt, SystemExit):
            if path:
                answers.recount()
                rows = _of(answers.lines, request.total)
                say(f"{path}: {rows} are answered; the same command goes on")
            raise
        if path:
            say(f"{path}: {answers.lines:,} rows, {answers.lines - there:,} of them answered now")


# The command line


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of the command, and the keys of the configuration."""
    parser = CommandParser("predict", DESCRIPTION, keys="[--KEY=VALUE]...")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", metavar="RUN", help="the adapter of a run, with its configuration")
    which.add_argument("--adapter", metavar="DIR", help="an adapter folder alone")
    which.add_argument(
        "--base",
        action="store_true",
        help="the base model without an adapter; --model.base=NAME says which one",
    )
    parser.add_argument(
        "-c", "--config", action="append", default=[], metavar="FILE", help="a configuration file"
    )
    parser.add_argument(
        "--task", metavar="NAME", help="the task whose anchor is used, where there are several"
    )
    parser.add_argument(TRUST, action="store_true", help=TRUST_HELP)
    parser.add_argument("--input", metavar="FILE", help="rows to answer; - is standard input")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="where the answers go, instead of standard output; an existing file is continued",
    )
    parser.add_argument(ACCEPT, action="store_true", help=ACCEPT_HELP)
    options, keys = parser.parse_with_keys(arguments)
    if options.base and keys and not keys[0].startswith("-"):
        raise ConfigError(
            f"--base: takes no value, got '{keys[0]}'. Name the base by --model.base=NAME."
        )
    return options, keys


# The answers


def _answer(request: PredictionRequest, answers: Answers, progress: Progress) -> None:
    """Answer every row that is not answered yet; the model is loaded with the first of them."""
    quieten()
    import torch

    from tell_lightning.data.templates import Renderer
    from tell_lightning.data.tokenizer import load_tokenizer
    from tell_lightning.data.tokens import Encoder
    from tell_lightning.export.anchor_file import check_template
    from tell_lightning.generation.answer import answer_rows, prompt_digest
    from tell_lightning.generation.batched import Budget
    from tell_lightning.generation.prefix import Prefix
    from tell_lightning.model.base import answering, precision_context

    tokenizer = load_tokenizer(request.model.base, **request.model.hub_options)
    check_base(request.base_files, request.model.base, request.model.revision)
    encoder = Encoder(tokenizer, Renderer(tokenizer, request.config.data.thinking))
    template = encoder.renderer.template_digest
    check_template(request.adapter, request.template_digest, template)
    device_type, precision = answering(request.model, request.config.trainer)
    device = torch.device(device_type)
    model = cache(lambda: _load(request, device))
    weights = _weights(request, device.type, precision)
    if request.total is None and sys.stdin.isatty():
        model()
        say("Type a prompt, or a row in JSON, and Enter; Ctrl+D ends.")
    settings = request.config.eval
    budget = Budget(settings.batch_tokens)
    for part in request.parts:
        # With a prefix of its own, a chunk of a file gives the same answers in every session.
        prefix = None if isinstance(part.rows, CheckedRows) else Prefix()
        sizes = (share * settings.batch_tokens for share in chain(FIRST_CHUNKS, repeat(1)))
        for rows in _blocks(encoder, part, request):
            name = _model_name(weights, rows, request.config)
            keys = [
                RowKey(record.id, part.name, name, prompt_digest(prompt))
                for record, prompt in zip(rows.records, rows.prompts, strict=True)
            ]
            for chunk in _chunks(rows, sizes):
                there = sum([answers.holds(key) for key in keys[chunk]])
                if there == len(keys[chunk]):
                    continue
                # A chunk that is there in part is answered again as a whole: the same batches give
                # the same answers.
                with precision_context(precision, device.type):
                    predictions = answer_rows(
                        model(),
                        tokenizer,
                        _slice(rows, chunk),
                        budget=budget,
                        prefix=prefix,
                        temperature=settings.temperature,
                        seed=request.config.seed,
                    )
                lines = [
                    key.line(_saved(prediction, part.task))
                    for key, prediction in zip(keys[chunk], predictions, strict=True)
                ]
                answers.append(lines[there:])
                progress.advance(len(lines) - there)
    answers.finish()


def _saved(prediction: Prediction, task: Task) -> dict[str, object]:
    """Return an answer as a line holds it; `row` has the columns of the user's that no field names.

    A row that has no such columns has no `row`.
    """
    columns = other_columns(prediction.row, task.fields)
    return saved_row(prediction, task.scoring) | ({"row": columns} if columns else {})


def _load(request: PredictionRequest, device: Any) -> Any:
    from tell_lightning.model.base import load_base
    from tell_lightning.model.lora import load_adapter

    with Progress("loading the model"), device:
        base = load_base(request.model)
        return load_adapter(base, request.adapter) if request.adapter else base


def _blocks(encoder: "Encoder", part: Part, request: PredictionRequest) -> Iterator[EvaluationRows]:
    """Tokenise rows: those of a file in blocks, those of a stream one by one."""
    from tell_lightning.data.evaluation_rows import build, default_max_new_tokens

    task, variant = part.task, request.variant
    neither = {variant, request.trained_variant} == {"none"}
    longest = task.max_new_tokens or default_max_new_tokens(encoder, part.known)
    size = BLOCK if isinstance(part.rows, CheckedRows) else 1
    rows = iter(part.rows)
    while records := list(islice(rows, size)):
        settled = [settle_anchor(r, task.anchor, variant, free=part.free) for r in records]
        built = build(
            encoder,
            [record for record, _ in settled],
            task=part.name,
            anchor=settled[0][1],
            variant=variant,
            scoring=task.scoring,
            max_new_tokens=longest,
            min_new_tokens=task.min_new_tokens,
            stop_tokens=task.stop_tokens,
            forced=task.force_response_prefix,
        )
        # Without its anchor, an adapter may still write the response prefix that it has learned.
        taken = neither or (task.force_response_prefix and variant != "none")
        yield replace(built, response_prefix="" if taken else task.anchor.response_prefix)


def _chunks(rows: EvaluationRows, sizes: Iterator[float]) -> Iterator[slice]:
    """Split rows, in their order, into chunks of at most so many tokens and at least one row."""
    start = tokens = 0
    most_tokens = next(sizes)
    for index, prompt in enumerate(rows.prompts):
        size = len(prompt) + rows.max_new_tokens
        if index > start and tokens + size > most_tokens:
            yield slice(start, index)
            start, tokens, most_tokens = index, 0, next(sizes)
        tokens += size
    yield slice(start, len(rows))


def _slice(rows: EvaluationRows, chunk: slice) -> EvaluationRows:
    return replace(
        rows,
        records=rows.records[chunk],
        examples=rows.examples[chunk],
        prompts=rows.prompts[chunk],
        references=rows.references[chunk],
    )


# Digests


def _weights(request: PredictionRequest, device_type: str, precision: str) -> dict[str, Any]:
    """Identify base and adapter: by hub id and revision, or by the SHA-256 of the files."""
    from tell_lightning.data.tokenizer import base_path
    from tell_lightning.model.base import base_dtype

    path = base_path(request.model.base)
    local = Path(path).is_dir()
    return {
        "base": _digests(Path(path), "model*", "pytorch_model*", "config.json") if local else path,
        "revision": None if local else request.model.revision,
        "dtype": base_dtype(request.model, device_type),
        "adapter": _digests(request.adapter, "adapter_*") if request.adapter else None,
        **({} if precision.startswith("32") else {"precision": precision}),
        **({"quantize": request.model.quantize} if request.model.quantize else {}),
    }


def _digests(folder: Path, *patterns: str) -> dict[str, str]:
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {path.name: sha256_of(path) for path in paths}


def _model_name(weights: dict[str, Any], rows: EvaluationRows, config: Config) -> str:
    """Return a digest of everything, except the prompt, that may change an answer."""
    facts = {
        **weights,
        "stop_ids": rows.stop_ids,
        "new_tokens": [rows.min_new_tokens, rows.max_new_tokens],
        "temperature": config.eval.temperature,
        "seed": config.seed if config.eval.temperature else None,
        "response_prefix": rows.response_prefix,
        "reading": [rows.scoring.words_field, reading_kind(rows.scoring).reading],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


# Messages


def _of(done: int, total: int | None) -> str:
    return f"{done:,} rows" if total is None else f"{done:,} of {total:,} rows"


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the process by an exception, with exit code 143."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before: Callable[[int, FrameType | None], Any] | int | None
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
