"""`neural`: score a predictions file by COMET or BLEURT, in an environment of their own.

The command reads answers, references and sources, has `worker.py` score the segments with another
Python, and writes the scores into run.json. No torch in this process.
"""

import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from math import fsum, isfinite
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
from tell_lightning.commands.arguments import CommandParser, as_path, whole_number
from tell_lightning.commands.compare import read_predictions, run_data
from tell_lightning.data.anchors import reference_text, strip_anchor
from tell_lightning.data.formats import cut, read_file
from tell_lightning.data.reading import read_records
from tell_lightning.data.splits import resolve_root
from tell_lightning.errors import TellError
from tell_lightning.metrics.intervals import RESAMPLES
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.neural import worker
from tell_lightning.neural.segments import Document, Segment, corpus_mean, split_document

DESCRIPTION = """
Score a predictions file by COMET or BLEURT, in the environment that has them;
docs/neural-metrics.md says how to make it.

The scores go into run.json of the run in whose predictions/ FILE lies, or of --run, and by row to
predictions/neural/; without a run they go to FILE.neural.json. COMET also reads sources: the field
`source` (or FIELD) of FILE, else of the run's rows FIELD or the prompt without its anchor. On two
CPU cores COMET-22 takes half an hour for 1,000 lines.
"""
MODELS = {"comet": "Unbabel/wmt22-comet-da", "bleurt": "lucadiliello/BLEURT-20"}
"""The metrics, each with its default model."""
INSTALL = {
    "comet": "unbabel-comet 'setuptools<81'",
    "bleurt": "bleurt-pytorch 'transformers<5' protobuf",
}
"""What pip needs in the metric's environment."""


class NeuralError(TellError):
    """Predictions that a neural metric cannot score, or a metric that does not run."""


