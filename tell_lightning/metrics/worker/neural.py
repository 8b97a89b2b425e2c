"""Scores texts by COMET or BLEURT, in the environment where these are installed.

    PYTHON neural.py REQUEST ANSWER

REQUEST is a JSON file with the metric, the model and the segments; ANSWER is written: a score for
each segment, its length in the metric's own tokens and whether it was cut, or what was missing.
Any Python from 3.10 on will do; beside the standard library nothing but the metric is needed. It
uses a GPU where there is one; on two CPU cores a model of COMET-22's size takes one to two seconds
for a segment of 40 tokens.
"""

import importlib
import json
import logging
import os
import platform
import sys
import warnings
from importlib import metadata
from typing import Any

PACKAGES = ("unbabel-comet", "bleurt-pytorch", "torch", "transformers")
"""Those that a score may depend on."""


class Fault(Exception):
    """What the user can mend: the package or the model is not there."""

    def __init__(self, missing: str, error: BaseException) -> None:
        """Say what is missing, and why, in one line."""
        first = error
        while (before := first.__cause__ or first.__context__) is not None:
            first = before
        # COMET says `not supported` of any failure: only the first one tells why.
        said = [_one_line(error), *([_one_line(first)] if first is not error else [])]
        super().__init__(", from ".join(said))
        self.missing = missing


def main(request_file: str, answer_file: str) -> None:
    """Answer a request."""
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    _quieten()
    try:
        answer = {"comet": comet, "bleurt": bleurt}[request["metric"]](request)
        answer["versions"] = versions()
    except Fault as fault:
        answer = {"missing": fault.missing, "says": str(fault)}
    with open(answer_file, "w", encoding="utf-8") as file:
        json.dump(answer, file)


def comet(request: dict[str, Any]) -> dict[str, Any]:
    """Score segments by COMET; a model without references is given none."""
    package, torch = _package("comet"), _package("torch")
    try:
        model = package.load_from_checkpoint(_checkpoint(package, request["model"]))
    except Exception as error:
        raise Fault("model", error) from error
    texts = _texts(model)
    samples = [{name: segment[name] for name in texts} for segment in request["segments"]]
    predicted = model.predict(
        samples,
        batch_size=request["batch_size"],
        gpus=int(torch.cuda.is_available()),
        progress_bar=request["progress"],
    )
    tokens, cut, limit = _comet_lengths(model, samples)
    return _answer(predicted["scores"], tokens, cut, limit, texts)


def _checkpoint(package: Any, model: str) -> str:
    """Find the checkpoint: a file, in a folder as the hub lays it out, or to be downloaded."""
    if os.path.isfile(model):
        return model
    if os.path.isdir(model):
        return os.path.join(model, "checkpoints", "model.ckpt")
    return str(package.download_model(model))


def _texts(model: Any) -> tuple[str, ...]:
    """Name the texts that the model reads."""
    chosen = getattr(model.hparams, "input_segments", None)
    return tuple(chosen or (("src", "mt", "ref") if model.requires_references() else ("src", "mt")))


def _comet_lengths(model: Any, samples: list[dict[str, str]]) -> tuple[list[int], list[bool], int]:
    """Count what the encoder would read, and say what it cuts.

    Each text is cut by itself two tokens below the encoder's positions; models that read the texts
    as one sequence (CometKiwi, XCOMET) cut that at the positions once more.
    """
    encoder = model.encoder
    most = encoder.max_positions - 2
    columns = [
        [len(ids) for ids in encoder.tokenizer([sample[name] for sample in samples])["input_ids"]]
        for name in samples[0]
    ]
    rows = list(zip(*columns, strict=True))
    longest = [max(row) for row in rows]
    cut = [length > most for length in longest]
    if not hasattr(model, "concat_inputs"):
        return longest, cut, most
    between = 2 + (len(columns) - 1) * encoder.size_separator
    joined = [sum(length - 2 for length in row) + between for row in rows]
    over = [length > encoder.max_positions for length in joined]
    return joined, [a or b for a, b in zip(cut, over, strict=True)], encoder.max_positions


def bleurt(request: dict[str, Any]) -> dict[str, Any]:
    """Score segments by BLEURT, reference and answer in one sequence, cut at the longer one."""
    package, torch = _package("bleurt_pytorch"), _package("torch")
    try:
        model = package.BleurtForSequenceClassification.from_pretrained(request["model"])
        tokenizer = package.BleurtTokenizer.from_pretrained(request["model"])
    except Exception as error:
        raise Fault("model", error) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()
    limit = model.config.max_position_embeddings
    pairs = [(segment["ref"], segment["mt"]) for segment in request["segments"]]
    tokens = [len(ids) for ids in tokenizer(*map(list, zip(*pairs, strict=True)))["input_ids"]]
    order = sorted(range(len(pairs)), key=tokens.__getitem__)
    scores = [0.0] * len(pairs)
    size = request["batch_size"]
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        inputs = tokenizer(
            *map(list, zip(*(pairs[index] for index in chosen), strict=True)),
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
            sys.stderr.write(f"\r{start + len(chosen)} of {len(order)}")
            sys.stderr.flush()
    return _answer(scores, tokens, [length > limit for length in tokens], limit, ("ref", "mt"))


def versions() -> dict[str, str]:
    """Return the versions that a score may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _answer(
    scores: list[float], tokens: list[int], cut: list[bool], limit: int, texts: tuple[str, ...]
) -> dict[str, Any]:
    return {"scores": scores, "tokens": tokens, "cut": cut, "limit": limit, "texts": list(texts)}


def _package(name: str) -> Any:
    """Import what only the other environment has; the type checker of ours must not look."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Fault("package", error) from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '...'}"


def _quieten() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


if __name__ == "__main__":
    main(*sys.argv[1:])
