"""Code of the user's that scores: a function, or the class of a scoring kind.

`scoring.function: path/to/file.py:name` gives numbers that stand beside the others. A file runs as
it is, with all that the user may do, once in a process; the function is called at each evaluation,
on every rank, with the same rows.

    def lengths(answers: list[str], references: list[str], rows: list[dict]) -> dict[str, float]:
        pairs = zip(answers, references)
        return {"length_ratio": sum(len(a) / len(r) for a, r in pairs) / len(answers)}
"""

import math
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from numbers import Real
from pathlib import Path
from typing import Any

from tell_lightning.errors import TellError
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
    where = "scoring.function"
    if not is_file(function):
        raise MetricError(
            f"{where}: must be path.py:name, got {function!r}. Write the file, a colon and the "
            "function."
        )
    called = load(where, function)
    with errors_named(where, function):
        values = called(
            [prediction.prediction for prediction in predictions],
            [prediction.reference for prediction in predictions],
            [dict(prediction.row) for prediction in predictions],
        )
    return checked(where, function, values, taken)


def is_file(path: str) -> bool:
    """Say whether a text has the form `path.py:name`.

    >>> is_file("my/kinds.py:Kind"), is_file("my.kinds.Kind")
    (True, False)
    """
    file, _, name = path.rpartition(":")
    return file.endswith(".py") and name.isidentifier()


def check_place(where: str, path: str) -> None:
    """Check that there is such a file, or such a package, without running it.

    Args:
        where: The key that holds the path.
        path: `path.py:name` or `package.module.name`.

    Raises:
        MetricError: There is none.
    """
    file = path.rpartition(":")[0]
    if is_file(path) and not Path(file).is_file():
        raise MetricError(
            f"{where}: must name a file, got {file!r}, which is not there "
            f"(looked in {Path.cwd()}). Check the path."
        )
    package = path.partition(".")[0]
    if not is_file(path) and (not package.isidentifier() or find_spec(package) is None):
        raise MetricError(
            f"{where}: must name a package that is installed, got {path!r}. Install "
            f"{package!r}, or correct the name."
        )


def load(where: str, path: str) -> Any:
    """Import a function or class.

    Args:
        where: The key that holds the path.
        path: `path.py:name` or `package.module.name`.

    Raises:
        MetricError: It is not there, or its file does not run.
    """
    check_place(where, path)
    module_name, _, name = path.rpartition(":" if is_file(path) else ".")
    with errors_named(where, path):
        module = _run(Path(module_name).resolve()) if is_file(path) else import_module(module_name)
    found = getattr(module, name, None)
    if not callable(found):
        raise MetricError(
            f"{where}: must name a function or class of {module_name}, got {name!r}. Define it "
            "there, or correct the name."
        )
    return found


@cache
def _run(file: Path) -> Any:
    """Run a file as a module; its folder is not put on the import path."""
    module_name = f"tell_lightning_user_{file.stem}"
    spec = spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def errors_named(
    where: str, path: str, rule: str = "must run without an error", cure: str = "Correct it there."
) -> Iterator[None]:
    """Turn what goes wrong in the user's code into one line that names the line of the file.

    Args:
        where: The key that holds the path.
        path: `path.py:name` or `package.module.name`.
        rule: What it must do.
        cure: What the user can do.

    Raises:
        MetricError: Instead of any exception that is no TellError.
    """
    try:
        yield
    except TellError:
        raise
    except ImportError as error:
        raise MetricError(
            f"{where}: {path} must find what it imports, got {type(error).__name__}: "
            f"{_one_line(error)}. Install it, or choose settings that do not need it."
        ) from error
    except Exception as error:
        file = str(Path(path.rpartition(":")[0]).resolve()) if is_file(path) else ""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        place = f" in line {lines[-1]}" if lines else ""
        raise MetricError(
            f"{where}: {path} {rule}, got {type(error).__name__}{place}: {_one_line(error)}. {cure}"
        ) from error


def arguments_named(path: str) -> AbstractContextManager[None]:
    """Name `scoring.init_args` where a class does not take them."""
    rule, cure = "must take these arguments", "Correct scoring.init_args."
    return errors_named("scoring.init_args", path, rule, cure)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def checked(where: str, path: str, values: Any, taken: Collection[str]) -> dict[str, float]:
    """Check the numbers that code of the user's has returned.

    Args:
        where: The key that holds the path.
        path: The function or class.
        values: What it returned.
        taken: Names of scores that exist already.

    Raises:
        MetricError: They are no finite numbers by new names.
    """
    if not isinstance(values, Mapping):
        raise MetricError(
            f"{where}: {path} must return a dictionary of numbers, got {values!r:.80}. "
            "Return one such as {'name': 0.5}."
        )
    for key, value in values.items():
        if not isinstance(key, str) or not re.fullmatch(r"\w+", key):
            raise MetricError(
                f"{where}: {path} must name its scores by letters, digits and underscores, "
                f"got {key!r:.80}. Rename it."
            )
        if key in taken:
            raise MetricError(
                f"{where}: {path} must give its scores new names, got {key!r}, which exists "
                "already. Rename it."
            )
        if not isinstance(value, Real) or not math.isfinite(value):
            raise MetricError(
                f"{where}: {path} must return finite numbers, got {value!r:.80} as {key!r}. "
                "Return a float."
            )
    return {key: float(value) for key, value in values.items()}
