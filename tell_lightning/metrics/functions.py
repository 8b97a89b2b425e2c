"""Scores that a function of the user's computes: `scoring.function: path/to/file.py:name`.

The answers, references and rows of one whole evaluation set enter; numbers by name leave, to stand
beside the others. The file is run as it is, with all that the user may do, once in a process; the
function is called at each evaluation, on every rank, with the same rows.

    def lengths(answers: list[str], references: list[str], rows: list[dict]) -> dict[str, float]:
        pairs = zip(answers, references)
        return {"length_ratio": sum(len(a) / len(r) for a, r in pairs) / len(answers)}
"""

import math
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from numbers import Real
from pathlib import Path
from typing import Any

from tell_lightning.metrics.predictions import MetricError, Prediction


def function_scores(
    function: str, predictions: Sequence[Prediction], taken: Collection[str]
) -> dict[str, float]:
    """Call a function of the user's on an evaluation set.

    Args:
        function: `path.py:name`; a relative path starts in the working directory.
        predictions: Every row of the set once, with references.
        taken: Names of scores that exist already.

    Returns:
        What it returns, as floats by name.

    Raises:
        MetricError: No such file or function, an exception inside it, or something else than
            finite numbers by new names of letters, digits and underscores.
    """
    path, name = _parts(function)
    try:
        values = _load(path, name)(
            [prediction.prediction for prediction in predictions],
            [prediction.reference for prediction in predictions],
            [dict(prediction.row) for prediction in predictions],
        )
    except MetricError:
        raise
    except Exception as error:
        raise _failed(function, path, error) from error
    if not isinstance(values, Mapping):
        raise MetricError(
            f"scoring.function: {function} must return a dictionary of numbers, got "
            f"{values!r:.80}. Return one such as {{'name': 0.5}}."
        )
    for key, value in values.items():
        _check(function, key, value, taken)
    return {key: float(value) for key, value in values.items()}


def _parts(function: str) -> tuple[Path, str]:
    path, _, name = function.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise MetricError(
            f"scoring.function: must be path.py:name, got {function!r}. "
            "Write the file, a colon and the function."
        )
    if not Path(path).is_file():
        raise MetricError(
            f"scoring.function: must name a file, got {path!r}, which is not there "
            f"(looked in {Path.cwd()}). Check the path."
        )
    return Path(path).resolve(), name


@cache
def _load(path: Path, name: str) -> Callable[..., Any]:
    """Run the file and find the function in it; its folder is not put on the import path."""
    module_name = f"tell_lightning_function_{path.stem}"
    spec = spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise MetricError(
            f"scoring.function: must name a function of {path}, got {name!r}. Define it there."
        )
    return function  # type: ignore[no-any-return]


def _failed(function: str, path: Path, error: Exception) -> MetricError:
    """Say what went wrong in the user's file, and in which of its lines."""
    lines = [
        str(frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    place = f" in line {lines[-1]}" if lines else ""
    return MetricError(
        f"scoring.function: {function} must run without an error, got "
        f"{type(error).__name__}{place}: {' '.join(str(error).split())}. Mend it."
    )


def _check(function: str, key: object, value: object, taken: Collection[str]) -> None:
    if not isinstance(key, str) or not re.fullmatch(r"\w+", key):
        raise MetricError(
            f"scoring.function: {function} must name its scores by letters, digits and "
            f"underscores, got {key!r:.80}. Rename it."
        )
    if key in taken:
        raise MetricError(
            f"scoring.function: {function} must give its scores new names, got {key!r}, which "
            "exists already. Rename it."
        )
    if not isinstance(value, Real) or not math.isfinite(value):
        raise MetricError(
            f"scoring.function: {function} must return finite numbers, got {value!r:.80} as "
            f"{key!r}. Return a float."
        )
