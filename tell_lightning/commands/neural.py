"""`neural`: score a predictions file by COMET or BLEURT, in the environment that has them.

    neural FILE.jsonl --metric comet|bleurt [--model NAME|PATH]
           [--python PYTHON] [--run RUN] [--source-field FIELD] [--batch-size N]

FILE is one that `fit`, `test` or `predict` wrote. The scores go into run.json of the run in whose
predictions/ it lies, or of --run, and by row to predictions/neural/; without a run to
FILE.neural.json. PYTHON is that of an environment of its own (else .venv-comet/bin/python or
.venv-bleurt/bin/python); docs/neural-metrics.md says how to make it. COMET reads sources: the field
`source` (or FIELD) of FILE, else of the run's rows FIELD or the prompt without its anchor.
On two CPU cores half an hour for a thousand lines by COMET-22; no torch on this side.
"""

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tell_lightning.callbacks.folder import (
    RunFolder,
    current_neural_scores,
    existing_folder,
    held,
    read_record,
    run_of_predictions,
    write_json,
    write_jsonl,
)
from tell_lightning.commands.check import ConfigError
from tell_lightning.commands.compare import read_predictions, run_data
from tell_lightning.commands.startup import take_option, wants_usage
from tell_lightning.commands.tables import print_rows
from tell_lightning.data.anchors import reference_text, strip_anchor
from tell_lightning.data.formats import cut, read_file
from tell_lightning.data.reading import read_records
from tell_lightning.data.records import Record
from tell_lightning.data.settings import Task
from tell_lightning.data.splits import resolve_root
from tell_lightning.errors import TellError
from tell_lightning.metrics.intervals import RESAMPLES
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.segments import (
    CorpusMean,
    Document,
    Segment,
    corpus_mean,
    split_documents,
)
from tell_lightning.metrics.worker import neural as worker

MODELS = {"comet": "Unbabel/wmt22-comet-da", "bleurt": "lucadiliello/BLEURT-20"}
"""The metrics, each with the model that is used where none is named."""
INSTALL = {
    "comet": "unbabel-comet 'setuptools<81'",
    "bleurt": "bleurt-pytorch 'transformers<5' protobuf",
}
"""What pip needs in the metric's environment."""


class NeuralError(TellError):
    """Predictions that a neural metric cannot score, or a metric that does not run."""


@dataclass(frozen=True)
class NeuralOptions:
    """What is to be scored, by what, and where the scores belong."""

    file: Path
    metric: str
    model: str
    python: str
    batch_size: int
    source_field: str | None
    run: RunFolder | None


def neural(arguments: list[str]) -> None:
    """Run the verb.

    Args:
        arguments: What follows the verb on the command line.
    """
    if wants_usage(arguments, __doc__):
        return
    request = _request(arguments)
    with held(request.run) if request.run else nullcontext():
        if request.run:
            _check_name(request, request.run)
        predictions = read_predictions(request.file)
        documents = split_documents(
            [prediction.prediction for prediction in predictions],
            [_reference(prediction, request.file) for prediction in predictions],
            _sources(request, predictions) if request.metric == "comet" else None,
        )
        segments = [segment for document in documents for segment in document.segments]
        print(f"{request.metric} of {len(segments):,} segments by {request.python} ...", flush=True)
        started = time.perf_counter()
        answer = _ask(request, segments)
        mean = corpus_mean(documents, answer["scores"])
        entry = {
            **_entry(request, documents, mean, answer),
            "seconds": round(time.perf_counter() - started, 2),
        }
        where = _write(request, entry, list(_rows(predictions, documents, mean, answer)))
    _print(request, entry, where)


def _request(arguments: list[str]) -> NeuralOptions:
    taken: dict[str, str | None] = {}
    rest = arguments
    for flag in ("metric", "model", "python", "run", "source-field", "batch-size"):
        taken[flag], rest = take_option(rest, f"--{flag}")
    if len(rest) != 1 or rest[0].startswith("-"):
        raise ConfigError(
            f"neural: needs one predictions file, got '{' '.join(rest)}'. "
            "Write `neural FILE.jsonl --metric comet`; see `neural --help`."
        )
    metric, size = taken["metric"], taken["batch-size"] or "16"
    if metric not in MODELS:
        raise ConfigError(
            f"--metric: must be one of {', '.join(MODELS)}, got {metric and repr(metric)}. "
            "Choose one of them."
        )
    if not size.isascii() or not size.isdigit() or int(size) < 1:
        raise ConfigError(
            f"--batch-size: must be a whole number from 1 on, got '{size}'. "
            "It counts segments; fewer need less memory."
        )
    file = Path(rest[0])
    return NeuralOptions(
        file=file,
        metric=metric,
        model=taken["model"] or MODELS[metric],
        python=taken["python"] or f".venv-{metric}/bin/python",
        batch_size=int(size),
        source_field=taken["source-field"],
        run=existing_folder(taken["run"]) if taken["run"] else run_of_predictions(file),
    )