def neural(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
    """
    asked = _parser().parse(arguments)
    asked.model = asked.model or MODELS[asked.metric]
    asked.python = asked.python or f".venv-{asked.metric}/bin/python"
    run = existing_folder(asked.run) if asked.run else run_of_predictions(asked.file)
    with held(run) if run else nullcontext():
        name = _name_in(run, asked.file) if run else ""
        predictions = read_predictions(asked.file)
        documents = _documents(asked, run, predictions)
        segments = [segment for document in documents for segment in document.segments]
        print(f"{asked.metric} of {len(segments):,} segments by {asked.python} ...", flush=True)
        started = time.perf_counter()
        answer = _ask(asked, segments)
        rows = list(_rows(predictions, documents, answer))
        score, interval = corpus_mean([r["lines"] for r in rows], [r["score"] for r in rows])
        entry = {
            **({"file": name} if run else {}),
            "score": score,
            "interval": interval,
            "model": asked.model,
            "documents": len(documents),
            "documents_in_one_piece": sum(document.in_one_piece for document in documents),
            "segments": len(segments),
            "truncated_segments": sum(answer["cut"]),
            "truncated_share": sum(answer["cut"]) / len(segments),
            "limit_tokens": answer["limit"],
            "longest_tokens": max(answer["tokens"]),
            "texts": answer["texts"],
            "predictions_sha256": read_file(asked.file).sha256,
            "versions": answer["versions"],
            "seconds": round(time.perf_counter() - started, 2),
        }
        where = _write(run, asked.file, asked.metric, entry, rows)
    _print(entry, where)


def _parser() -> CommandParser:
    parser = CommandParser("neural", DESCRIPTION)
    add = parser.add_argument
    add("file", type=as_path, metavar="FILE", help="what `fit`, `test` or `predict` wrote")
    add("--metric", choices=MODELS, required=True)
    add("--model", metavar="NAME", help="a model of the hub, a folder or a checkpoint")
    add("--python", metavar="PATH", help="default: .venv-comet/ or .venv-bleurt/bin/python")
    add("--run", metavar="RUN", help="the run of a FILE that lies elsewhere")
    add("--source-field", metavar="FIELD", help="the field that holds the sources")
    add("--batch-size", type=whole_number(1), default=16, metavar="N", help="default: 16 segments")
    return parser


def _name_in(run: RunFolder, file: Path) -> str:
    """Name a file of the run's predictions/, or give its whole path if it lies elsewhere.

    Raises:
        NeuralError: Its scores would replace those of other predictions of the same name.
    """
    path, own = file.resolve(), f"{file.stem}.jsonl"
    name = path.name if path.parent == run.predictions.resolve() else str(path)
    scored = read_record(run).get("metrics", {}).get("neural", {}).get(file.stem, {})
    others = {entry.get("file", own) for entry in scored.values()}
    others |= {own} if (run.predictions / own).is_file() else set()
    for other in others - {name}:
        raise NeuralError(
            f"{file}: must have a name that no other predictions of the run have, got that of "
            f"{run.predictions / other}. Rename it."
        )
    return name


# What is scored


def _documents(
    asked: Namespace, run: RunFolder | None, predictions: Sequence[Prediction]
) -> list[Document]:
    """Split each row into segments: its answer, its reference and, for COMET, its source."""
    blank = [each for each in predictions if not (each.reference or "").strip()]
    if blank:
        raise NeuralError(
            f"{asked.file}: a scored row needs a reference, got {blank[0].reference!r} in row "
            f"{blank[0].id!r}. Leave the row out."
        )
    texts = [{"mt": each.prediction, "ref": str(each.reference)} for each in predictions]
    if asked.metric == "comet":
        sources = _sources(asked, run, predictions)
        texts = [{**text, "src": source} for text, source in zip(texts, sources, strict=True)]
    return [split_document(text) for text in texts]


def _sources(
    asked: Namespace, run: RunFolder | None, predictions: Sequence[Prediction]
) -> list[str]:
    """Take the sources from their field in the file, or else all of them from the run's rows."""
    field = asked.source_field or "source"
    given = {each.id: each.row.get(field) for each in predictions}
    found = {id: text for id, text in given.items() if isinstance(text, str) and text.strip()}
    if run and len(found) < len(given):
        found = _run_sources(asked, run, predictions)
    missing = [each.id for each in predictions if each.id not in found]
    if missing:
        raise NeuralError(
            f"{asked.file}: COMET reads the source of every row, got none of {cut(missing[0])} "
            f"({len(missing)} of {len(predictions)} rows): neither in the field '{field}' of the "
            "file, nor in a row of a run with the same id and reference. Add the field, name "
            "another one by --source-field, or give the run that has the rows by --run."
        )
    return [found[each.id] for each in predictions]


def _run_sources(
    asked: Namespace, run: RunFolder, predictions: Sequence[Prediction]
) -> dict[str, str]:
    """Find sources by id and reference among the rows of a run, those of the file's task first."""
    wanted = {each.id: str(each.reference).strip() for each in predictions}
    data = run_data(run.latest_config)
    root, field = resolve_root(data), asked.source_field
    named = str(predictions[0].row.get("task", asked.file.name))
    names = sorted(data.tasks, key=lambda name: (name not in named, -len(name)))
    found: dict[str, str] = {}
    for task in map(data.tasks.__getitem__, names):
        for rows in (task.test, task.dev, task.train):
            if rows is None or len(found) == len(wanted):
                continue
            read = read_records(rows, fields=task.fields, root=root, need_response=False)
            for record in read.records:
                if reference_text(record, task.anchor) != wanted.get(record.id):
                    continue
                prompt = strip_anchor(record.prompt_turns[-1].content, task.anchor).strip()
                text = record.row.get(field) if field else prompt
                if isinstance(text, str) and text.strip():
                    found.setdefault(record.id, text)
    return found


# The other environment


def _ask(asked: Namespace, segments: Sequence[Segment]) -> Mapping[str, Any]:
    """Have the segments scored by the other Python.

    Raises:
        NeuralError: It does not run, lacks the package or the model, or fails.
    """
    shown = sys.stderr.isatty()
    request = {name: getattr(asked, name) for name in ("metric", "model", "batch_size")}
    with TemporaryDirectory() as folder:
        question, answered = Path(folder, "request.json"), Path(folder, "answer.json")
        write_json(question, {**request, "progress": shown, "segments": segments})
        try:
            done = subprocess.run(
                [asked.python, worker.__file__, question, answered],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr if shown else subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise _no_python(asked, str(error.strerror)) from error
        if not answered.is_file():
            lines = (done.stdout or "").strip().splitlines()
            raise _no_python(asked, lines[-1] if lines else f"it ended with {done.returncode}")
        answer: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
    if answer.get("missing") == "package":
        raise _no_python(asked, answer["says"])
    if answer.get("missing") == "model":
        raise NeuralError(
            f"--model: must be a model that {asked.metric} can load, got '{asked.model}': "
            f"{answer['says']}. Give a folder or checkpoint, or download it while online."
        )
    if not all(map(isfinite, answer["scores"])):
        raise NeuralError(
            f"--model: must give finite scores, got {cut(answer['scores'])}. Give another model."
        )
    return answer


def _no_python(asked: Namespace, says: str) -> NeuralError:
    venv = f".venv-{asked.metric}"
    return NeuralError(
        f"--python: must be a Python that runs {asked.metric}, got '{asked.python}', which "
        f"says: {says}. Make it: python -m venv {venv} && {venv}/bin/pip install "
        f"{INSTALL[asked.metric]}; see docs/neural-metrics.md."
    )


# The scores


def _rows(
    predictions: Sequence[Prediction], documents: Sequence[Document], answer: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the scores of each row, in the order of the predictions."""
    start = 0
    for prediction, document in zip(predictions, documents, strict=True):
        part = slice(start, start := start + len(document.segments))
        scores = answer["scores"][part]
        yield {
            "id": prediction.id,
            "score": fsum(scores) / len(scores),
            "lines": document.lines,
            "in_one_piece": document.in_one_piece,
            "segment_scores": scores,
            "segment_tokens": answer["tokens"][part],
            "segment_truncated": answer["cut"][part],
        }


def _write(
    run: RunFolder | None,
    file: Path,
    metric: str,
    entry: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> Path:
    """Write the scores into the run, or beside the file; return where."""
    if run is None:
        path = file.with_name(f"{file.stem}.neural.json")
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_jsonl(file.with_name(f"{file.stem}.neural-{metric}.jsonl"), rows)
        write_json(path, before | {metric: entry})
        return path
    write_jsonl(run.predictions / "neural" / f"{file.stem}-{metric}.jsonl", rows)
    record = read_record(run)
    metrics = record.setdefault("metrics", {})
    current = current_neural_scores(run, metrics).get(file.stem, {})
    metrics.setdefault("neural", {})[file.stem] = current | {metric: entry}
    write_json(run.record, record)
    return run.record


def _print(entry: Mapping[str, Any], where: Path) -> None:
    low, high = entry["interval"]
    print(
        f"{entry['model']}, which reads {', '.join(entry['texts'])}: {entry['score']:.4f}, "
        f"95% interval [{low:.4f}, {high:.4f}] from {RESAMPLES:,} draws of the documents\n"
        f"{entry['documents']:,} documents, {entry['documents_in_one_piece']:,} in one piece; "
        f"{entry['segments']:,} segments, {entry['truncated_segments']:,} truncated at "
        f"{entry['limit_tokens']} tokens ({entry['truncated_share']:.1%}); the longest segment has "
        f"{entry['longest_tokens']:,}\nWritten to {where} after {entry['seconds']:.0f} s."
    )
