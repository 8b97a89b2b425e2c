"""Labels read from JSON answers, and how often they are right.

Texts enter; labels, a table of counts and rates leave. An answer without a readable label is a
predicted class of its own, beside the real labels: it is counted, and never right. Exact integer
counts first, one division last. Microseconds a row.
"""

import ast
import json
import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)


def read_object(text: str) -> dict[str, object] | None:
    """Read a text that is one JSON object and nothing else.

    Returns:
        The object; None for anything else, such as text around it, a code fence or NaN.
    """
    try:
        value = json.loads(text.strip(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # a model may well answer with ten thousand brackets
        return None
    return value if isinstance(value, dict) else None


def is_repairable(text: str) -> bool:
    r"""Say whether a text is one JSON object, or becomes one by a repair that guesses nothing.

    What stands before the first brace and after the last goes, such as a code fence; so do commas
    before a closing bracket; or the rest is a Python literal, with single quotes, True and None.
    Labels are never read from a repaired text.

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


def read_label(text: str, label_key: str, labels: Collection[str]) -> str | None:
    """Read the label of an answer, strictly.

    Returns:
        The label as it is listed in `labels`; None when the text is no JSON object, or the object
        has no such key, or its value is not literally one of the labels.

    >>> read_label('{"thought": "It fits.", "hallucination": "no"}', "hallucination", ("no", "yes"))
    'no'
    >>> read_label("no", "hallucination", ("no", "yes")) is None
    True
    """
    label = (read_object(text) or {}).get(label_key)
    return label if isinstance(label, str) and label in labels else None


def read_gold(text: str, label_key: str, labels: Collection[str]) -> str | None:
    """Read the label of a reference: as in an answer, or the bare word.

    Case and outer punctuation of the bare word do not matter: some files hold no more than `Yes.`.
    """
    by_word = {_bare(label): label for label in labels}
    return read_label(text, label_key, labels) or by_word.get(_bare(text))


@dataclass(frozen=True)
class Confusion:
    """Counts of right and predicted label together. Where nothing is counted, a rate is 0."""

    labels: tuple[str, ...]
    """The labels that exist."""
    counts: Mapping[tuple[str, str | None], int]
    """Rows by (right label, predicted label); predicted None is unparseable."""

    @classmethod
    def of(
        cls, labels: Sequence[str], gold: Sequence[str], predicted: Sequence[str | None]
    ) -> Self:
        """Count rows; `gold` and `predicted` have the same length, in the same order."""
        return cls(tuple(labels), Counter(zip(gold, predicted, strict=True)))

    def rows(self, *, gold: str | None = None) -> int:
        """Count the rows, or those whose right label is `gold`."""
        return sum(n for (right, _), n in self.counts.items() if gold in (None, right))

    def answers(self, label: str | None) -> int:
        """Count the rows answered with `label`; None: the unparseable ones."""
        return sum(n for (_, answer), n in self.counts.items() if answer == label)

    def hits(self, label: str) -> int:
        """Count the rows of `label` that were answered with it."""
        return self.counts.get((label, label), 0)

    def accuracy(self) -> float:
        """Compute the share of rows answered right, 0 to 1."""
        return _share(sum(map(self.hits, self.labels)), self.rows())

    def majority_accuracy(self) -> float:
        """Compute the accuracy of always answering the most frequent right label, 0 to 1."""
        return _share(max(self.rows(gold=label) for label in self.labels), self.rows())

    def balanced_accuracy(self) -> float:
        """Compute the mean recall over the labels that occur on the right side, 0 to 1."""
        present = [label for label in self.labels if self.rows(gold=label)]
        return _share(sum(map(self.recall, present)), len(present))

    def recall(self, label: str) -> float:
        """Compute the share of the label's rows that were answered with it, 0 to 1."""
        return _share(self.hits(label), self.rows(gold=label))

    def precision(self, label: str) -> float:
        """Compute the share of the answers with this label that are right, 0 to 1."""
        return _share(self.hits(label), self.answers(label))

    def f1(self, label: str) -> float:
        """Compute the harmonic mean of the label's precision and recall, 0 to 1."""
        return _share(2 * self.hits(label), self.answers(label) + self.rows(gold=label))

    def mcc(self) -> float:
        """Compute Matthews' correlation coefficient, -1 to 1.

        The multi-class form over the labels and unparseable, which occurs on the predicted side
        only: the same number as scikit-learn's on these predictions; 0 where it is undefined.

        Source: Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006.
        """
        classes = (*self.labels, None)
        gold = [self.rows(gold=label) if label is not None else 0 for label in classes]
        answers = [self.answers(label) for label in classes]
        rows, hits = self.rows(), sum(map(self.hits, self.labels))
        covariance = hits * rows - sum(map(int.__mul__, gold, answers))
        variances = (rows**2 - sum(n * n for n in gold)) * (rows**2 - sum(n * n for n in answers))
        return _share(covariance, math.sqrt(variances))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _bare(text: str) -> str:
    return text.strip(string.punctuation + string.whitespace).casefold()


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