def _check_name(request: NeuralOptions, run: RunFolder) -> None:
    """Refuse a file whose scores would take the place of those of another one of its name.

    Raises:
        NeuralError: The run has scores of the other file, or the file itself.
    """
    stem, name = request.file.stem, _name_in(run, request.file)
    scored = read_record(run).get("metrics", {}).get("neural", {}).get(stem, {})
    others = {entry.get("file", f"{stem}.jsonl") for entry in scored.values()}
    if (run.predictions / f"{stem}.jsonl").is_file():
        others.add(f"{stem}.jsonl")
    for other in sorted(others - {name}):
        raise NeuralError(
            f"{request.file}: must have a name that no other predictions of the run have, got that "
            f"of {run.predictions / other}. Rename it."
        )


def _name_in(run: RunFolder, file: Path) -> str:
    """Name a file within the run's predictions/, or by its whole path where it lies elsewhere."""
    path = file.resolve()
    return path.name if path.parent == run.predictions.resolve() else str(path)


def _reference(prediction: Prediction, file: Path) -> str:
    if prediction.reference is None or not prediction.reference.strip():
        raise NeuralError(
            f"{file}: a scored row needs a reference, got {prediction.reference!r} in row "
            f"{prediction.id!r}. Leave the row out."
        )
    return prediction.reference


# The sources


def _sources(request: NeuralOptions, predictions: Sequence[Prediction]) -> list[str]:
    """Take each row's source from its field in the file, else from the run's rows."""
    field = request.source_field or "source"
    texts = [prediction.row.get(field) for prediction in predictions]
    given = [text for text in texts if isinstance(text, str) and text.strip()]
    if len(given) == len(texts):
        return given
    if request.run is None:
        raise NeuralError(
            f"{request.file}: COMET reads the source of every row, got the text field '{field}' "
            f"in {len(given)} of {len(texts)} rows. Add it, name another one by --source-field, "
            "or give the run that has the rows by --run."
        )
    found = _run_sources(request, predictions)
    missing = [prediction.id for prediction in predictions if prediction.id not in found]
    if missing:
        raise NeuralError(
            f"{request.file}: every row must be one of the run's train, dev or test rows, with the "
            f"same reference, got {cut(missing[0])} ({len(missing)} of {len(texts)} rows). "
            f"Add the field '{field}' to the file."
        )
    return [found[prediction.id] for prediction in predictions]


def _run_sources(request: NeuralOptions, predictions: Sequence[Prediction]) -> dict[str, str]:
    """Find the sources of rows among those of a run, by id and reference."""
    wanted = {prediction.id: (prediction.reference or "").strip() for prediction in predictions}
    found: dict[str, str] = {}
    for task, record in _run_rows(request, predictions):
        if record.id in wanted and reference_text(record, task.anchor) == wanted[record.id]:
            found.setdefault(record.id, _source(record, task, request.source_field))
            if len(found) == len(wanted):
                break
    return found


def _run_rows(
    request: NeuralOptions, predictions: Sequence[Prediction]
) -> Iterator[tuple[Task, Record]]:
    """Read the run's rows, those of the file's task first, and of its test set."""
    assert request.run is not None
    data = run_data(request.run.latest_config)
    root = resolve_root(data)
    named = str(predictions[0].row.get("task", request.file.name))
    names = sorted(data.tasks, key=lambda name: (name not in named, -len(name)))
    for task in map(data.tasks.__getitem__, names):
        for rows in (task.test, task.dev, task.train):
            if rows is not None:
                read = read_records(rows, fields=task.fields, root=root, need_response=False)
                yield from ((task, record) for record in read.records)


def _source(record: Record, task: Task, field: str | None) -> str:
    if field is None:
        return strip_anchor(record.prompt_turns[-1].content, task.anchor).strip()
    text = record.row.get(field)
    if not isinstance(text, str) or not text.strip():
        raise NeuralError(
            f"{record.where}: field '{field}' must hold the source, got {cut(text)}. "
            f"--source-field: name one of {', '.join(record.row)}."
        )
    return text


# The other environment


def _ask(request: NeuralOptions, segments: Sequence[Segment]) -> Mapping[str, Any]:
    """Have the segments scored by the other Python.

    Raises:
        NeuralError: It does not run, lacks the package or the model, or fails.
    """
    with TemporaryDirectory() as folder:
        asked, answered = Path(folder, "request.json"), Path(folder, "answer.json")
        write_json(
            asked,
            {
                "metric": request.metric,
                "model": request.model,
                "batch_size": request.batch_size,
                "progress": sys.stderr.isatty(),
                "segments": segments,
            },
        )
        last = _run(request, [str(worker.__file__), str(asked), str(answered)])
        if not answered.is_file():
            raise NeuralError(
                f"--python: must be a Python that runs {request.metric}, got '{request.python}', "
                f"which says: {last}. {_make(request)}"
            )
        answer: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
    if answer.get("missing") == "package":
        raise NeuralError(
            f"--python: must be a Python that has {request.metric}, got '{request.python}', which "
            f"says: {answer['says']}. {_make(request)}"
        )
    if answer.get("missing") == "model":
        raise NeuralError(
            f"--model: must be a model that {request.metric} can load, got '{request.model}': "
            f"{answer['says']}. Give a folder or checkpoint, or download it while online."
        )
    if not all(map(math.isfinite, answer["scores"])):
        raise NeuralError(
            f"--model: must give finite scores, got {cut(answer['scores'])}. Give another model."
        )
    return answer


