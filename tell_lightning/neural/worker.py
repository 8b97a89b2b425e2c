"""Scores texts by COMET or BLEURT, in the environment where these are installed.

    PYTHON worker.py REQUEST ANSWER

REQUEST is a JSON file with the metric, the model and the segments. ANSWER is written: a score for
each segment, its length in the metric's own tokens and whether it was truncated; or what is
missing. Any Python from 3.10 on will do, with the metric's package and nothing of ours. A GPU is
used if there is one; on two CPU cores a model of COMET-22's size takes one to two seconds for a
segment of 40 tokens.
"""

import importlib
import json
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

PACKAGES = ("unbabel-comet", "bleurt-pytorch", "torch", "transformers")
"""Packages whose versions a score may depend on."""
Answer = dict[str, Any]


class MissingError(Exception):
    """The package or the model is not there: which of both, and what is said of it."""


def main(request_file: str, answer_file: str) -> None:
    """Answer a request."""
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        answer = {"comet": comet, "bleurt": bleurt}[request["metric"]](request)
        installed = {each.metadata["Name"]: each.version for each in metadata.distributions()}
        versions = {name: installed[name] for name in PACKAGES if name in installed}
        answer["versions"] = {"python": platform.python_version(), **versions}
    except MissingError as error:
        answer = dict(zip(("missing", "says"), error.args, strict=True))
    with open(answer_file, "w", encoding="utf-8") as file:
        json.dump(answer, file)


def comet(request: dict[str, Any]) -> Answer:
    """Score segments by COMET; a model without references is given none."""
    with _needed("package"):
        package, torch = map(importlib.import_module, ("comet", "torch"))
    path = request["model"]
    with _needed("model"):
        if os.path.isdir(path):
            path = os.path.join(path, "checkpoints", "model.ckpt")
        elif not os.path.isfile(path):
            path = package.download_model(path)
        model = package.load_from_checkpoint(path)
    texts = getattr(model.hparams, "input_segments", None)
    texts = texts or (("src", "mt", "ref") if model.requires_references() else ("src", "mt"))
    samples = [{name: segment[name] for name in texts} for segment in request["segments"]]
    predicted = model.predict(
        samples,
        batch_size=request["batch_size"],
        gpus=int(torch.cuda.is_available()),
        progress_bar=request["progress"],
    )
    return {"scores": predicted["scores"], "texts": list(texts), **_comet_lengths(model, samples)}


def _comet_lengths(model: Any, samples: list[dict[str, str]]) -> Answer:
    """Count what the encoder would read, and say what it truncates.

    Each text is cut by itself at two tokens below the encoder's positions. Models that read the
    texts as one sequence (CometKiwi, XCOMET) cut that at the positions once more.
    """
    encoder = model.encoder
    limit = encoder.max_positions - 2
    rows = [encoder.tokenizer(list(sample.values()))["input_ids"] for sample in samples]
    lengths = [[len(ids) for ids in row] for row in rows]
    tokens = [max(row) for row in lengths]
    cut = [length > limit for length in tokens]
    if hasattr(model, "concat_inputs"):
        limit = encoder.max_positions
        separators = [2 + (len(row) - 1) * encoder.size_separator for row in lengths]
        tokens = [
            sum(row) - 2 * len(row) + more for row, more in zip(lengths, separators, strict=True)
        ]
        cut = [alone or length > limit for alone, length in zip(cut, tokens, strict=True)]
    return {"tokens": tokens, "cut": cut, "limit": limit}


def bleurt(request: dict[str, Any]) -> Answer:
    """Score segments by BLEURT: reference and answer in one sequence, the longer one truncated."""
    with _needed("package"):
        package, torch = map(importlib.import_module, ("bleurt_pytorch", "torch"))
    with _needed("model"):
        model = package.BleurtForSequenceClassification.from_pretrained(request["model"])
        tokenizer = package.BleurtTokenizer.from_pretrained(request["model"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()
    limit = model.config.max_position_embeddings
    references, answers = ([each[name] for each in request["segments"]] for name in ("ref", "mt"))
    tokens = [len(ids) for ids in tokenizer(references, answers)["input_ids"]]
    order = sorted(range(len(tokens)), key=tokens.__getitem__)
    scores = [0.0] * len(tokens)
    for start in range(0, len(order), request["batch_size"]):
        chosen = order[start : start + request["batch_size"]]
        inputs = tokenizer(
            [references[index] for index in chosen],
            [answers[index] for index in chosen],
            padding="longest",
            truncation="longest_first",
            max_length=limit,
            return_tensors="pt",
        )
        with torch.no_grad():
            logits = model(**inputs.to(device)).logits.flatten().tolist()
        for index, score in zip(chosen, logits, strict=True):
            scores[index] = score
        if request["progress"]:
            done = f"\r{start + len(chosen)} of {len(order)}"
            print(done, end="", file=sys.stderr, flush=True)
    cut = [length > limit for length in tokens]
    return {"scores": scores, "texts": ["ref", "mt"], "tokens": tokens, "cut": cut, "limit": limit}


@contextmanager
def _needed(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        first: BaseException = error
        while (before := first.__cause__ or first.__context__) is not None:
            first = before
        # COMET says `not supported` of any failure: only the first error tells why.
        errors = [error] if first is error else [error, first]
        raise MissingError(what, ", from ".join(map(_one_line, errors))) from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '...'}"


if __name__ == "__main__":
    main(*sys.argv[1:])
