"""Answers that are JSON: read strictly, or found to be JSON but for their wrapping."""

import ast
import json
import re
import warnings
from typing import Any

_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)

NOTHING = object()
"""What stands for a text that is no JSON; None is JSON's null."""


def read_value(text: str) -> Any:
    """Read a text that is one JSON value and nothing else.

    Returns:
        The value; `NOTHING` for anything else, such as text around it, a code fence or NaN.
    """
    try:
        return json.loads(text.strip(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # a model may well answer with ten thousand brackets
        return NOTHING


def read_object(text: str) -> dict[str, Any] | None:
    """Read a text that is one JSON object and nothing else; None for anything else."""
    value = read_value(text)
    return value if isinstance(value, dict) else None


def is_repairable(text: str) -> bool:
    r"""Say whether a text is one JSON object, or becomes one by a repair that guesses nothing.

    What stands before the first brace and after the last goes, such as a code fence; so do commas
    before a closing bracket; or the rest is a Python literal, with single quotes, True and None.
    Nothing is ever read from a repaired text.

    >>> is_repairable("```json\n{'hallucination': 'no',}\n```")
    True
    >>> is_repairable('{"hallucination": "no"')
    False
    """
    inner = text[text.find("{") : text.rfind("}") + 1]
    without_commas = _TRAILING_COMMA.sub(r"\1", inner)
    return any(read_object(each) is not None for each in (text, inner, without_commas)) or (
        _is_literal(inner)
    )


def _is_literal(text: str) -> bool:
    """Say whether a text is a Python dictionary that JSON can hold."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash that escapes nothing
            value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return isinstance(value, dict)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