def _run(request: NeuralOptions, arguments: list[str]) -> str:
    """Run the other Python; show what it says on a terminal, and return the last line of it."""
    said = b""
    try:
        with subprocess.Popen(
            [request.python, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            while part := os.read(process.stdout.fileno(), 1 << 16):
                said = (said + part)[-(1 << 16) :]
                if sys.stderr.isatty():
                    sys.stderr.buffer.write(part)
                    sys.stderr.flush()
        if said and sys.stderr.isatty():
            sys.stderr.write("\n")  # a bar ends within its line
    except OSError as error:
        raise NeuralError(
            f"--python: must be the Python of an environment with {request.metric}, got "
            f"'{request.python}': {error.strerror}. {_make(request)}"
        ) from error
    lines = [line.strip() for line in re.split(r"[\r\n]+", said.decode("utf-8", "replace"))]
    status = f"it ended with {process.returncode}"
    return next((line for line in reversed(lines) if line), status) if process.returncode else ""


def _make(request: NeuralOptions) -> str:
    """Say how to make the environment."""
    venv = f".venv-{request.metric}"
    return (
        f"Make it: python -m venv {venv} && {venv}/bin/pip install {INSTALL[request.metric]}; see "
        "docs/neural-metrics.md."
    )


# The scores


def _entry(
    request: NeuralOptions,
    documents: Sequence[Document],
    mean: CorpusMean,
    answer: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what run.json holds of one metric of one predictions file."""
    segments = len(answer["scores"])
    return {
        "score": mean.score,
        "interval": mean.interval,
        "model": request.model,
        "documents": len(documents),
        "documents_in_one_piece": sum(document.in_one_piece for document in documents),
        "segments": segments,
        "truncated_segments": sum(answer["cut"]),
        "truncated_share": sum(answer["cut"]) / segments,
        "limit_tokens": answer["limit"],
        "longest_tokens": max(answer["tokens"]),
        "texts": answer["texts"],
        "predictions_sha256": read_file(request.file).sha256,
        "versions": answer["versions"],
    }


def _rows(
    predictions: Sequence[Prediction],
    documents: Sequence[Document],
    mean: CorpusMean,
    answer: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yield the scores of each row, in the order of the predictions."""
    start = 0
    for prediction, document, score in zip(predictions, documents, mean.documents, strict=True):
        part = slice(start, start := start + len(document.segments))
        yield {
            "id": prediction.id,
            "score": score,
            "lines": document.lines,
            "in_one_piece": document.in_one_piece,
            "segment_scores": answer["scores"][part],
            "segment_tokens": answer["tokens"][part],
            "segment_truncated": answer["cut"][part],
        }


def _write(
    request: NeuralOptions, entry: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Path:
    """Write the scores into the run, or beside the file; return where."""
    stem = request.file.stem
    if request.run is None:
        path = request.file.with_name(f"{stem}.neural.json")
        held_before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_jsonl(request.file.with_name(f"{stem}.neural-{request.metric}.jsonl"), rows)
        write_json(path, held_before | {request.metric: entry})
        return path
    write_jsonl(request.run.predictions / "neural" / f"{stem}-{request.metric}.jsonl", rows)
    record = read_record(request.run)
    metrics = record.setdefault("metrics", {})
    current = current_neural_scores(request.run, metrics).get(stem, {})
    named = {"file": _name_in(request.run, request.file), **entry}
    metrics.setdefault("neural", {})[stem] = current | {request.metric: named}
    write_json(request.run.record, record)
    return request.run.record


def _print(request: NeuralOptions, entry: Mapping[str, Any], where: Path) -> None:
    low, high = entry["interval"]
    print(f"{request.file}\n{request.model}, which reads {', '.join(entry['texts'])}\n")
    cells = (
        f"{entry['score']:.4f}",
        f"[{low:.4f}, {high:.4f}]",
        *(f"{entry[name]:,}" for name in ("documents", "documents_in_one_piece", "segments")),
        f"{entry['truncated_segments']:,} ({entry['truncated_share']:.1%})",
    )
    heading = ("", "score", "[low, high]", "documents", "in one piece", "segments", "cut")
    print_rows([heading, (request.metric, *cells)])
    print("\nscore: mean over segments; a document in one piece weighs as its reference's lines.")
    print(f"[low, high]: 95% interval, from {RESAMPLES:,} draws of the documents.")
    print(
        f"cut: segments of which the model read the first {entry['limit_tokens']} tokens alone; "
        f"the longest has {entry['longest_tokens']:,}."
    )
    print(f"\nWritten to {where} after {entry['seconds']:.0f} s.")
